"""Row `inbox`: what the bell costs a page: bytes, time to the first notification, memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from playwright.async_api import Browser, Page

from bench.filling import fill_notifications, user_id
from bench.people import token
from bench.results import TIDINGS, Row, Target
from bench.world import ROOT, World
from services.shared.clock import SystemClock
from services.shared.events import Event, OrderStatusChanged
from services.shared.rabbit import RabbitBus
from tests.graphiql import open_browser
from tests.inbox_page import Shop, open_shop
from tests.servers import until

MOST_BYTES: Final = 15_000
ARRIVALS: Final = 1_000
_BUILT: Final = ROOT / "gateway/static/inbox/tidings-inbox.js"
_DATABASE: Final = "inbox"
_STORED: Final = 200
_ROUNDS: Final = 9
_AT_ONCE: Final = 50
_PATIENCE: Final = 60.0
_KILOBYTE: Final = 1000
# Opens the panel as soon as there is a bell, and looks at each frame what is shown.
_WATCH: Final = """(() => {
  const look = () => {
    const inside = document.querySelector("tidings-inbox")?.shadowRoot;
    if (inside?.querySelector("article")) window.shown = performance.now();
    else requestAnimationFrame(look);
    const bell = inside?.querySelector("[part=bell]");
    if (bell && !inside.querySelector(":popover-open")) bell.click();
  };
  document.addEventListener("DOMContentLoaded", () => {
    const inbox = document.createElement("tidings-inbox");
    inbox.setAttribute("endpoint", ENDPOINT);
    inbox.setAttribute("token", TOKEN);
    addEventListener("tidings-unread", (event) => { window.unread = event.detail.count; });
    document.querySelector("header").append(inbox);
    look();
  });
})()"""


async def inbox(world: World) -> Sequence[Row]:
    """The page is of another origin, on this machine, and has seen nothing of it before."""
    async with AsyncExitStack() as stack:
        shop = stack.enter_context(open_shop())
        database = await stack.enter_async_context(world.database(_DATABASE))
        await fill_notifications(database, 1, _STORED, world.progress)
        origins = json.dumps([shop.url])
        gateway = await stack.enter_async_context(
            world.service("gateway", _DATABASE, ALLOWED_ORIGINS=origins)
        )
        await stack.enter_async_context(world.service("notifications", _DATABASE))
        shop.gateway = gateway.url
        bus = RabbitBus(world.rabbitmq_url, SystemClock(), world.settings(_DATABASE))
        stack.push_async_callback(bus.close)
        browser = await stack.enter_async_context(open_browser())
        times = []
        for number in range(_ROUNDS):
            world.progress(f"page {number + 1} of {_ROUNDS}")
            times.append(await _first_shown(browser, shop))
        world.progress(f"{ARRIVALS:,} arrivals")
        before, after = await _memory(browser, shop, bus)
    size = len(gzip.compress(_BUILT.read_bytes(), 9))
    told = {"before and after": f"{before:,.0f} kB, {after:,.0f} kB"}
    grown = f"the heap of JavaScript after {ARRIVALS:,} arrivals, less what it was before"
    return [
        Row("inbox", "its file, gzip -9", "B", {TIDINGS: [size]}, [Target(None, most=MOST_BYTES)]),
        Row("inbox, first", "navigation to the first one shown", "ms", {TIDINGS: times[1:]}),
        Row("inbox, memory", grown, "kB", {TIDINGS: [after - before]}, notes=told),
    ]


async def _opened(browser: Browser, shop: Shop) -> Page:
    """A window whose page shows a notification."""
    page = await (await browser.new_context()).new_page()
    endpoint = json.dumps(f"{shop.gateway}/graphql")
    watch = _WATCH.replace("ENDPOINT", endpoint).replace("TOKEN", json.dumps(token(0)))
    await page.add_init_script(watch)
    await page.goto(shop.url)
    await until(lambda: page.evaluate("window.shown"), _PATIENCE)
    return page


async def _first_shown(browser: Browser, shop: Shop) -> float:
    """Milliseconds since the navigation began."""
    page = await _opened(browser, shop)
    shown = float(await page.evaluate("window.shown"))
    await page.context.close()
    return shown


async def _memory(browser: Browser, shop: Shop, bus: RabbitBus) -> tuple[float, float]:
    """Kilobytes in use, before and after the arrivals, the panel being open."""
    page = await _opened(browser, shop)
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable")

    async def in_use() -> float:
        await devtools.send("HeapProfiler.collectGarbage")
        metrics = (await devtools.send("Performance.getMetrics"))["metrics"]
        used = next(one["value"] for one in metrics if one["name"] == "JSHeapUsedSize")
        return float(used) / _KILOBYTE

    async def unread() -> int:
        return int(await page.evaluate("window.unread ?? 0"))

    known = await until(unread, _PATIENCE)
    before = await in_use()
    for first in range(0, ARRIVALS, _AT_ONCE):
        await bus.publish([_moved(number) for number in range(first, first + _AT_ONCE)])

    async def all_arrived() -> bool:
        return await unread() >= known + ARRIVALS

    await until(all_arrived, _PATIENCE)
    after = await in_use()
    await page.context.close()
    return before, after


def _moved(number: int) -> Event:
    order = OrderStatusChanged(
        order_id=f"order-{number}", user_id=user_id(0), status="shipped", version=1
    )
    return Event.of(order, time=SystemClock().now(), source="urn:shop")
