"""The bell in a shop's page: a real Chromium, another origin, and the strictest policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from services.shared.vocabulary import Role
from tests.graphiql import chromium, open_browser
from tests.inbox_page import Bell, Shop, open_bell, open_shop
from tests.kit import House, Somebody, open_house, quick_settings
from tests.notices import CREATE, Wire, ago, create, customer, nodes, row, store, unread_count
from tests.servers import PrivateMongod, need, until

ORDER = "mutation ($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    need(chromium() is not None, "there is no chromium: apt-get install chromium")
    with open_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, shop: Shop) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, allowed_origins=(shop.url,))
    async with open_house(settings) as house:
        shop.gateway = house.api.url.removesuffix("/graphql")
        yield house


@pytest.fixture(scope="module")
async def browser(shop: Shop) -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def somebody(house: House) -> Somebody:
    return await customer(house)


@pytest.fixture
async def bell(browser: Browser, shop: Shop, somebody: Somebody) -> AsyncIterator[Bell]:
    """A window of somebody's, with an inbox that is empty yet."""
    async with open_bell(browser, shop, somebody.api.token) as bell:
        yield bell


async def ordered(backend: Wire, somebody: Somebody, order: str, status: str, version: int) -> None:
    given = {"orderId": order, "userId": somebody.id, "status": status, "version": version}
    await backend.ask(ORDER, input=given)


