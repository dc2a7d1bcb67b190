"""What an operator sees of all processes, on both transports: rates, backlog, who lives."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import WriteError
from structlog.testing import capture_logs

from services import host
from services.shared.amqp import Connection, abandon
from services.shared.clock import SystemClock
from services.shared.errors import Unavailable
from services.shared.events import Event, OrderStatusChanged, PromotionAnnounced
from services.shared.pulse import Counts, MinuteCounts, Pulse, most_resident_bytes, resident_bytes
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.topology import DEAD_LETTERS
from services.shared.vocabulary import Role
from tests.entry import refused
from tests.kit import House, Somebody, forget_queues, open_house, quick_settings
from tests.notices import create, customer
from tests.outages import MOST_SECONDS, away, is_ready
from tests.processes import elsewhere, tidings
from tests.servers import (
    PrivateMongod,
    PrivateRabbitMQ,
    hang,
    need_rabbitmq,
    private_rabbitmq,
    until,
)

RATES = "{ operations(minutes: 10) { minutes { events sent suppressed failed } } }"
BACKLOG = """{ operations { at outbox outboxOldestAt deadLetters
  queues { name waiting retrying consumers } } }"""
PROCESSES = """{ operations { at sockets
  processes { id service startedAt seenAt sockets memoryBytes } } }"""
ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
PROMOTION = "mutation($input: PromotionInput!) { publishPromotion(input: $input) { eventId } }"
BROADCAST = "mutation($input: BroadcastInput!) { createBroadcast(input: $input) { id } }"
LATER = """mutation($input: ScheduleNotificationInput!) {
  scheduleNotification(input: $input) { outcome } }"""
TAG = "mutation($id: ID!, $tags: [String!]!) { setUserTags(userId: $id, tags: $tags) }"
PULSE = 0.1
Opener = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture(params=["embedded", "between_processes"])
def opened(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def embedded(mongod: PrivateMongod) -> Opener:
    def open_(workers: tuple[str, ...] = host.WORKERS) -> AbstractAsyncContextManager[House]:
        settings = quick_settings(mongod.url, pulse_seconds=PULSE)
        return open_house(settings, workers=workers)

    return open_


@pytest.fixture
async def between_processes(mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ) -> Opener:
    settings = quick_settings(mongod.url, rabbitmq_url=rabbitmq.url, pulse_seconds=PULSE)
    await forget_queues(rabbitmq.url, settings)

    def open_(workers: tuple[str, ...] = host.WORKERS) -> AbstractAsyncContextManager[House]:
        return open_house(settings, workers=workers)

    return open_


async def totals(admin: Somebody) -> dict[str, int]:
    """Of the last minutes together."""
    minutes = (await admin.api.ask(RATES))["operations"]["minutes"]
    return {name: sum(one[name] for one in minutes) for name in minutes[0]}


async def until_totals(admin: Somebody, **wanted: int) -> None:
    """What they are not is 0."""
    expected = {"events": 0, "sent": 0, "suppressed": 0, "failed": 0} | wanted

    async def as_expected() -> bool:
        return await totals(admin) == expected

    try:
        await until(as_expected)
    except AssertionError as error:
        raise AssertionError(f"{await totals(admin)} and not {expected}") from error


async def order(backend: Somebody, user_id: str, number: int) -> None:
    await backend.api.ask(
        ORDER, input={"orderId": str(number), "userId": user_id, "status": "paid"}
    )


async def test_rates_add_up_to_what_was_published(opened: Opener) -> None:
    async with opened() as house:
        admin, backend = await house.somebody(Role.ADMIN), await house.somebody(Role.SERVICE)
        ann, ben = await house.somebody(), await customer(house)  # ben wants no promotions
        await until_totals(admin, events=4, sent=3, suppressed=1)  # all are welcomed
        for number in range(3):
            await order(backend, ann.id, number)
        await order(backend, ben.id, 3)
        both = {"title": "t", "body": "b", "userIds": [ann.id, ben.id]}
        await backend.api.ask(PROMOTION, input=both)
        await create(backend.api, ann.id)
        await create(backend.api, ben.id, type="PROMOTION")
        await until_totals(admin, events=9, sent=9, suppressed=3)
        for one in (ann, ben):
            await admin.api.ask(TAG, id=one.id, tags=["both"])
        broadcast = {"title": "t", "body": "b", "audience": {"tags": ["both"]}}
        await admin.api.ask(BROADCAST, input=broadcast)
        await until_totals(admin, events=9, sent=10, suppressed=4)
        soon = (house.runtime.clock.now() + timedelta(seconds=1)).isoformat()
        for one in (ann, ben):
            later = {"userId": one.id, "type": "PROMOTION", "content": "c", "at": soon}
            await backend.api.ask(LATER, input=later)
        await until_totals(admin, events=9, sent=11, suppressed=5)
        await order(backend, ann.id, 4)  # nothing has been counted twice, a little later
        await until_totals(admin, events=10, sent=12, suppressed=5)


async def test_an_event_that_comes_again_counts_as_handled_and_sends_nothing(
    opened: Opener,
) -> None:
    async with opened() as house:
        admin = await house.somebody(Role.ADMIN)
        await until_totals(admin, events=1, sent=1)
        paid = OrderStatusChanged(order_id="1", user_id=admin.id, status="paid")
        event = Event.of(paid, time=house.runtime.clock.now(), id="one")
        for handled in (2, 3):
            await house.runtime.bus.publish([event])
            await until_totals(admin, events=handled, sent=2)


async def test_each_minute_is_there_and_the_last_one_is_going_on(embedded: Opener) -> None:
    async with embedded() as house:
        admin = await house.somebody(Role.ADMIN)
        document = "query($n: Int!) { operations(minutes: $n) { at minutes { at events } } }"
        for count in (1, 3, 1440):
            shown = (await admin.api.ask(document, n=count))["operations"]
            instants = [one["at"] for one in shown["minutes"]]
            assert len(set(instants)) == len(instants) == count
            assert instants == sorted(instants)
            assert instants[-1][:16] == shown["at"][:16]
        for count in (0, -1, 1441):
            with refused("BAD_USER_INPUT", "minutes"):
                await admin.api.ask(document, n=count)


async def test_what_fails_is_counted_each_time(opened: Opener) -> None:
    """By a fault of ours it is tried three times here; then it is dead."""
    async with opened() as house:
        admin, backend = await house.somebody(Role.ADMIN), await house.somebody(Role.SERVICE)
        ann = await house.somebody()
        await until_totals(admin, events=3, sent=3)
        users = house.runtime.store.database["users"]
        await users.update_one({"email": ann.email}, {"$set": {"locale": 5}})
        await backend.api.ask(PROMOTION, input={"title": "t", "body": "b", "userIds": [ann.id]})
        await until_totals(admin, events=3, sent=3, failed=3)
        assert (await admin.api.ask(BACKLOG))["operations"]["deadLetters"] == 1


async def test_what_waits_is_seen_while_the_worker_is_stopped(opened: Opener) -> None:
    async with opened(workers=()) as house:
        admin, backend = await house.somebody(Role.ADMIN), await house.somebody(Role.SERVICE)
        ann = await house.somebody()
        for number in range(4):
            await order(backend, ann.id, number)

        async def waiting() -> tuple[int, int]:
            shown = (await admin.api.ask(BACKLOG))["operations"]
            [queue] = [one for one in shown["queues"] if one["name"] == host.NOTIFICATIONS]
            return queue["waiting"], queue["consumers"]

        async def is_seen(expected: tuple[int, int]) -> bool:
            return await waiting() == expected

        await until(lambda: is_seen((7, 0)))  # three welcomes
        working = asyncio.create_task(host.run(house.runtime, [host.NOTIFICATIONS]))
        try:
            await until(lambda: is_seen((0, 1)))
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def test_open_sockets_are_counted_and_closed_ones_are_not(opened: Opener) -> None:
    async with opened() as house:
        admin = await house.somebody(Role.ADMIN)

        async def are_open(count: int) -> bool:
            shown = (await admin.api.ask(PROCESSES))["operations"]
            [process] = shown["processes"]
            return bool(process["sockets"] == shown["sockets"] == count)

        async with admin.api.socket(), admin.api.socket():
            await until(lambda: are_open(2))
        await until(lambda: are_open(0))


async def test_a_process_tells_what_it_is(embedded: Opener) -> None:
    async with embedded() as house:
        admin = await house.somebody(Role.ADMIN)

        async def told() -> Any:
            return (await admin.api.ask(PROCESSES))["operations"]["processes"]

        [process] = await until(told)
        assert process["service"] == "serve"
        assert process["startedAt"] <= process["seenAt"]
        assert 20e6 < process["memoryBytes"] < 4e9


def test_memory_is_told_in_bytes_where_the_system_tells_the_most_only() -> None:
    assert 20e6 < resident_bytes() < 4e9
    assert 0.9 < most_resident_bytes() / resident_bytes() < 100


class Deaf(Pulse):
    """Loses a cancellation, as PyMongo does now and then."""

    beats = 0

    async def beat(self, service: str) -> None:
        self.beats += 1
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def test_a_pulse_that_loses_its_cancellation_ends_all_the_same() -> None:
    pulse = Deaf(Counts(), SystemClock(), quick_settings("", pulse_seconds=3600))
    beating = asyncio.create_task(pulse.keep_beating("serve"))
    await until(lambda: pulse.beats)
    beating.cancel()
    await until(beating.done)


async def test_what_is_done_while_a_gateway_ends_is_told_too(mongod: PrivateMongod) -> None:
    settings = quick_settings(mongod.url, pulse_seconds=3600)
    stop = asyncio.Event()
    async with (
        AsyncMongoClient[dict[str, Any]](mongod.url) as client,
        host.open_runtime(settings) as runtime,
    ):
        database = client[settings.mongodb_database]
        async with asyncio.TaskGroup() as group:
            group.create_task(host.run(runtime, (), stop))
            await until(database["processes"].find_one)
            stop.set()
        assert await database["processes"].find_one()
        runtime.counts.sent += 1  # for a request that was in hand
    async with AsyncMongoClient[dict[str, Any]](mongod.url) as client:
        database = client[settings.mongodb_database]
        told = await database["minute_counts"].find_one()
        assert told is not None
        assert told["sent"] == 1
        assert await database["processes"].find_one() is None
        await client.drop_database(settings.mongodb_database)


async def test_what_nobody_refused_is_not_counted_as_suppressed(opened: Opener) -> None:
    async with opened() as house:
        admin, ann = await house.somebody(Role.ADMIN), await house.somebody()
        await until_totals(admin, events=2, sent=2)
        now = house.runtime.clock.now()
        shipped, paid = (
            Event.of(
                OrderStatusChanged(order_id="1", user_id=ann.id, status=status, version=version),
                time=now,
            )
            for status, version in (("shipped", 2), ("paid", 1))
        )
        over = PromotionAnnounced(
            title="t", body="b", user_ids=(ann.id,), expires_at=now - timedelta(minutes=1)
        )
        for number, event in enumerate((shipped, paid, Event.of(over, time=now))):
            await house.runtime.bus.publish([event])
            await until_totals(admin, events=3 + number, sent=3)


@asynccontextmanager
async def gateway(mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ) -> AsyncIterator[House]:
    """In this process, beside services in processes of their own."""
    settings = quick_settings(mongod.url, rabbitmq_url=rabbitmq.url, pulse_seconds=PULSE)
    await forget_queues(rabbitmq.url, settings)
    async with open_house(settings, workers=()) as house:
        yield house


def beside(house: House, pulse_seconds: float) -> dict[str, Any]:
    settings = house.runtime.settings
    return elsewhere(settings.mongodb_url) | {
        "RABBITMQ_URL": settings.rabbitmq_url,
        "MONGODB_DATABASE": settings.mongodb_database,
        "PULSE_SECONDS": pulse_seconds,
    }


async def test_processes_add_up_and_one_that_is_told_to_end_tells_its_last(
    mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ, tmp_path: Path
) -> None:
    async with gateway(mongod, rabbitmq) as house:
        admin, backend = await house.somebody(Role.ADMIN), await house.somebody(Role.SERVICE)
        stored = house.runtime.store.database["notifications"].count_documents

        async def are_stored(count: int) -> bool:
            return await stored({}) == count

        for turn in (1, 2):
            seldom = beside(house, pulse_seconds=600)
            async with tidings("notifications", folder=tmp_path / str(turn), **seldom) as worker:
                for number in range(3):
                    await order(backend, backend.id, number + 3 * turn)
                    await create(backend.api, backend.id)  # counted by the gateway
                await until(partial(are_stored, 2 + 6 * turn), timeout=20)
                worker.send(signal.SIGTERM)
                assert await worker.ended() == 0
        await until_totals(admin, events=8, sent=14)


async def test_a_process_that_was_killed_disappears_and_the_others_stay(
    mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ, tmp_path: Path
) -> None:
    async with gateway(mongod, rabbitmq) as house:
        admin = await house.somebody(Role.ADMIN)

        async def services() -> list[str]:
            shown = (await admin.api.ask(PROCESSES))["operations"]["processes"]
            assert len({one["id"] for one in shown}) == len(shown)
            return [one["service"] for one in shown]

        often = beside(house, pulse_seconds=0.5)
        async with (
            tidings("notifications", folder=tmp_path / "one", **often) as one,
            tidings("notifications", folder=tmp_path / "two", **often) as two,
            tidings("users", folder=tmp_path / "users", **often),
        ):
            all_ = ["gateway", "notifications", "notifications", "users"]
            await until(lambda: _is(services(), all_), timeout=30)
            one.send(signal.SIGKILL)
            await until(lambda: _is(services(), ["gateway", "notifications", "users"]))
            two.send(signal.SIGTERM)
            await two.ended()
            assert await services() == ["gateway", "users"]  # it has said so


async def _is(asked: Any, expected: object) -> bool:
    return bool(await asked == expected)


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateRabbitMQ]:
    """One of our own, since it is killed."""
    need_rabbitmq()
    async with private_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_with_the_broker_away_an_operator_sees_the_rest(
    mongod: PrivateMongod, broker: PrivateRabbitMQ, way: str
) -> None:
    settings = quick_settings(mongod.url, rabbitmq_url=broker.url, pulse_seconds=PULSE)
    async with open_house(settings) as house:
        admin, backend = await house.somebody(Role.ADMIN), await house.somebody(Role.SERVICE)
        await until_totals(admin, events=2, sent=2)
        await until(lambda: is_ready(house), 20)
        async with away(broker, way):
            await order(backend, backend.id, 1)
            began = time.monotonic()
            answer = (await admin.api.post(json={"query": BACKLOG})).json()
            assert time.monotonic() - began < MOST_SECONDS
            shown = answer["data"]["operations"]
            assert shown["outbox"] == 1
            assert shown["outboxOldestAt"] <= shown["at"]
            assert (shown["queues"], shown["deadLetters"]) == (None, None)
            told = {error["path"][-1]: error["extensions"]["code"] for error in answer["errors"]}
            assert told == dict.fromkeys(("queues", "deadLetters"), "SERVICE_UNAVAILABLE")
            await until_totals(admin, events=2, sent=2)  # no error: nothing of it needs the broker
            for document in (
                "{ deadLetters { id } }",
                'mutation { replayDeadLetter(id: "x") }',
                'mutation { discardDeadLetter(id: "x") }',
            ):
                began = time.monotonic()
                with refused("SERVICE_UNAVAILABLE"):
                    await admin.api.ask(document)
                assert time.monotonic() - began < MOST_SECONDS

        async def is_caught_up() -> bool:
            """It may have come twice: a hung broker takes what it does not confirm."""
            shown = (await admin.api.ask(BACKLOG))["operations"]
            return shown["outbox"] == 0 and (await totals(admin))["sent"] == 3

        await until(is_caught_up)


class HangingBus(RabbitBus):
    """The broker hangs when somebody has just connected."""

    def __init__(self, broker: PrivateRabbitMQ, settings: Settings) -> None:
        super().__init__(broker.url, SystemClock(), settings)
        self._pid = broker.pid

    async def connect(self) -> Connection:
        connection = await super().connect()
        await hang(self._pid)
        return connection


async def test_a_broker_that_hangs_while_it_is_asked_is_not_waited_for(
    broker: PrivateRabbitMQ,
) -> None:
    settings = quick_settings("", rabbitmq_url=broker.url)
    began = time.monotonic()
    try:
        with pytest.raises(Unavailable):
            await HangingBus(broker, settings).depths()
        assert time.monotonic() - began < MOST_SECONDS
    finally:
        os.kill(broker.pid, signal.SIGCONT)


async def test_counts_that_can_not_be_stored_are_kept_and_hold_up_nothing(
    embedded: Opener,
) -> None:
    async with embedded() as house:
        database = house.runtime.store.database
        admin, backend = await house.somebody(Role.ADMIN), await house.somebody(Role.SERVICE)
        await until_totals(admin, events=2, sent=2)
        name = MinuteCounts.get_collection_name()
        await database.command("collMod", name, validator={"never": True})
        with pytest.raises(WriteError):
            await database[name].insert_one({"_id": uuid4().hex})
        with capture_logs() as lines:
            await order(backend, backend.id, 1)
            stored = database["notifications"].count_documents
            await until(lambda: _is(stored({}), 3))
            await until(lambda: [line for line in lines if line["event"] == "pulse_failed"])
        assert (await totals(admin))["events"] == 2
        await database.command("collMod", name, validator={})
        await until_totals(admin, events=3, sent=3)


async def test_a_part_that_fails_is_asked_for_only_where_it_is_wanted_and_fails_alone(
    mongod: PrivateMongod,
) -> None:
    async with open_house(quick_settings(mongod.url, pulse_seconds=3600)) as house:
        admin, database = await house.somebody(Role.ADMIN), house.runtime.store.database
        await until(database["processes"].find_one)
        await database.drop_collection("processes")
        await database["broken"].insert_one({"expires_at": datetime.max.replace(tzinfo=UTC)})
        broken = [{"$set": {"sockets": {"$divide": ["$expires_at", 0]}}}]
        await database.command("create", "processes", viewOn="broken", pipeline=broken)
        rest = "minutes { at } queues { name } deadLetters outbox"
        await admin.api.ask(f"{{ operations {{ {rest} }} }}")
        query = f"{{ operations {{ processes {{ id }} {rest} }} }}"
        answer = (await admin.api.post(json={"query": query})).json()
        assert [error["path"][-1] for error in answer["errors"]] == ["processes"]
        shown = answer["data"]["operations"]
        assert shown.pop("processes") is None
        assert None not in shown.values()


async def test_what_waits_is_asked_of_the_broker_once_a_second(rabbitmq: PrivateRabbitMQ) -> None:
    settings = quick_settings("", rabbitmq_url=rabbitmq.url)
    bus = CountingBus(rabbitmq.url, SystemClock(), settings)
    answers = await asyncio.gather(*(bus.depths() for _ in range(20)))
    assert answers.count(answers[0]) == 20
    assert await bus.depths() == answers[0]
    assert bus.connected == 1
    await bus.discard("nobody's")
    before = bus.connected
    await bus.depths()
    assert bus.connected == before + 1


async def test_a_queue_that_was_deleted_is_counted_anew(rabbitmq: PrivateRabbitMQ) -> None:
    settings = quick_settings("", rabbitmq_url=rabbitmq.url)
    bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
    abandon(await bus.connect())
    await forget_queues(rabbitmq.url, settings)
    assert (await bus.depths()).dead_letters == 0


async def test_what_the_broker_makes_up_of_a_queue_that_is_stuck_is_not_believed(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    settings = quick_settings("", rabbitmq_url=rabbitmq.url, rabbitmq_timeout_seconds=10)
    bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
    await bus.discard()
    await bus.publisher.send([("", DEAD_LETTERS, aio_pika.Message(b"{}"))])
    async with rabbitmq.stuck(DEAD_LETTERS):
        asking = asyncio.create_task(bus.depths())
        assert not (await asyncio.wait({asking}, timeout=0.7))[0]
    assert (await asking).dead_letters == 1
    assert await bus.discard() == 1
    await bus.close()


class CountingBus(RabbitBus):
    connected = 0

    async def connect(self) -> Connection:
        self.connected += 1
        return await super().connect()


async def test_minutes_are_forgotten(mongod: PrivateMongod) -> None:
    settings = quick_settings(mongod.url, pulse_seconds=PULSE, rates_seconds=7200)
    async with open_house(settings) as house:
        minutes = house.runtime.store.database[MinuteCounts.get_collection_name()]
        await house.somebody()
        row = await until(minutes.find_one)
        assert row["forget_at"] == row["_id"] + timedelta(hours=2)
        indexes = (await minutes.index_information()).values()
        assert [
            one["expireAfterSeconds"] for one in indexes if one["key"] == [("forget_at", 1)]
        ] == [0]
