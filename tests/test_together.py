"""What many ask of notifications at the same time is one command for several, each one's own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from bench.filling import fill_notifications, user_id
from services.notifications.models import Notification
from services.notifications.queries import Filter, query, unread, unseen
from services.notifications.shown import COLUMNS
from services.notifications.together import Together
from services.shared.clock import SystemClock
from services.shared.store import Row, Store, is_away, open_store, quickly
from services.shared.vocabulary import NotificationType
from tests.servers import PrivateMongod, hang, private_mongod_server, until

USERS = 40
EACH = 60
MANY = 80
AT_ONCE = 2
TIMEOUT = 3.0
DOWN = [("sent_at", -1), ("_id", -1)]
UP = [("sent_at", 1), ("_id", 1)]
SLOW = {"$expr": {"$function": {"body": "function() { sleep(9000) }", "args": [], "lang": "js"}}}
WRONG = {"user_id": user_id(0), "read": {"$no": "operator"}}


async def test_a_crowd_is_answered_in_a_few_commands_as_each_would_be_alone(
    mongod: PrivateMongod,
) -> None:
    async with _filled(mongod) as store:
        chance = random.Random(7)
        asked = [_question(chance) for _ in range(MANY)]
        expected = [await _answer(*one) for one in asked]
        together = Together(AT_ONCE, 4 * TIMEOUT)
        answers, commands = await _profiled(store, [_ask(together, *one) for one in asked])
    assert answers == expected
    assert any(isinstance(one, list) and len(one) > 20 for one in answers)
    assert any(isinstance(one, int) and one for one in answers)
    assert 0 in answers  # which no row tells
    assert 0 < len(commands) <= MANY / 4


async def test_so_many_commands_are_out_at_most(mongod: PrivateMongod) -> None:
    async with _filled(mongod) as store:
        together = Together(AT_ONCE, 40)
        admin = store.database.client.admin
        slow = query(user_id(0), Filter(), SystemClock().now()) | _sleeps(0.1)
        counting = [asyncio.create_task(together.count(slow)) for _ in range(40)]
        seen: list[int] = []
        while len(seen) < 10 or max(seen) < AT_ONCE:
            await asyncio.sleep(0.02)
            running = (await admin.command("currentOp", ns=_namespace(store)))["inprog"]
            seen.append(len(running))
        for one in counting:
            one.cancel()
        for one in running:
            await admin.command("killOp", op=one["opid"])
    assert max(seen) == AT_ONCE


async def test_a_command_asks_for_so_many_rows_at_most(mongod: PrivateMongod) -> None:
    async with _filled(mongod) as store:
        together, now = Together(AT_ONCE, TIMEOUT), SystemClock().now()
        pages = [query(user_id(n), Filter(), now) for n in range(4)]
        answers, commands = await _profiled(store, [together.page(one, DOWN, 101) for one in pages])
    assert all(answers)
    assert len(commands) == len(pages)


async def test_who_asks_alone_is_asked_for_as_ever(mongod: PrivateMongod) -> None:
    async with _filled(mongod) as store:
        together, now = Together(AT_ONCE, TIMEOUT), SystemClock().now()
        _, paged = await _profiled(
            store, [together.page(query(user_id(1), Filter(), now), DOWN, 20)]
        )
        [(rows, count)], both = await _profiled(store, [_bell(together, user_id(1))])
    assert [one["op"] for one in paged] == ["query"]
    assert [one["op"] for one in both] == ["command"]
    assert rows
    assert count


async def test_nobody_fails_for_what_another_asks(mongod: PrivateMongod) -> None:
    async with _filled(mongod):
        together = Together(1, TIMEOUT)
        chance = random.Random(8)
        good = [_question(chance) for _ in range(12)]
        expected = [await _answer(*one) for one in good]
        asked = [_ask(together, *one) for one in good]
        asked.insert(5, together.count(WRONG))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = answers.pop(5)
    assert isinstance(refused, OperationFailure)
    assert answers == expected


async def test_a_slow_question_holds_others_up_for_a_part_of_its_time(
    mongod: PrivateMongod,
) -> None:
    async with _filled(mongod):
        together = Together(1, TIMEOUT)
        now = SystemClock().now()
        slow = asyncio.create_task(together.count(query(user_id(0), Filter(), now) | SLOW))
        chance = random.Random(9)
        others = [_question(chance) for _ in range(20)]  # some in its command, and some behind it
        answers = await asyncio.gather(*(_ask(together, *one) for one in others))
        assert not slow.done()
        with pytest.raises(PyMongoError) as failed:
            await slow
        assert answers == [await _answer(*one) for one in others]
    assert is_away(failed.value)


async def test_a_slow_question_of_its_own_command_lets_others_have_its_turn(
    mongod: PrivateMongod,
) -> None:
    async with _filled(mongod) as store:
        together = Together(1, TIMEOUT)
        now = SystemClock().now()
        slow = asyncio.create_task(together.count(query(user_id(0), Filter(), now) | SLOW))
        await _until_it_runs(store)
        assert await together.count(query(user_id(1), Filter(), now))
        assert not slow.done()
        with pytest.raises(PyMongoError):
            await slow


async def test_what_one_customer_asks_has_all_of_the_time(mongod: PrivateMongod) -> None:
    async with _filled(mongod) as store:
        together = Together(1, 4 * TIMEOUT)
        there = query(user_id(0), Filter(), SystemClock().now()) | _sleeps(0.065)
        answers, commands = await _profiled(store, [together.count(there), together.count(there)])
    assert all(answers)
    [command] = commands
    assert command["millis"] > 1000 * TIMEOUT  # which others would not have waited


async def test_who_waits_for_a_database_that_hangs_is_told_in_time(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        private_mongod_server(tmp_path_factory.mktemp("mongod")) as server,
        _filled(server),
    ):
        together = Together(1, TIMEOUT)
        there = query(user_id(0), Filter(), SystemClock().now())
        await hang(server.pid)
        try:
            first = asyncio.create_task(together.count(there))
            await asyncio.sleep(0)
            waiting = [asyncio.create_task(together.count(there)) for _ in range(100)]
            with pytest.raises(ConnectionFailure):
                await first
            done, _ = await asyncio.wait(waiting, timeout=1.5)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert len(done) == len(waiting)
        errors = [one.exception() or AssertionError("it was answered") for one in waiting]
        assert all(map(is_away, errors))
        assert any("did not get to it" in str(error) for error in errors)  # who never had a turn
        assert await together.count(there)


async def test_who_has_gone_is_not_asked_for(mongod: PrivateMongod) -> None:
    async with _filled(mongod) as store:
        together, now = Together(1, TIMEOUT), SystemClock().now()
        there = query(user_id(0), Filter(), now)

        async def some_leave() -> list[Any]:
            asked = [asyncio.create_task(together.count(there)) for _ in range(9)]
            await asyncio.sleep(0)
            for one in asked[1:]:
                one.cancel()
            return await asyncio.gather(*asked, return_exceptions=True)

        [answers], commands = await _profiled(store, [some_leave()])
    assert answers[0]
    assert all(isinstance(one, asyncio.CancelledError) for one in answers[1:])
    assert len(commands) == 1
    assert "$unionWith" not in str(commands[0]["command"])


async def test_what_is_asked_for_apart_has_turns_as_well(mongod: PrivateMongod) -> None:
    async with _filled(mongod) as store:
        together = Together(1, 4 * TIMEOUT)
        now = SystemClock().now()
        ended: list[str] = []

        async def count(name: str, number: int, more: Row) -> None:
            await together.count(query(user_id(number), Filter(), now) | more)
            ended.append(name)

        refused = asyncio.create_task(together.count(WRONG))
        apart = [asyncio.create_task(count("apart", n, _sleeps(0.01))) for n in (1, 2)]
        with pytest.raises(OperationFailure):
            await refused
        await _until_it_runs(store)
        await count("behind", 3, {})
        await asyncio.gather(*apart)
    assert ended == ["apart", "apart", "behind"]


async def test_who_asked_ends_with_a_command_that_is_cancelled_and_others_go_on(
    mongod: PrivateMongod,
) -> None:
    async with _filled(mongod) as store:
        together = Together(1, 4 * TIMEOUT)
        there = query(user_id(0), Filter(), SystemClock().now())
        others = asyncio.all_tasks()
        asked = asyncio.create_task(together.count(there | SLOW))
        await _until_it_runs(store)
        [command] = asyncio.all_tasks() - others - {asked}
        command.cancel()
        await asyncio.wait({asked}, timeout=TIMEOUT)
        assert asked.cancelled()
        assert await together.count(there)


Question = tuple[Row, Sequence[tuple[str, int]], int] | tuple[Row]


def _question(chance: random.Random) -> Question:
    """A page of this or that, or a count: of users who have something, and of one who has not."""
    number = USERS if chance.random() < 0.1 else chance.randrange(USERS)
    user, now = user_id(number), SystemClock().now()
    types = chance.choice([None, (NotificationType.PROMOTION,)])
    if chance.random() < 0.4:
        return (chance.choice([unread(user, types, now), unseen(user, now)]),)
    which = Filter(types, unread_only=chance.random() < 0.3, archived=chance.choice([None, False]))
    return query(user, which, now), chance.choice([DOWN, UP]), chance.choice([1, 5, 21])


async def _ask(together: Together, there: Row, *page: Any) -> Any:
    if not page:
        return await together.count(there)
    rows = await together.page(there, *page)
    return [{name: one for name, one in row.items() if name in {"_id", *COLUMNS}} for row in rows]


async def _answer(there: Row, *page: Any) -> Any:
    """What the database says when it is asked for that alone."""
    if not page:
        return await quickly(Notification).count_documents(there)
    order, limit = page
    return await quickly(Notification).find(there, COLUMNS).sort(order).limit(limit).to_list()


async def _bell(together: Together, user: str) -> tuple[list[Row], int]:
    now = SystemClock().now()
    rows, count = await asyncio.gather(
        together.page(query(user, Filter(), now), DOWN, 20), together.count(unread(user, None, now))
    )
    return rows, count


async def _until_it_runs(store: Store) -> None:
    async def runs() -> bool:
        running = await store.database.client.admin.command("currentOp", ns=_namespace(store))
        return bool(running["inprog"])

    await until(runs)


def _sleeps(seconds: float) -> Row:
    body = f"function() {{ sleep({1000 * seconds}); return true }}"
    return {"$expr": {"$function": {"body": body, "args": [], "lang": "js"}}}


def _namespace(store: Store) -> str:
    return f"{store.database.name}.{Notification.Settings.name}"


async def _profiled(store: Store, asking: Sequence[Any]) -> tuple[list[Any], list[Row]]:
    """The answers, and the commands that brought them."""
    database = store.database
    await database.command("profile", 2)
    try:
        answers = await asyncio.gather(*asking)
    finally:
        await database.command("profile", 0)
    told = database["system.profile"].find({"ns": _namespace(store)})
    commands = [one async for one in told if one["op"] in ("query", "command")]
    await database["system.profile"].drop()
    return answers, commands


@asynccontextmanager
async def _filled(server: PrivateMongod) -> AsyncIterator[Store]:
    """USERS with EACH notifications, and one more without any."""
    name = f"together_{uuid4().hex[:8]}"  # what was slow in another test may still run
    async with open_store(server.url, name, [Notification], timeout=TIMEOUT, patience=20) as store:
        await fill_notifications(store.database, USERS, EACH, lambda _: None)
        yield store
        await store.drop()
