"""The bell in a shop's page: a real Chromium, another origin, and the strictest policy."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, WebSocketRoute

from tests.graphiql import chromium, open_browser
from tests.inbox_page import Bell, Shop, open_bell, open_shop
from tests.kit import House, Somebody, open_house, quick_settings
from tests.notices import CREATE, READ, Wire, ago, create, customer, nodes, row, store, unread_count
from tests.servers import PrivateMongod, need, until

INBOX = Path(__file__).parents[1] / "inbox"
MOST_IDS = 50
WEEKEND = {"start": "22:00", "end": "07:00", "days": ["SATURDAY", "SUNDAY"]}
QUIET = {"channel": "WEB_PUSH", "windows": [WEEKEND]}
CHOOSE = "mutation ($input: PreferencesInput!) { updatePreferences(input: $input) { version } }"
CHOICES = """{ preferences {
  types { type enabled channels { channel enabled } } quietHours { channel } } }"""
ORDER = "mutation ($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    need(chromium() is not None, "there is no chromium: apt-get install chromium")
    with open_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, shop: Shop) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, allowed_origins=(shop.url,), max_cursor_ids=MOST_IDS)
    async with open_house(settings) as house:
        shop.gateway = house.api.url.removesuffix("/graphql")
        yield house


@pytest.fixture(scope="module")
async def browser(shop: Shop) -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, of inbox/package-lock.json."""
    npm = shutil.which("npm")
    need(npm is not None, "there is no npm: apt-get install npm")
    script = INBOX / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        command = [str(npm), "ci", "--ignore-scripts", "--silent"]
        subprocess.run(command, cwd=INBOX, check=True, timeout=300)
    return script.read_text()


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


