"""The life of `serve`: started, stopped, killed and started again, as a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from services import demo
from services.shared.vocabulary import NotificationType
from tests.kit import Api, GraphQLFailed
from tests.processes import Run, elsewhere, nowhere, tidings
from tests.servers import until

log = logging.getLogger(__name__)

ALICE, BEN, ADMIN = demo.ACCOUNTS
FIRST_NOTIFICATIONS_SECONDS = 30.0
SECOND_START_SECONDS = 20.0  # some 2.5 s are usual; the bound is for a busy machine
STOP_SECONDS = 15.0
LOGIN = "mutation($input: LoginInput!) { login(input: $input) { accessToken user { id name } } }"
ADDED = "subscription { notificationAdded { node { id type } } }"
PAGE = "{ notifications(first: 100) { edges { node { id } } } }"
ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
ORDERS = """query($after: String) {
  notifications(first: 100, after: $after) {
    edges { node { content } }
    pageInfo { hasNextPage endCursor }
  }
}"""


async def test_an_empty_folder_becomes_a_shop_that_tells_of_all_three_kinds_and_starts_again(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    async with tidings("serve", folder=tmp_path, DEMO_DATA="true", BCRYPT_COST=12) as first:
        await first.ready()
        _note("first start", began)
        async with asyncio.timeout(FIRST_NOTIFICATIONS_SECONDS - (time.monotonic() - began)):
            await asyncio.gather(*(_all_kinds(first, email) for email in (ALICE, BEN)))
        _note("notifications of all three kinds", began)
        assert f"http://127.0.0.1:{first.port}/graphql" in first.output
        assert "action=development_profile" in first.errors
        for account in demo.ACCOUNTS:
            assert account.email in first.output
            assert account.password in first.output
        seen, api = await _ids(first), await _login(first, ALICE)
        first.send(signal.SIGINT)
        assert await first.ended(STOP_SECONDS) == 0

    began = time.monotonic()
    async with tidings("serve", folder=tmp_path, DEMO_DATA="true", BCRYPT_COST=12) as second:
        await second.ready()
        _note("second start", began)
        assert time.monotonic() - began < SECOND_START_SECONDS
        assert seen <= await _ids(second)
        await second.api.as_(api.token).ask(PAGE)  # its session goes on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly_and_its_mongod_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with tidings("serve", folder=tmp_path) as run:
        [mongod] = (await run.ready()).mongods
        began = time.monotonic()
        run.send(number)
        run.send(number)  # an impatient second one disturbs nothing
        assert await run.ended(STOP_SECONDS) == 0
        _note(f"stop by {number.name}", began)
        assert not psutil.pid_exists(mongod)
        assert "Traceback" not in run.errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_it_starts_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with tidings("serve", folder=tmp_path) as run:
        await until(lambda: run.mongods)
        run.send(number)
        assert await run.ended(STOP_SECONDS) == 0
        assert not run.mongods
        assert "Traceback" not in run.errors
        assert "is up" not in run.output


async def test_a_signal_does_not_wait_for_a_database_that_never_comes(tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, **elsewhere(nowhere())) as run:
        await until(lambda: "waiting_for_mongodb" in run.errors)
        run.send(signal.SIGINT)
        assert await run.ended(5) == 0


async def test_an_open_subscription_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, DEMO_DATA="true") as run:
        alice = await _login(await run.ready(), ALICE)
        async with alice.follow(ADDED):
            run.send(signal.SIGTERM)
            assert await run.ended(STOP_SECONDS) == 0
        assert "Traceback" not in run.errors


async def test_what_was_accepted_survives_a_kill_and_the_next_start_needs_no_care(
    tmp_path: Path,
) -> None:
    expected = {f"order {number}" for number in range(100)}
    async with tidings("serve", folder=tmp_path, DEMO_DATA="true") as killed:
        admin = await _login(await killed.ready(), ADMIN)
        await _publish(admin, await _id(await _login(killed, ALICE)), expected)
        killed.send(signal.SIGKILL)
        began = time.monotonic()
        async with tidings("serve", folder=tmp_path, DEMO_DATA="true") as second:
            reader = await _login(await second.ready(), ALICE)
            _note("start after kill -9", began)
            found: list[str] = []

            async def complete() -> bool:
                found[:] = await _orders(reader)
                return expected <= set(found)

            await until(complete, 30)
            assert len(found) == len(set(found))
            assert await killed.ended() == -signal.SIGKILL


async def test_a_mongod_that_dies_ends_it_with_a_sentence(tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, DEMO_DATA="true") as run:
        alice = await _login(await run.ready(), ALICE)
        [mongod] = run.mongods
        async with alice.follow(ADDED):
            psutil.Process(mongod).kill()
            assert "mongod has ended" in await run.refused(STOP_SECONDS)


async def test_a_database_that_hangs_for_a_while_ends_nothing(tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, DEMO_DATA="true") as run:
        alice, admin = await _login(await run.ready(), ALICE), await _login(run, ADMIN)
        [mongod] = run.mongods
        psutil.Process(mongod).suspend()
        try:
            with pytest.raises(GraphQLFailed, match="SERVICE_UNAVAILABLE"):
                await alice.ask(PAGE)
            await until(lambda: "waiting" in run.errors)
        finally:
            psutil.Process(mongod).resume()
        await run.ready()
        await _publish(admin, await _id(alice), {"order after a rest"})

        async def arrived() -> bool:
            return await _orders(alice) == ["order after a rest"]

        await until(arrived)
        assert "Traceback" not in run.errors


async def test_readers_that_went_away_do_not_end_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with tidings("serve", folder=tmp_path, stdout=writing) as run:
        os.close(writing)
        await run.ready()
        run.send(signal.SIGTERM)
        assert await run.ended(STOP_SECONDS) == 0
        assert "Traceback" not in run.errors


def _note(what: str, began: float) -> None:
    log.info("%s: %.1f s", what, time.monotonic() - began)


async def _login(run: Run, account: demo.Account) -> Api:
    credentials = {"email": account.email, "password": account.password}
    answer = await run.api.ask(LOGIN, input=credentials)
    return run.api.as_(answer["login"]["accessToken"])


async def _id(api: Api) -> str:
    return str((await api.ask("{ me { id } }"))["me"]["id"])


async def _all_kinds(run: Run, account: demo.Account) -> None:
    missing = {kind.name for kind in NotificationType}
    reader = await _login(run, account)
    async with reader.follow(ADDED) as stream:
        while missing:
            missing.discard((await stream.next(60))["notificationAdded"]["node"]["type"])


async def _ids(run: Run) -> set[str]:
    page = await (await _login(run, ALICE)).ask(PAGE)
    return {edge["node"]["id"] for edge in page["notifications"]["edges"]}


async def _publish(admin: Api, user_id: str, orders: set[str]) -> None:
    limit = asyncio.Semaphore(20)

    async def publish(order: str) -> None:
        async with limit:
            await admin.ask(ORDER, input={"orderId": order, "userId": user_id, "status": "paid"})

    await asyncio.gather(*map(publish, orders))


async def _orders(reader: Api) -> list[str]:
    """The orders that notifications of the reader tell of, but for the demo's own."""
    orders: list[str] = []
    after = None
    while True:
        page = (await reader.ask(ORDERS, after=after))["notifications"]
        for edge in page["edges"]:
            content = edge["node"]["content"]
            if isinstance(content, dict) and str(content.get("orderId")).startswith("order "):
                orders.append(content["orderId"])
        if not page["pageInfo"]["hasNextPage"]:
            return orders
        after = page["pageInfo"]["endCursor"]
