"""From queues to handlers: what a slow database, or one that is away, does to the events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, BulkWriteError, ExecutionTimeout, OperationFailure
from structlog.testing import capture_logs

from services.shared import embedded, inbox
from services.shared.bus import Ack, Dead, Delivery, Verdict
from services.shared.clock import SystemClock
from services.shared.errors import NotFound
from services.shared.events import NOTIFICATIONS, Event, OrderStatusChanged, encode
from services.shared.settings import Settings
from services.shared.store import is_away, open_store
from services.shared.worker import deliver, when_back, work
from tests.kit import NO_MEMORY, quick_settings
from tests.servers import PrivateMongod, until

CLOCK = SystemClock()
SETTINGS = Settings(_env_file=None)


class Database:
    """It takes so many events within its timeout, and none of those that it never takes at all."""

    def __init__(self, at_once: int, refused: str = "") -> None:
        self.written: list[str] = []
        self._at_once = at_once
        self._refused = refused

    async def write(self, events: Sequence[Event]) -> None:
        if len(events) > self._at_once:
            raise ExecutionTimeout("operation exceeded time limit", 50)
        if self._refused in [event.id for event in events]:
            raise NotFound("There is no such user.")
        self.written += [event.id for event in events]


def order_event(id_: str, **details: str) -> Event:
    order = OrderStatusChanged(order_id="A-1", user_id="ann", status="paid", details=details)
    return Event.of(order, time=CLOCK.now(), id=id_)


def waiting(count_: int) -> list[Delivery]:
    bodies = [encode(order_event(str(number))) for number in range(count_)]
    return [Delivery(body, 0, CLOCK.now(), None) for body in bodies]


async def delivered(database: Database, batch: Sequence[Delivery]) -> list[Verdict]:
    handlers = {OrderStatusChanged.type: database.write}
    async with asyncio.timeout(5):
        return await deliver(handlers, batch, NO_MEMORY, CLOCK, SETTINGS)


@pytest.mark.parametrize("at_once", [1, 7, 499, 500])
async def test_a_batch_that_is_too_much_at_once_is_written_in_parts_and_in_order(
    at_once: int,
) -> None:
    database = Database(at_once)
    assert await delivered(database, waiting(500)) == [Ack()] * 500
    assert database.written == [str(number) for number in range(500)]


async def test_poison_in_such_a_batch_is_dead_and_holds_up_nobody() -> None:
    database = Database(7, refused="42")
    verdicts = await delivered(database, waiting(500))
    assert [n for n, verdict in enumerate(verdicts) if isinstance(verdict, Dead)] == [42]
    assert database.written == [str(number) for number in range(500) if number != 42]


async def test_a_database_that_was_away_costs_a_batch_a_few_turns_and_no_event() -> None:
    turns, database = count(), Database(500)

    async def write(events: Sequence[Event]) -> None:
        if next(turns) < 12:
            raise AutoReconnect("connection closed")
        await database.write(events)

    verdicts = await deliver(
        {OrderStatusChanged.type: write}, waiting(500), NO_MEMORY, CLOCK, SETTINGS
    )
    assert verdicts == [Ack()] * 500
    assert database.written == [str(number) for number in range(500)]
    assert next(turns) < 12 + 12


async def test_events_of_any_size_pass_the_embedded_bus_within_the_databases_timeout(
    mongod: PrivateMongod,
) -> None:
    settings = quick_settings(mongod.url)
    events = [order_event(str(number), note="x" * 500_000) for number in range(300)]
    database = Database(at_once=500)
    handlers = {OrderStatusChanged.type: database.write}
    async with open_store(
        mongod.url, settings.mongodb_database, embedded.MODELS, timeout=0.4, patience=5
    ) as store:
        bus = embedded.EmbeddedBus(store, CLOCK, settings)
        await bus.publish(events)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(
                work(bus, NOTIFICATIONS, handlers, NO_MEMORY, CLOCK, settings)
            )
            await until(lambda: len(database.written) >= len(events), 30)
            working.cancel()
        await store.drop()
    assert database.written == [event.id for event in events]


async def test_waiting_is_told_at_once_and_then_seldom() -> None:
    turns = count()

    async def asked() -> str:
        if next(turns) < 6:
            raise AutoReconnect("connection closed")
        return "back"

    with capture_logs() as logs:
        assert await when_back(asked, "an answer") == "back"
    assert [(line["event"], line["what"]) for line in logs] == [("waiting", "an answer")]


async def test_a_stop_lets_the_batch_in_hand_be_settled_and_takes_no_other(
    mongod: PrivateMongod,
) -> None:
    settings = quick_settings(mongod.url, batch_size=1)
    stop, thawed, database = asyncio.Event(), asyncio.Event(), Database(at_once=1)
    in_hand: list[str] = []

    async def write(events: Sequence[Event]) -> None:
        in_hand.extend(event.id for event in events)
        await thawed.wait()
        await database.write(events)

    handlers = {OrderStatusChanged.type: write}
    async with open_store(
        mongod.url, settings.mongodb_database, embedded.MODELS, timeout=2, patience=5
    ) as store:
        bus = embedded.EmbeddedBus(store, CLOCK, settings)
        await bus.publish([order_event("first"), order_event("second")])
        working = asyncio.create_task(
            work(bus, NOTIFICATIONS, handlers, NO_MEMORY, CLOCK, settings, stop)
        )
        await until(lambda: in_hand)
        stop.set()
        thawed.set()
        async with asyncio.timeout(5):
            await working
        [left] = await embedded.QueuedMessage.find_all().to_list()
        await store.drop()
    assert database.written == ["first"]
    assert b'"second"' in left.body


async def test_a_stop_ends_a_worker_that_waits_at_once(mongod: PrivateMongod) -> None:
    settings, stop = quick_settings(mongod.url), asyncio.Event()
    async with open_store(
        mongod.url, settings.mongodb_database, embedded.MODELS, timeout=2, patience=5
    ) as store:
        bus = embedded.EmbeddedBus(store, CLOCK, settings)
        working = asyncio.create_task(
            work(bus, NOTIFICATIONS, {}, NO_MEMORY, CLOCK, settings, stop)
        )
        await asyncio.wait((working,), timeout=0.3)
        assert not working.done()
        stop.set()
        async with asyncio.timeout(1):
            await working
        await store.drop()


class LaterOrder(OrderStatusChanged, frozen=True, kw_only=True, rename="camel"):
    """The same event in a version that knows one optional field more."""

    courier: str | None = None


@pytest.mark.parametrize(
    ("more", "digest"),
    [
        ({}, "1a27a5885583dc309981fefc09dbf7cc"),
        ({"version": 2, "details": {"b": 1, "a": None}}, "d27ea5f55d2c1663227b9639d6e59607"),
    ],
)
async def test_what_an_event_said_is_known_by_later_versions_too(
    mongod: PrivateMongod, more: dict[str, Any], digest: str
) -> None:
    """The digests are for ever: with others, a deploy would refuse what was accepted before it."""
    said: dict[str, Any] = {"order_id": "A-1", "user_id": "ann", "status": "paid"} | more
    told = Event.of(OrderStatusChanged(**said), time=CLOCK.now())
    again = Event.of(LaterOrder(**said), time=CLOCK.now(), id=told.id)
    other = Event.of(LaterOrder(**said, courier="Bo"), time=CLOCK.now(), id=told.id)
    settings = quick_settings(mongod.url)
    async with open_store(
        mongod.url, settings.mongodb_database, inbox.MODELS, timeout=2, patience=5
    ) as store:
        seen = inbox.Inbox(CLOCK, settings)
        assert await seen.conflicting([told]) == set()
        [known] = await inbox.SeenEvent.find_all().to_list()
        assert known.digest.hex() == digest
        assert await seen.conflicting([again, other]) == {1}
        await store.drop()


async def test_a_cursor_that_the_database_has_forgotten_is_a_passing_fault(
    mongod: PrivateMongod,
) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongod.url) as client:
        database = client[f"test_{uuid4().hex[:12]}"]
        await database.rows.insert_many([{} for _ in range(300)])
        cursor = database.rows.find()
        await anext(cursor)
        await database.command({"killCursors": "rows", "cursors": [cursor.cursor_id]})
        with pytest.raises(OperationFailure) as raised:
            await cursor.to_list()
        await client.drop_database(database)
    assert is_away(raised.value)


@pytest.mark.parametrize(
    ("code", "away"),
    [(24, True), (175, True), (237, True), (11601, True), (121, False), (2, False)],
)
def test_what_passes_and_what_does_not(code: int, away: bool) -> None:
    of_one = {"writeErrors": [{"index": 0, "code": code}, {"index": 1, "code": 11000}]}
    assert is_away(OperationFailure("it failed", code)) is away
    assert is_away(BulkWriteError(of_one)) is away
    assert not is_away(BulkWriteError({"writeErrors": [{"index": 0, "code": 11000}]}))
