"""The outbox: what was committed is told, once the bus takes it; what was not never is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest

from services import host
from services.shared.bus import PartlyPublished
from services.shared.embedded import EmbeddedBus, QueuedMessage
from services.shared.errors import Unavailable
from services.shared.events import Event, OrderStatusChanged, decode
from services.shared.outbox import Backlog, Outbox, OutboxRow
from services.shared.settings import Settings
from services.shared.store import PART_BYTES, Session, Store, open_store
from tests.kit import ShiftedClock, quick_settings
from tests.servers import PrivateMongod, until

SETTINGS = quick_settings("")


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def store(mongod: PrivateMongod) -> AsyncIterator[Store]:
    name = quick_settings("").mongodb_database
    async with open_store(mongod.url, name, host.MODELS, timeout=2, patience=5) as store:
        yield store
        await store.drop()


class UnsteadyBus(EmbeddedBus):
    """The embedded bus, away as long as a test says."""

    away = False

    async def publish(self, events: Sequence[Event]) -> None:
        if self.away:
            raise Unavailable("away, says the test")
        await super().publish(events)


class SlowBus(EmbeddedBus):
    """The embedded bus, which confirms only so many in time. `calls`: how many each had."""

    in_time = 100

    def __init__(self, store: Store, clock: ShiftedClock, settings: Settings) -> None:
        super().__init__(store, clock, settings)
        self.calls: list[int] = []

    async def publish(self, events: Sequence[Event]) -> None:
        self.calls.append(len(events))
        await super().publish(events)
        if len(events) > self.in_time:
            raise PartlyPublished("too slow, says the test", frozenset(range(self.in_time)))


class RefusingBus(UnsteadyBus):
    """Refuses one of the events, once, and is away ever after."""

    refused = 0

    async def publish(self, events: Sequence[Event]) -> None:
        taken = [place for place in range(len(events)) if place != self.refused]
        await super().publish([events[place] for place in taken])
        self.away = True
        raise PartlyPublished("one was refused, says the test", frozenset(taken))


class EndlessBus(EmbeddedBus):
    """While it takes some events, as many come from elsewhere, and more."""

    def __init__(self, store: Store, clock: ShiftedClock, settings: Settings) -> None:
        super().__init__(store, clock, settings)
        self._elsewhere = Outbox(self, clock, settings)

    async def publish(self, events: Sequence[Event]) -> None:
        await put(self._store, self._elsewhere, len(events) + 1)
        await super().publish(events)


def order(number: int) -> Event:
    data = OrderStatusChanged(order_id=str(number), user_id="u", status="paid")
    return Event.of(data, time=ShiftedClock().now(), id=f"event-{number}")


async def put(store: Store, outbox: Outbox, count: int, *, then_fail: bool = False) -> None:
    async def write(session: Session) -> None:
        await outbox.put([order(number) for number in range(count)], session)
        if then_fail:
            raise ValueError("the change is not to be")

    await store.transact(write)
    outbox.wake()


async def put_one(
    store: Store, outbox: Outbox, subject: str, number: int, details: dict[str, str] | None = None
) -> None:
    data = OrderStatusChanged(order_id=subject, user_id="u", status="paid", details=details)
    event = Event.of(data, time=ShiftedClock().now(), id=str(number))

    async def write(session: Session) -> None:
        await outbox.put([event], session)

    await store.transact(write)
    outbox.wake()


@asynccontextmanager
async def relaying(*outboxes: Outbox) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(outbox.relay()) for outbox in outboxes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def handed_on() -> list[str]:
    messages = QueuedMessage.find_all().sort("_id")
    return [decode(one.body, received=one.due_at).id async for one in messages]


async def test_what_is_rolled_back_is_never_told(store: Store, clock: ShiftedClock) -> None:
    outbox = Outbox(EmbeddedBus(store, clock, SETTINGS), clock, SETTINGS)
    with pytest.raises(ValueError, match="not to be"):
        await put(store, outbox, 3, then_fail=True)
    assert (await outbox.backlog()).rows == 0


async def test_what_is_committed_is_handed_on_in_order_and_forgotten(
    store: Store, clock: ShiftedClock
) -> None:
    outbox = Outbox(EmbeddedBus(store, clock, SETTINGS), clock, SETTINGS)
    await put(store, outbox, 1200)
    async with relaying(outbox):
        await until(lambda: _is_empty(outbox))
    assert await handed_on() == [f"event-{number}" for number in range(1200)]


async def test_no_more_is_claimed_than_the_database_reads_in_time(
    store: Store, clock: ShiftedClock
) -> None:
    """And what is left is free for others at once."""
    bus = SlowBus(store, clock, SETTINGS)
    outbox, details = Outbox(bus, clock, SETTINGS), {"text": "x" * (PART_BYTES // 4)}
    for number in range(10):
        await put_one(store, outbox, str(number), number, details)
    async with relaying(outbox):
        await until(lambda: _is_empty(outbox), timeout=SETTINGS.outbox_lease_seconds)
    assert bus.calls == [4, 4, 2]
    assert await handed_on() == [str(number) for number in range(10)]


class StaggeredOutbox(Outbox):
    """An outbox whose relay starts at a moment of its own."""

    async def relay(self) -> None:
        await asyncio.sleep(random.random() / 50)
        await super().relay()


async def test_several_relays_share_the_rows_and_none_is_told_twice(
    store: Store, clock: ShiftedClock
) -> None:
    settings = SETTINGS.model_copy(update={"outbox_batch_size": 3, "outbox_poll_seconds": 0.001})
    outboxes = [
        StaggeredOutbox(EmbeddedBus(store, clock, settings), clock, settings) for _ in range(8)
    ]
    await put(store, outboxes[0], 600)
    async with relaying(*outboxes):
        await until(lambda: _is_empty(outboxes[0]), timeout=30)
    assert sorted(await handed_on()) == sorted(f"event-{number}" for number in range(600))


class LazyOutbox(Outbox):
    """An outbox whose relay takes its time between claiming rows and handing them on."""

    async def _behind_others(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        found = await super()._behind_others(rows)
        await asyncio.sleep(random.random() / 50)
        return found


async def test_several_relays_keep_the_order_of_each_subject(
    store: Store, clock: ShiftedClock
) -> None:
    settings = SETTINGS.model_copy(update={"outbox_batch_size": 2, "outbox_poll_seconds": 0.01})
    outboxes = [LazyOutbox(EmbeddedBus(store, clock, settings), clock, settings) for _ in range(4)]
    async with relaying(*outboxes):
        for number in range(60):
            await put_one(store, outboxes[number % 4], f"order {number % 3}", number)
        await until(lambda: _is_empty(outboxes[0]), timeout=30)
    handed = [int(id) for id in await handed_on()]
    for subject in range(3):
        numbers = list(dict.fromkeys(one for one in handed if one % 3 == subject))
        assert numbers == list(range(subject, 60, 3))


async def test_an_outbox_that_is_full_refuses_more_and_takes_it_later(
    store: Store, clock: ShiftedClock
) -> None:
    settings = SETTINGS.model_copy(update={"outbox_limit": 5})
    bus = UnsteadyBus(store, clock, settings)
    bus.away = True
    outbox = Outbox(bus, clock, settings)
    await put(store, outbox, 5)
    async with relaying(outbox):
        await until(_has_been_tried)
        with pytest.raises(Unavailable):
            await put(store, outbox, 1)
        bus.away = False
        await until(lambda: _is_empty(outbox))
        await until(lambda: _takes(store, outbox))


async def test_an_outbox_that_fills_while_it_is_busy_refuses_more(
    store: Store, clock: ShiftedClock
) -> None:
    settings = SETTINGS.model_copy(update={"outbox_limit": 20, "outbox_batch_size": 5})
    roomy = SETTINGS.model_copy(update={"outbox_limit": 10**6, "outbox_batch_size": 5})
    outbox = Outbox(EndlessBus(store, clock, roomy), clock, settings)
    await put(store, outbox, 5)
    async with relaying(outbox):

        async def refuses() -> bool:
            return not await _takes(store, outbox)

        await until(refuses)


async def test_what_a_slow_bus_confirmed_is_not_handed_on_again(
    store: Store, clock: ShiftedClock
) -> None:
    bus = SlowBus(store, clock, SETTINGS)
    outbox = Outbox(bus, clock, SETTINGS)
    await put(store, outbox, 600)
    async with relaying(outbox):
        await until(lambda: _is_empty(outbox), timeout=30)
    handed = await handed_on()
    assert list(dict.fromkeys(handed)) == [f"event-{number}" for number in range(600)]
    assert handed[:100] == [one for one in handed if int(one[6:]) < 100]
    assert bus.calls[:4] == [500, 250, 125, 62]
    assert max(bus.calls[4:]) <= 2 * bus.in_time


async def test_a_row_behind_one_of_its_subject_that_was_refused_stays_with_it(
    store: Store, clock: ShiftedClock
) -> None:
    bus = RefusingBus(store, clock, SETTINGS)
    outbox = Outbox(bus, clock, SETTINGS)
    for number, subject in enumerate(["a", "b", "a", "b"]):
        await put_one(store, outbox, subject, number)
    async with relaying(outbox):
        await until(lambda: bus.away)
        await until(_two_are_left)
    left = await OutboxRow.find_all().sort("written").to_list()
    assert [decode(row.event, received=clock.now()).id for row in left] == ["0", "2"]


async def test_the_backlog_tells_its_age(store: Store, clock: ShiftedClock) -> None:
    outbox = Outbox(EmbeddedBus(store, clock, SETTINGS), clock, SETTINGS)
    assert await outbox.backlog() == Backlog(0, timedelta())
    await put(store, outbox, 2)
    clock.shift = timedelta(minutes=5)
    backlog = await outbox.backlog()
    assert backlog.rows == 2
    assert timedelta(minutes=4, seconds=55) < backlog.age < timedelta(minutes=5, seconds=5)


async def test_what_waits_is_counted_without_reading_it(store: Store, clock: ShiftedClock) -> None:
    outbox = Outbox(EmbeddedBus(store, clock, SETTINGS), clock, SETTINGS)
    await put(store, outbox, 20)
    await store.database.command("profile", 2)
    assert (await outbox.backlog()).rows == 20
    await store.database.command("profile", 0)
    profile = store.database["system.profile"]
    name = OutboxRow.get_pymongo_collection().full_name
    asked = await profile.find({"ns": name, "op": {"$in": ["query", "command"]}}).to_list()
    assert asked
    assert max(one.get("docsExamined", 0) for one in asked) == 1


async def test_while_the_bus_is_away_rows_wait_for_it(store: Store, clock: ShiftedClock) -> None:
    patient = SETTINGS.model_copy(update={"outbox_lease_seconds": 3600})
    bus = UnsteadyBus(store, clock, patient)
    bus.away = True
    outbox = Outbox(bus, clock, patient)
    await put(store, outbox, 5)
    async with relaying(outbox):
        await until(_has_been_tried)
        assert (await outbox.backlog()).rows == 5
        bus.away = False
        await until(lambda: _is_empty(outbox))
    assert len(await handed_on()) == 5


async def test_the_rows_of_a_relay_that_died_pass_to_another(
    store: Store, clock: ShiftedClock
) -> None:
    dead = Outbox(EmbeddedBus(store, clock, SETTINGS), clock, SETTINGS)
    await put(store, dead, 5)
    lease = timedelta(seconds=SETTINGS.outbox_lease_seconds)
    await OutboxRow.find_all().update({"$set": {"claimed_until": clock.now() + lease}})
    heir = Outbox(EmbeddedBus(store, clock, SETTINGS), clock, SETTINGS)
    async with relaying(heir):
        assert (await heir.backlog()).rows == 5
        clock.shift = lease + timedelta(seconds=1)
        await until(lambda: _is_empty(heir))
    assert len(await handed_on()) == 5


async def _is_empty(outbox: Outbox) -> bool:
    return (await outbox.backlog()).rows == 0


async def _two_are_left() -> bool:
    return await OutboxRow.count() == 2


async def _takes(store: Store, outbox: Outbox) -> bool:
    with suppress(Unavailable):
        await put(store, outbox, 1)
        return True
    return False


async def _has_been_tried() -> bool:
    return await OutboxRow.find_one({"claim": {"$ne": None}}) is not None
