"""The bell on bad days: servers that are killed, tokens that run out, a laptop that slept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Browser, WebSocketRoute

from campaign.proxy import Proxy
from services.shared.vocabulary import Role
from tests.graphiql import chromium, open_browser
from tests.inbox_page import Shop, open_bell, open_shop
from tests.kit import PASSWORD, Api, House, Somebody, open_house, quick_settings
from tests.notices import ago, create, customer, row, store
from tests.processes import Run, elsewhere, tidings
from tests.servers import PrivateMongod, free_port, hang, need, until

TOKEN_SECONDS = 3
LOGIN = """mutation ($email: String!, $password: String!) {
  login(input: { email: $email, password: $password }) { accessToken } }"""
REGISTER = """mutation ($input: RegisterInput!) { register(input: $input) {
  accessToken user { id } } }"""
NO_PROMOTIONS = {"types": [{"type": "PROMOTION", "enabled": False}]}
ORDER = "mutation ($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
TITLES = "{ unreadCount notifications(first: 50) { edges { node { id title } } } }"
READ = "mutation ($id: ID!) { markNotificationRead(id: $id) { read } }"
SIGN_IN = "Please sign in"
AWAY = "No connection. Trying again…"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    need(chromium() is not None, "there is no chromium: apt-get install chromium")
    with open_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
async def browser(shop: Shop) -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, shop: Shop) -> AsyncIterator[House]:
    settings = quick_settings(
        mongod.url,
        allowed_origins=(shop.url,),
        access_token_seconds=TOKEN_SECONDS,
    )
    async with open_house(settings) as house:
        yield house


@pytest.fixture
async def proxy(house: House, shop: Shop) -> AsyncIterator[Proxy]:
    """What is between the browser and the house."""
    proxy = Proxy("browser", int(house.api.url.removesuffix("/graphql").rpartition(":")[2]))
    await proxy.start()
    shop.gateway = f"http://127.0.0.1:{proxy.port}"
    yield proxy
    await proxy.close()


class Tokens:
    """What a page's getToken gives: a new one each time, or none while nobody is signed in."""

    def __init__(self, api: Api, somebody: Somebody) -> None:
        self._api, self._somebody = api, somebody
        self.given = 0
        self.signed_in = True

    async def __call__(self) -> str | None:
        self.given += 1
        if not self.signed_in:
            return None
        answer = await self._api.ask(LOGIN, email=self._somebody.email, password=PASSWORD)
        return str(answer["login"]["accessToken"])


async def sent(house: House, somebody: Somebody, title: str) -> None:
    """By a backend that has just logged in."""
    await create((await house.somebody(Role.SERVICE)).api, somebody.id, title=title)


