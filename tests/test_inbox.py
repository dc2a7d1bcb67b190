"""The bell in a shop's page: a real Chromium, another origin, and the strictest policy."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, WebSocketRoute, expect
from playwright.async_api import TimeoutError as PlaywrightTimeout

from tests.graphiql import chromium, open_browser
from tests.inbox_page import Bell, Shop, open_bell, open_shop
from tests.kit import House, Somebody, open_house, quick_settings
from tests.notices import (
    ARCHIVE,
    CREATE,
    READ,
    Wire,
    ago,
    create,
    customer,
    nodes,
    row,
    store,
    unread_count,
)
from tests.servers import PrivateMongod, need, until

INBOX = Path(__file__).parents[1] / "inbox"
MOST_IDS = 50
MANY = 10_000
WEEKEND = {"start": "22:00", "end": "07:00", "days": ["SATURDAY", "SUNDAY"]}
QUIET = {"channel": "WEB_PUSH", "windows": [WEEKEND]}
CHOOSE = "mutation ($input: PreferencesInput!) { updatePreferences(input: $input) { version } }"
CHOICES = """{ preferences {
  types { type enabled channels { channel enabled } }
  quietHours { channel windows { days start end } } } }"""
SNOOZE = (
    "mutation ($id: ID!, $until: DateTime) { snoozeNotification(id: $id, until: $until) { id } }"
)
SWINGS = """() => {
  const { animate } = Element.prototype;
  window.swings = 0;
  Element.prototype.animate = function (...frames) {
    window.swings += 1;
    return animate.apply(this, frames);
  };
}"""
LINES = """() => {
  const { shadowRoot } = document.querySelector("tidings-inbox");
  const line = (selector, pseudo) => {
    const style = getComputedStyle(shadowRoot.querySelector(selector), pseudo);
    return style.content === "none" ? "none" : style.borderBottomStyle;
  };
  return {
    badge: line("[part=badge]"),
    new: line("[part~=item-unread]", "::before"),
    old: line("article:not([part~=item-unread])", "::before"),
    chosen: line("[aria-selected=true]"),
    other: line("[aria-selected=false]"),
  };
}"""
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
    await bell.has_badge("1")
    await create(backend, somebody.id, title="Two")
    await bell.has_badge("2")
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


async def test_the_last_row_that_is_loaded_stays_where_it_is_when_it_is_read_elsewhere(
    browser: Browser, shop: Shop, somebody: Somebody
) -> None:
    await store(
        row(somebody.id, ago(60 + number), title=f"Number {number}") for number in range(90)
    )
    async with open_bell(browser, shop, somebody.api.token) as bell:
        await bell.open()
        titles = await until(bell.titles)
        assert len(titles) == 20
        last = (await nodes(somebody.api, first=len(titles)))[-1]
        await somebody.api.ask(READ, id=last["id"])
        row_of_it = bell.items.filter(has_text=last["title"])
        await expect(row_of_it).to_have_attribute("part", "item ")
        assert await bell.titles() == titles


async def test_a_panel_that_is_higher_than_a_page_is_filled(
    browser: Browser, shop: Shop, somebody: Somebody
) -> None:
    await store(
        row(somebody.id, ago(60 + number), title=f"Number {number}") for number in range(50)
    )
    high = {"width": 1000, "height": 9000}
    async with open_bell(browser, shop, somebody.api.token, viewport=high) as bell:
        await bell.page.locator("tidings-inbox").evaluate(
            "inbox => inbox.style.setProperty('--tidings-height', '8900px')"
        )
        await bell.has_badge("50")
        await bell.open()
        await bell.shows(*(f"Number {number}" for number in range(50)))


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

    def told(socket: WebSocketRoute, message: dict[str, Any]) -> bool:
        text, id = json.dumps(message), message.get("id")
        if "pageInfo" in text:
            pages.add(str(id))
        if id in pages:
            held.append(lambda: socket.send(text))
            return False
        passed.append(text)
        return True

    def release() -> None:
        for send in held:
            send()
        held.clear()
        pages.clear()

    await bell.intercept(told=told)
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
    await expect(bell.panel.locator("[part~=item-unread]")).to_have_count(0)  # a moment later


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


async def test_a_link_opened_in_another_tab_is_read_and_the_page_is_not_told(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    for title in ("One", "Two", "Three"):
        content = {"body": "Go", "url": None, "href": f"/orders/{title}"}
        await create(backend, somebody.id, content, title=title)
    await bell.open()
    await bell.page.evaluate("""() => {
      window.opened = [];
      addEventListener("tidings-open", (event) => {
        window.opened.push(event.detail.notification.title);
        event.preventDefault();
      });
    }""")
    context = bell.page.context
    async with context.expect_page() as opened:
        await bell.item("One").locator("[part=title]").click(modifiers=["ControlOrMeta"])
    await (await opened.value).wait_for_url("**/orders/One")
    await bell.has_badge("2")
    async with context.expect_page() as opened:
        await bell.item("Two").locator("[part=title]").click(button="middle")
    await (await opened.value).wait_for_url("**/orders/Two")
    await bell.has_badge("1")
    await bell.item("Three").locator("[part=title]").click(button="right")
    await bell.item("Three").locator("[part=title]").click()
    await bell.has_badge("")
    assert await bell.page.evaluate("window.opened") == ["Three"]
    assert bell.page.url == f"{bell.shop.url}/"


async def test_what_is_woken_by_hand_is_shown_again(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    for title in ("One", "Two"):
        await create(backend, somebody.id, title=title)
    await bell.open()
    await bell.shows("Two", "One")
    [two, _] = await nodes(somebody.api)
    until_when = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await somebody.api.ask(SNOOZE, id=two["id"], until=until_when)
    await bell.shows("One")
    await bell.has_badge("1")
    await somebody.api.ask(SNOOZE, id=two["id"], until=None)
    await bell.shows("Two", "One")
    await bell.has_badge("2")


async def test_what_comes_while_an_empty_inbox_is_read_is_not_missed(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    held: list[Callable[[], None]] = []
    counts: list[int] = []
    page = ""
    pages = 0

    def asked(socket: WebSocketRoute, message: dict[str, Any]) -> bool:
        nonlocal pages
        pages += "pageInfo" in (message.get("payload") or {}).get("query", "")
        return True

    def told(socket: WebSocketRoute, message: dict[str, Any]) -> bool:
        nonlocal page
        data = (message.get("payload") or {}).get("data") or {}
        counts.append(data.get("unreadCount", 0))
        if "notifications" in data and not page:
            page = message["id"]
        if page and message.get("id") == page:
            held.append(lambda: socket.send(json.dumps(message)))
            return False
        return True

    await bell.intercept(asked, told)
    await bell.begin_anew(somebody.api.token)
    await bell.button.click()
    await until(lambda: len(held) == 2)  # what it says, and that it is complete
    await create(backend, somebody.id, title="One")
    await until(lambda: 1 in counts)
    for send in held:
        send()
    await bell.shows("One")
    await until(lambda: bell.has_heard("New: One"))
    assert pages == 2
    await create(backend, somebody.id, title="Two")
    await bell.shows("Two", "One")


async def test_somebody_elses_tokens_begin_anew_at_once_and_nothing_said_stays(
    house: House, backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    other = await customer(house)
    await create(backend, other.id, title="Other")
    await bell.open()
    await create(backend, somebody.id, title="One")
    await until(lambda: bell.has_heard("New: One"))
    await bell.page.evaluate(
        """(token) => {
          document.querySelector("tidings-inbox").getToken = async () => token;
        }""",
        other.api.token,
    )
    await bell.shows("Other")
    assert (await bell.heard())[-1] == ""


async def test_a_reason_that_is_refused_is_not_waited_for(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    await create(backend, somebody.id, title="One")

    def asked(socket: WebSocketRoute, message: dict[str, Any]) -> bool:
        if "explain" not in json.dumps(message):
            return True
        problem = {"id": message["id"], "type": "error", "payload": [{"message": "Not now."}]}
        socket.send(json.dumps(problem))
        return False

    await bell.intercept(asked=asked)
    await bell.begin_anew(somebody.api.token)
    await bell.open()
    await bell.item("One").get_by_role("button", name="Why did I get this?").click()
    await bell.says("Not now.")
    assert await bell.panel.get_by_text("Loading…").count() == 0


async def test_a_network_that_goes_and_is_back_is_seen_at_once(bell: Bell) -> None:
    await bell.open()
    await bell.says("Nothing here yet.")
    change = """(isThere) => {
      Object.defineProperty(navigator, "onLine", { value: isThere, configurable: true });
      window.dispatchEvent(new Event(isThere ? "online" : "offline"));
    }"""
    await bell.page.evaluate(change, False)
    await bell.says("No connection. Trying again…")
    await bell.page.evaluate(change, True)
    await bell.says("Nothing here yet.")


async def test_a_bell_that_is_moved_is_closed_and_opens_again(bell: Bell) -> None:
    await bell.open()
    await bell.page.evaluate(
        "document.querySelector('main').append(document.querySelector('tidings-inbox'))"
    )
    await bell.panel.wait_for(state="hidden")
    await expect(bell.button).to_have_attribute("aria-expanded", "false")
    await bell.open()
    await bell.says("Nothing here yet.")


@pytest.mark.parametrize("width", [390, 1000])
async def test_a_bell_at_the_bottom_opens_upwards(
    browser: Browser, shop: Shop, somebody: Somebody, width: int
) -> None:
    size = {"width": width, "height": 700}
    async with open_bell(browser, shop, somebody.api.token, viewport=size) as bell:
        await bell.page.evaluate("""() => Object.assign(document.querySelector("header").style,
          { position: "fixed", insetBlockEnd: 0, insetInline: 0 })""")
        await bell.open()
        button, panel = await bell.button.bounding_box(), await bell.panel.bounding_box()
        assert button is not None
        assert panel is not None
        assert panel["y"] >= 0
        assert panel["y"] + panel["height"] <= button["y"]
        assert panel["height"] > (500 if width < 480 else 150)


async def test_a_refused_token_says_sign_in_and_a_new_one_is_enough(
    browser: Browser, shop: Shop, backend: Wire, somebody: Somebody
) -> None:
    await create(backend, somebody.id, title="One")
    async with open_bell(browser, shop, "not a token") as bell:
        await bell.open()
        await bell.says("Please sign in")
        assert not await bell.named("Settings").count()
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
    await ordered(backend, somebody, "7", "placed", 1)
    await bell.shows("Order 7 received", "Four", "Three", "Two", "One")
    await keyboard.press("PageUp")
    await bell.focused_item("Two")
    await keyboard.press("Control+Home")
    assert await bell.focus() == "ALL"
    await keyboard.press("Escape")
    await bell.panel.wait_for(state="hidden")
    await bell.page.locator("tidings-inbox [part=bell]:focus").wait_for()


async def test_the_focus_stays_in_the_panel_whatever_goes(
    backend: Wire, bell: Bell, somebody: Somebody
) -> None:
    for title in ("One", "Two"):
        await create(backend, somebody.id, title=title)
    await ordered(backend, somebody, "7", "placed", 1)
    await bell.has_badge("3")
    await bell.open()
    press = bell.page.keyboard.press

    async def focused(where: str) -> None:
        async def there() -> bool:
            return await bell.focus() == where

        await until(there)

    async def enter(name: str) -> None:
        await bell.named(name).focus()
        await press("Enter")

    await enter("Settings")
    await bell.says("What reaches you, and how")
    await focused("panel")
    await enter("Back")
    await bell.shows("Order 7 received", "Two", "One")
    await focused("panel")
    await bell.item("Order 7").focus()
    await ordered(backend, somebody, "7", "shipped", 2)
    await bell.shows("Order 7 is on its way", "Two", "One")
    await create(backend, somebody.id, title="Three")
    await bell.shows("Three", "Order 7 is on its way", "Two", "One")
    await bell.focused_item("Order 7")
    await bell.item("One").get_by_role("button", name="Archive").focus()
    await press("Enter")
    await bell.shows("Three", "Order 7 is on its way", "Two")
    await bell.focused_item("Two")
    await enter("Undo")
    await bell.shows("Three", "Order 7 is on its way", "Two", "One")
    await focused("panel")
    await enter("Mark all as read")
    await bell.has_badge("")
    await focused("panel")
    await bell.item("Two").focus()
    [two] = [one for one in await nodes(somebody.api) if one["title"] == "Two"]
    await somebody.api.ask(ARCHIVE, id=two["id"])  # on another screen
    await bell.shows("Three", "Order 7 is on its way", "One")
    await focused("panel")


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


@pytest.mark.parametrize(("motion", "swings"), [("no-preference", 1), ("reduce", 0)])
async def test_the_bell_swings_unless_somebody_wants_less_motion(
    browser: Browser, shop: Shop, backend: Wire, somebody: Somebody, motion: str, swings: int
) -> None:
    async with open_bell(browser, shop, somebody.api.token, reduced_motion=motion) as bell:
        await bell.open()
        await bell.page.evaluate(SWINGS)
        await create(backend, somebody.id, title="One")
        await until(lambda: bell.heard())
        assert await bell.page.evaluate("window.swings") == swings


async def test_with_colours_of_the_systems_own_one_sees_what_is_new_and_chosen(
    browser: Browser, shop: Shop, backend: Wire, somebody: Somebody
) -> None:
    for title in ("Old", "New"):
        await create(backend, somebody.id, title=title)
    async with open_bell(browser, shop, somebody.api.token, forced_colors="active") as bell:
        await bell.open()
        await bell.item("Old").get_by_role("button", name="Old").click()
        await expect(bell.item("Old")).to_have_attribute("part", "item ")
        assert await bell.page.evaluate(LINES) == {
            "badge": "solid",
            "new": "solid",
            "old": "none",
            "chosen": "solid",
            "other": "none",
        }


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


async def test_yesterday_is_the_day_before_today(
    browser: Browser, shop: Shop, somebody: Somebody
) -> None:
    midnight = ago(0).replace(hour=0, minute=0, second=0, microsecond=0)
    await store([row(somebody.id, midnight - timedelta(hours=25), title="Old")])
    async with open_bell(browser, shop, somebody.api.token, timezone_id="UTC") as bell:
        await bell.open()
        assert await bell.items.locator("time").text_content() == "2 days ago"


async def test_what_one_wants_to_hear_is_chosen_in_the_panel(
    bell: Bell, house: House, somebody: Somebody
) -> None:
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
    await somebody.api.ask(CHOOSE, input={"types": [{"type": "PROMOTION", "enabled": False}]})
    await offers.click()
    await bell.says("Changed elsewhere meanwhile. Please choose again.")
    assert not await bell.panel.get_by_label("Offers: On").is_checked()


async def test_quiet_hours_are_set_changed_and_taken_back(bell: Bell, somebody: Somebody) -> None:
    await somebody.api.ask(CHOOSE, input={"quietHours": [QUIET]})
    await bell.open()
    await bell.named("Settings").click()

    async def stored(*wanted: tuple[str, str, str, int]) -> None:
        async def settled() -> bool:
            return list(wanted) == [
                (one["channel"], window["start"], window["end"], len(window["days"]))
                for one in (await somebody.api.ask(CHOICES))["preferences"]["quietHours"]
                for window in one["windows"]
            ]

        await until(settled)

    push = bell.panel.get_by_label("Quiet hours: Push")
    weekend = ("WEB_PUSH", "22:00", "07:00", 2)
    await bell.says("Sat, Sun")
    await push.uncheck()
    await stored()
    await push.check()
    await stored(weekend)
    await bell.panel.get_by_label("Quiet hours: Email").check()
    await stored(("EMAIL", "22:00", "07:00", 7), weekend)
    await bell.panel.get_by_label("Email: From").fill("23:15")
    await bell.panel.get_by_label("Email: Until").fill("06:30")
    await push.focus()
    await stored(("EMAIL", "23:15", "06:30", 7), weekend)
    assert await bell.panel.get_by_label("Quiet hours: Here").count() == 0


async def test_two_quick_choices_are_both_made(bell: Bell, somebody: Somebody) -> None:
    await bell.open()
    await bell.named("Settings").click()
    await bell.panel.get_by_label("Offers: On").wait_for()
    await bell.page.evaluate("""() => {
      const { shadowRoot } = document.querySelector("tidings-inbox");
      for (const name of ["Offers: On", "Orders: Email"]) {
        shadowRoot.querySelector(`[aria-label="${name}"]`).click();
      }
    }""")

    async def chosen() -> bool:
        orders, offers, *_ = (await somebody.api.ask(CHOICES))["preferences"]["types"]
        return bool(offers["enabled"] and not orders["channels"][1]["enabled"])

    await until(chosen)
    assert await bell.panel.get_by_text("Changed elsewhere").count() == 0


async def test_the_shop_has_words_of_its_own(bell: Bell) -> None:
    await bell.page.evaluate("""() => {
      document.querySelector("tidings-inbox").labels = { title: "Neues", empty: "Noch nichts." };
    }""")
    await bell.open()
    await bell.says("Noch nichts.", "Unread")
    assert await bell.button.get_attribute("aria-label") == "Neues"


@pytest.mark.timeout(300)
async def test_ten_thousand_unread_are_marked_without_a_flood(
    browser: Browser, shop: Shop, bell: Bell, somebody: Somebody
) -> None:
    body = "Long ago. " * 100
    for first in range(0, MANY, 1000):
        await store(
            row(somebody.id, ago(60 + number), title=f"Number {number}", body=body, seen=False)
            for number in range(first, first + 1000)
        )
    told: list[str] = []
    bell.page.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda frame: told.append(str(frame))),
    )
    await bell.begin_anew(somebody.api.token)
    await bell.has_badge("99+")
    await bell.open()
    assert (await bell.titles())[0] == "Number 0"
    async with open_bell(browser, shop, somebody.api.token) as other:
        await other.has_badge("99+")
        await bell.named("Mark all as read").click()

        async def marked() -> bool:
            if await bell.panel.get_by_text("try again in a moment").count():
                with suppress(PlaywrightTimeout):  # it has gone, as nothing is unread any more
                    await bell.named("Mark all as read").click(timeout=1000)
            return await gone(bell)

        await until(marked, 150)
        await until(lambda: gone(other), 60)
    assert await unread_count(somebody.api) == 0
    assert not any('"SEEN"' in one for one in told)
    assert sum(map(len, told)) < MANY * 300
    await expect(bell.panel.locator("[part~=item-unread]")).to_have_count(0)  # a moment later


async def gone(bell: Bell) -> bool:
    """Whether there is no badge."""
    return await bell.badge() == ""