async def test_two_customers_in_two_windows_hear_of_their_own_orders_at_once(
    house: House, browser: Browser, shop: Shop, backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    other = await customer(house)
    async with open_bell(browser, shop, other.api.token) as others:
        await others.open()
        await others.says("Nothing here yet.")
        await ordered(backend, somebody, "7", "shipped", 1)
        await bell.has_badge("1")
        await until(lambda: bell.heard())
        assert await bell.heard() == ["New: Order 7 is on its way"]
        await ordered(backend, other, "8", "shipped", 1)
        await others.shows("Order 8 is on its way")
        await others.has_badge("1")
    await bell.open()
    await bell.shows("Order 7 is on its way")


async def test_what_is_read_on_one_screen_is_read_on_the_other(
    browser: Browser, shop: Shop, backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    await create(backend, somebody.id, title="One")
    await create(backend, somebody.id, title="Two")
    async with open_bell(browser, shop, somebody.api.token) as other:
        await other.open()
        await other.tab("Unread")
        await other.shows("Two", "One")
        await bell.open()
        await bell.item("Two").locator("[part=title]").click()
        await other.shows("One")
        await other.has_badge("1")
        await bell.has_badge("1")
        assert await bell.page.evaluate("window.told") == [1, 2, 1]
        await bell.named("Mark all as read").click()
        await other.says("You have read everything.")
        await other.has_badge("")


async def test_what_is_archived_is_gone_everywhere_and_may_be_taken_back(
    browser: Browser, shop: Shop, backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    for title in ("One", "Two", "Three"):
        await create(backend, somebody.id, title=title)
    async with open_bell(browser, shop, somebody.api.token) as other:
        await other.open()
        await bell.open()
        await bell.item("Two").get_by_role("button", name="Archive").click()
        await bell.shows("Three", "One")
        await other.shows("Three", "One")
        focused = "document.querySelector('tidings-inbox').shadowRoot.activeElement.textContent"
        assert "One" in await bell.page.evaluate(focused)
        await bell.named("Undo").click()
        await bell.shows("Three", "Two", "One")
        await other.shows("Three", "Two", "One")


async def test_pages_come_as_one_scrolls_and_there_is_an_end_to_them(
    browser: Browser, shop: Shop, somebody: Somebody
) -> None:
    stored = 310
    await store(
        row(somebody.id, ago(60 + number), title=f"Number {number}") for number in range(stored)
    )
    async with open_bell(browser, shop, somebody.api.token) as bell:
        await bell.has_badge("99+")
        await bell.open()
        await until(lambda: bell.items.count())
        assert await bell.items.count() < 50
        assert await bell.items.first.get_attribute("aria-setsize") == "-1"

        async def at_the_end() -> bool:
            await bell.scroll_to_end()
            return await bell.panel.get_by_text("Only the newest 300 are shown here.").count() > 0

        await until(at_the_end, 20)
        newest = [node["title"] for node in await nodes(somebody.api, first=100)]
        titles = await bell.titles()
        assert list(titles[:100]) == newest
        assert len(set(titles)) == len(titles) == 300


async def test_all_is_marked_up_to_what_was_shown(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    for title in ("One", "Two"):
        await create(backend, somebody.id, title=title)
    await bell.open()
    await bell.shows("Two", "One")
    await bell.page.evaluate("window.requestAnimationFrame = () => 1")  # nothing is painted now
    await create(backend, somebody.id, title="Three")
    await until(lambda: bell.heard())
    await bell.named("Mark all as read").click()

    async def marked() -> bool:
        return await unread_count(somebody.api) == 1

    await until(marked)
    assert [node["title"] for node in await nodes(somebody.api, unreadOnly=True)] == ["Three"]


async def test_a_burst_is_one_sentence(backend: Wire, bell: Bell, somebody: Somebody) -> None:
    await bell.open()
    await bell.says("Nothing here yet.")
    many = [{"input": wanted(somebody, f"Number {number}")} for number in range(40)]
    await backend.ask_all(CREATE, many)
    await bell.has_badge("40")
    await until(lambda: bell.heard())
    heard = await bell.heard()
    assert len(heard) <= 2
    assert "new notifications" in heard[0]


async def test_an_order_that_moves_on_is_shown_once_and_on_top(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    await ordered(backend, somebody, "7", "placed", 1)
    await bell.open()
    await bell.shows("Order 7 received")
    await create(backend, somebody.id, title="Another")
    await bell.shows("Another", "Order 7 received")
    await ordered(backend, somebody, "7", "shipped", 2)
    await bell.shows("Order 7 is on its way", "Another")
    await bell.has_badge("2")


async def test_seen_is_what_was_shown(backend: Wire, bell: Bell, somebody: Somebody) -> None:
    await create(backend, somebody.id, title="One")
    await bell.open()

    async def seen() -> bool:
        return bool((await somebody.api.ask("{ unseenCount }"))["unseenCount"] == 0)

    await until(seen)
    assert await unread_count(somebody.api) == 1


async def test_text_stays_text_and_no_link_runs(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    html = "<img src=x onerror=\"document.title='owned'\"><b>Sale</b>"
    await create(backend, somebody.id, {"body": html, "url": "javascript:alert(1)"}, title=html)
    await create(backend, somebody.id, {"body": "Go", "href": "JavaScript:alert(1)"}, title="Two")
    await create(backend, somebody.id, {"body": "Go", "url": "data:text/html,x"}, title="Three")
    await bell.open()
    await bell.shows("Three", "Two", html)
    assert await bell.panel.locator("a, img, article b").count() == 0
    await bell.item("Two").locator("[part=title]").click()
    await bell.has_badge("2")
    assert await bell.page.title() == "A shop"
    assert bell.page.url == f"{bell.shop.url}/"


async def test_an_item_leads_to_its_page_and_is_read(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    await create(backend, somebody.id, {"body": "Go", "url": "/orders/1"}, title="One")
    await create(backend, somebody.id, {"body": "Go", "href": "orders/2"}, title="Two")
    await bell.open()
    await bell.page.evaluate("""() => addEventListener("tidings-open", (event) => {
      window.opened = [event.detail.notification.title, event.detail.href];
      event.preventDefault();
    }, { once: true })""")
    await bell.item("One").locator("[part=title]").click()
    await bell.has_badge("1")
    assert await bell.page.evaluate("window.opened") == ["One", f"{bell.shop.url}/orders/1"]
    assert bell.page.url == f"{bell.shop.url}/"
    await bell.item("Two").locator("[part=title]").click()
    await bell.page.wait_for_url("**/orders/2")

    async def read() -> bool:
        return await unread_count(somebody.api) == 0

    await until(read)


async def test_a_refused_token_says_sign_in_and_a_new_one_is_enough(
    browser: Browser, shop: Shop, backend: Wire, somebody: Somebody
) -> None:
    await create(backend, somebody.id, title="One")
    async with open_bell(browser, shop, "not a token") as bell:
        await bell.open()
        await bell.says("Please sign in again")
        await bell.page.evaluate(
            "(token) => document.querySelector('tidings-inbox').setAttribute('token', token)",
            somebody.api.token,
        )
        await bell.shows("One")
        await bell.page.evaluate(
            "document.querySelector('tidings-inbox').removeAttribute('token')"
        )
        await bell.says("Please sign in again")
        await bell.shows()
        await bell.has_badge("")


async def test_the_policy_of_the_page_is_in_force(bell: Bell) -> None:
    response = await bell.page.goto(bell.shop.url)
    assert response is not None
    assert response.headers["content-security-policy"] == bell.shop.policy
    await bell.page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "document.title = 'owned'";
      document.head.append(script);
    }""")
    assert await bell.page.title() == "A shop"
    assert any("Content Security Policy" in one for one in bell.complaints)
    bell.complaints.clear()


def wanted(somebody: Somebody, title: str) -> dict[str, Any]:
    return {
        "userId": somebody.id,
        "type": "ORDER_UPDATE",
        "title": title,
        "content": "It has a body.",
    }