async def test_a_token_that_runs_out_is_renewed_by_the_page_and_nobody_notices(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    somebody = await customer(house)
    tokens = Tokens(house.api, somebody)
    async with open_bell(browser, shop, tokens) as bell:
        await bell.open()
        await sent(house, somebody, "One")
        await bell.shows("One")
        await until(lambda: tokens.given > 1)
        await sent(house, somebody, "Two")
        await bell.item("Two").wait_for()
        await until(lambda: tokens.given > 2)
        await sent(house, somebody, "Three")
        await bell.shows("Three", "Two", "One")
        await bell.has_badge("3")
        assert await bell.panel.get_by_text(SIGN_IN).count() == 0

        tokens.signed_in = False
        await bell.says(SIGN_IN)
        await bell.shows()
        await bell.has_badge("")
        tokens.signed_in = True
        await bell.named("Try again").click()
        await bell.shows("Three", "Two", "One")


async def test_a_laptop_that_slept_hears_at_once_what_it_missed(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    somebody = await customer(house)
    async with open_bell(browser, shop, Tokens(house.api, somebody)) as bell:
        await bell.open()
        await sent(house, somebody, "One")
        await bell.shows("One")
        proxy.mute()  # as if the other end had forgotten it meanwhile
        await sent(house, somebody, "Two")
        await bell.page.evaluate("window.dispatchEvent(new Event('online'))")
        await bell.shows("Two", "One")
        await until(lambda: bell.heard())


async def test_a_gateway_that_is_not_there_is_said_and_tried_again(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    somebody = await customer(house)
    async with open_bell(browser, shop, Tokens(house.api, somebody)) as bell:
        proxy.refuse()
        await bell.button.click()
        await bell.says("No connection. Trying again…")
        await proxy.heal()
        await bell.named("Try again").click()
        await bell.says("Nothing here yet.")


async def test_a_token_that_never_comes_is_said_and_asked_for_again(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    tokens = Tokens(house.api, await customer(house))

    async def sometimes() -> str | None:
        if not tokens.given:
            tokens.given += 1
            await asyncio.Event().wait()
        return await tokens()

    async with open_bell(browser, shop, sometimes) as bell:
        await bell.button.click()
        await bell.says(AWAY)
        await until(lambda: tokens.given > 1, 25)
        await bell.says("Nothing here yet.")


async def test_a_page_that_can_not_get_a_token_is_asked_again(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    tokens = Tokens(house.api, await customer(house))
    failures = iter(range(2))

    async def at_last() -> str | None:
        if next(failures, None) is not None:
            raise ConnectionError("502")
        return await tokens()

    async with open_bell(browser, shop, at_last) as bell:
        await bell.open()
        await bell.says("Nothing here yet.")


async def test_a_token_that_is_refused_is_not_asked_for_again_at_once(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    asked: list[float] = []

    async def bad() -> str:
        asked.append(time.monotonic())
        return "not a token"

    async with open_bell(browser, shop, bad) as bell:
        await bell.open()
        await bell.says(SIGN_IN)
        first, second = asked
        assert second - first > 0.4


async def test_while_the_database_is_away_it_comes_back_more_and_more_seldom(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    came: list[float] = []

    def asked(socket: WebSocketRoute, message: dict[str, Any]) -> bool:
        if message["type"] == "connection_init":
            came.append(time.monotonic())
        if "pageInfo" not in json.dumps(message):
            return True
        problem = [{"message": "Later.", "extensions": {"code": "UNAVAILABLE"}}]
        socket.send(json.dumps({"id": message["id"], "type": "error", "payload": problem}))
        return False

    async with open_bell(browser, shop, Tokens(house.api, await customer(house))) as bell:
        await bell.intercept(asked=asked)
        await bell.open()
        proxy.cut()
        await until(lambda: len(came) == 5, 30)
        assert came[4] - came[3] > 3.5  # it may be 4 to 8 seconds


async def test_those_who_lost_a_gateway_do_not_come_back_all_at_once(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    somebody = await customer(house)
    async with open_bell(browser, shop, Tokens(house.api, somebody)) as bell:
        await bell.open()
        await bell.says("Nothing here yet.")
        await bell.page.evaluate("""() => {
          window.waits = [];
          const { random } = Math;
          Math.random = () => 0.999;
          window.later = window.setTimeout;
          window.setTimeout = (act, wait) => {
            window.waits.push(wait);
            if (wait === 0.999 * 3_000) Math.random = random;
            return window.later.call(window, act, wait);
          };
        }""")
        before = bell.sockets
        proxy.cut()
        await until(lambda: bell.page.evaluate("window.waits.includes(0.999 * 3_000)"))
        assert bell.sockets == before
        await bell.page.evaluate("window.dispatchEvent(new Event('online'))")  # hastens it
        await until(lambda: bell.sockets > before, 1)
        await sent(house, somebody, "One")
        await bell.shows("One")


async def test_what_was_asked_on_a_lost_connection_is_followed_once_on_the_next(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    somebody = await customer(house)
    pages: list[str] = []
    followed: list[str] = []

    def asked(socket: WebSocketRoute, message: dict[str, Any]) -> bool:
        text = json.dumps(message)
        if "notificationAdded" in text:
            followed.append(text)
        if "pageInfo" not in text:
            return True
        pages.append(text)
        if len(pages) == 1:
            proxy.cut()
        return len(pages) > 1

    async with open_bell(browser, shop, None) as bell:
        await bell.intercept(asked=asked)
        await bell.begin_anew(
            (await house.api.ask(LOGIN, email=somebody.email, password=PASSWORD))["login"][
                "accessToken"
            ]
        )
        await bell.open()
        await bell.says("Nothing here yet.")
        await sent(house, somebody, "One")
        await bell.shows("One")
        await until(lambda: bell.has_heard("New: One"))
        assert len(pages) >= 3
        assert len(followed) == 1


async def test_a_long_list_is_as_long_after_a_loss(
    house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    somebody = await customer(house)
    await store(row(somebody.id, ago(60 + place), title=f"Number {place}") for place in range(250))
    async with open_bell(browser, shop, Tokens(house.api, somebody)) as bell:
        await bell.open()

        async def is_long() -> bool:
            await bell.scroll_to_end()
            return await bell.items.count() > 200

        await until(is_long, 20)
        before = bell.sockets
        proxy.cut()
        await until(lambda: bell.sockets > before)
        await sent(house, somebody, "One")
        await bell.item("One").wait_for()
        titles = await bell.titles()
        assert len(titles) == len(set(titles)) > 200


async def test_a_database_that_does_not_answer_is_said_and_may_be_asked_again(
    mongod: PrivateMongod, house: House, proxy: Proxy, browser: Browser, shop: Shop
) -> None:
    somebody = await customer(house)
    async with open_bell(browser, shop, Tokens(house.api, somebody)) as bell:
        await bell.open()
        await bell.says("Nothing here yet.")
        await hang(mongod.pid)
        try:
            await bell.tab("Orders")
            await bell.says("Try again")
        finally:
            os.kill(mongod.pid, signal.SIGCONT)
        await sent(house, somebody, "One")
        await bell.shows("One")


@asynccontextmanager
async def serving(
    mongod: PrivateMongod, shop: Shop, folder: Path, database: str, port: int
) -> AsyncIterator[Run]:
    """Everything in one process, on data that outlive it."""
    async with tidings(
        "serve",
        folder=folder,
        GATEWAY_PORT=port,
        MONGODB_DATABASE=database,
        ALLOWED_ORIGINS=json.dumps([shop.url]),
        **elsewhere(mongod.url),
    ) as run:
        yield await run.ready()


async def backend_of(mongod: PrivateMongod, run: Run, folder: Path, database: str) -> Api:
    given = {"MONGODB_DATABASE": database, **elsewhere(mongod.url)}
    named = ("--name", "Shop", "--email", "backend@shop.example", "--role", "service")
    async with tidings("create-user", *named, folder=folder, stdin=PASSWORD, **given) as made:
        assert await made.ended() == 0, made.errors
    login = await run.api.ask(LOGIN, email="backend@shop.example", password=PASSWORD)
    return run.api.as_(login["login"]["accessToken"])


async def test_what_happens_while_the_server_is_killed_is_all_shown_and_nothing_twice(
    mongod: PrivateMongod, browser: Browser, shop: Shop, tmp_path: Path
) -> None:
    port, database = free_port(), f"test_{uuid4().hex[:12]}"
    proxy = Proxy("browser", port)
    await proxy.start()
    shop.gateway = f"http://127.0.0.1:{proxy.port}"
    registration = {"name": "Ann", "email": "ann@shop.example", "password": PASSWORD}
    async with serving(mongod, shop, tmp_path / "first", database, port) as run:
        registered = await run.api.ask(
            REGISTER, input={**registration, "preferences": NO_PROMOTIONS}
        )
        ann = run.api.as_(registered["register"]["accessToken"])
        user_id = registered["register"]["user"]["id"]
        backend = await backend_of(mongod, run, tmp_path / "backend", database)

        async def ordered(order: str, status: str, version: int) -> None:
            moved = {"orderId": order, "userId": user_id, "status": status, "version": version}
            await backend.ask(ORDER, input=moved)

        async with open_bell(browser, shop, ann.token) as bell:
            await bell.open()
            for order in "123":
                await ordered(order, "placed", 1)
                await bell.item(f"Order {order}").wait_for()
            run.send(signal.SIGKILL)
            await run.ended()
            proxy.refuse()
            await bell.says("No connection. Trying again…")
            assert len(await bell.titles()) == 3  # what was shown stays
            async with serving(mongod, shop, tmp_path / "second", database, port):
                for order in "45678":
                    await ordered(order, "placed", 1)
                await ordered("2", "shipped", 2)
                stored = await until(lambda: _titles(ann, "Order 2 is on its way", 8))
                [third] = [one for one in stored if "Order 3" in one["title"]]
                await ann.ask(READ, id=third["id"])
                await proxy.heal()
                await bell.shows(*[one["title"] for one in stored])
                await bell.has_badge("7")
                await until(lambda: bell.has_heard("6 new notifications"))
                await ordered("9", "placed", 1)
                await bell.shows("Order 9 received", *[one["title"] for one in stored])
    await proxy.close()


async def _titles(reader: Api, title: str, count: int) -> list[Any]:
    """All that is stored, once there are so many and that one is among them."""
    edges = (await reader.ask(TITLES))["notifications"]["edges"]
    found = [edge["node"] for edge in edges]
    is_there = any(node["title"] == title for node in found)
    return found if is_there and len(found) == count else []
