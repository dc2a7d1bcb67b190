"""The bell on bad days: servers that are killed, tokens that run out, a laptop that slept."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Browser

from campaign.proxy import Proxy
from services.shared.vocabulary import Role
from tests.graphiql import chromium, open_browser
from tests.inbox_page import Shop, open_bell, open_shop
from tests.kit import PASSWORD, Api, House, Somebody, open_house, quick_settings
from tests.notices import create, customer
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