async def test_what_happens_while_a_page_is_on_its_way_counts_more(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    await create(backend, somebody.id, title="One")
    held: list[Callable[[], None]] = []
    passed: list[str] = []
    pages: set[str] = set()

    def through(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def tell(message: str | bytes) -> None:
            id = json.loads(message).get("id")
            if "pageInfo" in str(message):
                pages.add(id)
            if id in pages:
                held.append(lambda: socket.send(message))
            else:
                socket.send(message)
                passed.append(str(message))

        server.on_message(tell)

    def release() -> None:
        for send in held:
            send()
        held.clear()
        pages.clear()

    await bell.page.route_web_socket("**/graphql", through)
    await bell.begin_anew(somebody.api.token)
    await bell.button.click()
    await until(lambda: len(held) == 2)  # what it says, and that it is complete
    release()
    await bell.shows("One")
    await bell.tab("Orders")
    await until(lambda: len(held) == 2)
    [one] = await nodes(somebody.api)
    await somebody.api.ask(READ, id=one["id"])  # on another screen
    await until(lambda: any("READ" in message for message in passed))
    release()
    await bell.shows("One")
    assert await bell.panel.locator("[part~=item-unread]").count() == 0


async def test_a_flood_that_no_cursor_can_name_is_read_again_until_one_can(
    house: House, backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    await bell.open()
    await bell.says("Nothing here yet.")
    now, many = house.runtime.clock.now(), MOST_IDS + 5
    await store(row(somebody.id, now, title="Flood") for _ in range(many))
    before = bell.sockets
    await bell.begin_anew(somebody.api.token)
    await bell.has_badge(str(many))
    await until(lambda: bell.sockets > before + 1)  # as it was told to RESYNC
    await create(backend, somebody.id, title="Afterwards")
    await bell.item("Afterwards").wait_for()


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
        await bell.says("Please sign in")
        await bell.page.evaluate(
            "(token) => document.querySelector('tidings-inbox').setAttribute('token', token)",
            somebody.api.token,
        )
        await bell.shows("One")
        await bell.page.evaluate("document.querySelector('tidings-inbox').removeAttribute('token')")
        await bell.says("Please sign in")
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


async def test_everything_can_be_done_with_the_keyboard(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    for title in ("One", "Two", "Three"):
        await create(backend, somebody.id, title=title)
    await bell.has_badge("3")
    assert await bell.button.get_attribute("aria-label") == "Notifications, 3 unread"
    keyboard = bell.page.keyboard
    await keyboard.press("Tab")  # the shop's link
    await keyboard.press("Tab")
    await keyboard.press("Enter")
    await bell.shows("Three", "Two", "One")
    assert await bell.button.get_attribute("aria-expanded") == "true"
    assert await bell.focus() == "panel"
    for _ in range(4):  # mark all, settings, close, the tabs
        await keyboard.press("Tab")
    await keyboard.press("ArrowRight")
    assert await bell.focus() == "UNREAD"
    await keyboard.press("ArrowLeft")
    await keyboard.press("ArrowLeft")
    assert await bell.focus() == "RECOMMENDATION"
    await bell.says("Nothing here yet.")
    await keyboard.press("Home")
    await bell.shows("Three", "Two", "One")
    await keyboard.press("Tab")
    await bell.focused_item("Three")
    await keyboard.press("PageDown")
    await bell.focused_item("Two")
    await keyboard.press("Enter")
    await bell.has_badge("2")
    await keyboard.press("PageDown")
    await keyboard.press("PageDown")
    await bell.focused_item("One")
    await create(backend, somebody.id, title="Four")
    await bell.shows("Four", "Three", "Two", "One")
    await bell.focused_item("One")
    await keyboard.press("Control+Home")
    assert await bell.focus() == "ALL"
    await keyboard.press("Escape")
    await bell.panel.wait_for(state="hidden")
    await bell.page.locator("tidings-inbox [part=bell]:focus").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_whatever_is_shown(
    axe: str, browser: Browser, shop: Shop, backend: Wire, somebody: Somebody, scheme: str
) -> None:
    await create(backend, somebody.id, title="One")
    await create(backend, somebody.id, {"body": "Go", "url": "/1"}, title="Two")
    async with open_bell(browser, shop, somebody.api.token, color_scheme=scheme) as bell:
        await bell.page.evaluate(axe)
        await bell.has_badge("2")
        await bell.finds_nothing()
        await bell.open()
        await bell.item("One").get_by_role("button", name="Why did I get this?").click()
        await bell.says("Updates of orders in the app can't be switched off.")
        await bell.item("Two").get_by_role("button", name="Archive").click()
        await bell.says("Archived.")
        await bell.finds_nothing()
        await bell.tab("Offers")
        await bell.says("Nothing here yet.")
        await bell.finds_nothing()
        await bell.named("Settings").click()
        await bell.says("Webhook")
        await bell.finds_nothing()
    async with open_bell(browser, shop, None, color_scheme=scheme) as bell:
        await bell.page.evaluate(axe)
        await bell.open()
        await bell.says("Please sign in")
        await bell.finds_nothing()


async def test_a_page_from_right_to_left_is_mirrored(
    browser: Browser, shop: Shop, backend: Wire, somebody: Somebody
) -> None:
    title = "طلبك في الطريق"
    await create(backend, somebody.id, "سيصل غدًا", title=title)
    async with open_bell(browser, shop, somebody.api.token, path="/rtl") as bell:
        await bell.open()
        await bell.shows(title)
        button, panel = await bell.button.bounding_box(), await bell.panel.bounding_box()
        assert button is not None
        assert panel is not None
        assert abs(panel["x"] - button["x"]) < 2
        await bell.panel.get_by_role("tab", name="All").focus()
        await bell.page.keyboard.press("ArrowLeft")
        assert await bell.focus() == "UNREAD"


async def test_on_a_phone_the_panel_is_as_wide_as_the_page_and_long_words_break(
    browser: Browser, shop: Shop, backend: Wire, somebody: Somebody
) -> None:
    await create(backend, somebody.id, "y" * 400, title="x" * 400)
    size = {"width": 390, "height": 700}
    async with open_bell(browser, shop, somebody.api.token, viewport=size) as bell:
        await bell.open()
        await bell.shows("x" * 400)
        panel = await bell.panel.bounding_box()
        assert panel is not None
        assert (panel["x"], panel["width"]) == (0, 390)
        items = bell.panel.locator("[part=list]")
        assert await items.evaluate("list => list.scrollWidth <= list.clientWidth")


async def test_times_are_in_the_language_and_zone_of_the_user(
    browser: Browser, shop: Shop, somebody: Somebody
) -> None:
    at = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    await store([row(somebody.id, at, title="Old"), row(somebody.id, ago(7300), title="New")])
    german: dict[str, Any] = {"locale": "de-DE", "timezone_id": "Asia/Tokyo"}
    async with open_bell(browser, shop, somebody.api.token, **german) as bell:
        await bell.open()
        times = bell.items.locator("time")
        assert await times.all_text_contents() == ["vor 2 Std.", "01.02.2026"]
        assert await times.last.get_attribute("title") == "Sonntag, 1. Februar 2026 um 08:30"
        assert await times.last.get_attribute("datetime") == "2026-01-31T23:30:00+00:00"


async def test_what_one_wants_to_hear_is_chosen_in_the_panel(
    bell: Bell, house: House, somebody: Somebody
) -> None:
    await somebody.api.ask(CHOOSE, input={"quietHours": [QUIET]})
    await bell.open()
    await bell.named("Settings").click()
    offers = bell.panel.get_by_label("Offers: Push")
    assert await bell.panel.get_by_label("Orders: Here").is_disabled()
    assert await offers.is_disabled()  # as all offers are off
    await bell.panel.get_by_label("Offers: On").check()
    await until(offers.is_enabled)
    await offers.check()

    async def chosen() -> bool:
        wanted = (await somebody.api.ask(CHOICES))["preferences"]["types"][1]
        return bool(wanted["enabled"] and wanted["channels"][2]["enabled"])

    await until(chosen)
    await bell.panel.get_by_label("Push: Sat, Sun 22:00–07:00").uncheck()

    async def disturbed() -> bool:
        return not (await somebody.api.ask(CHOICES))["preferences"]["quietHours"]

    await until(disturbed)
    await somebody.api.ask(CHOOSE, input={"types": [{"type": "PROMOTION", "enabled": False}]})
    await offers.click()
    await bell.says("Changed elsewhere meanwhile. Please choose again.")
    assert not await bell.panel.get_by_label("Offers: On").is_checked()


async def test_the_shop_has_words_of_its_own(bell: Bell) -> None:
    await bell.page.evaluate("""() => {
      document.querySelector("tidings-inbox").labels = { title: "Neues", empty: "Noch nichts." };
    }""")
    await bell.open()
    await bell.says("Noch nichts.", "Unread")
    assert await bell.button.get_attribute("aria-label") == "Neues"
