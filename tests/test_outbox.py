"""The outbox: what was committed is told, once the bus takes it; what was not never is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from services import host
from services.shared.embedded import EmbeddedBus, QueuedMessage
from services.shared.errors import Unavailable
from services.shared.events import Event, OrderStatusChanged, decode
from services.shared.outbox import Outbox, OutboxRow
from services.shared.store import Session, Store, open_store
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
    assert await outbox.backlog() == 0


async def test_what_is_committed_is_handed_on_in_order_and_forgotten(
    store: Store, clock: ShiftedClock
) -> None:
    outbox = Outbox(EmbeddedBus(store, clock, SETTINGS), clock, SETTINGS)
    await put(store, outbox, 1200)
    async with relaying(outbox):
        await until(lambda: _is_empty(outbox))
    assert await handed_on() == [f"event-{number}" for number in range(1200)]


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


async def test_while_the_bus_is_away_rows_wait_for_it(store: Store, clock: ShiftedClock) -> None:
    patient = SETTINGS.model_copy(update={"outbox_lease_seconds": 3600})
    bus = UnsteadyBus(store, clock, patient)
    bus.away = True
    outbox = Outbox(bus, clock, patient)
    await put(store, outbox, 5)
    async with relaying(outbox):
        await until(_has_been_tried)
        assert await outbox.backlog() == 5
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
        assert await heir.backlog() == 5
        clock.shift = lease + timedelta(seconds=1)
        await until(lambda: _is_empty(heir))
    assert len(await handed_on()) == 5


async def _is_empty(outbox: Outbox) -> bool:
    return await outbox.backlog() == 0


async def _has_been_tried() -> bool:
    return await OutboxRow.find_one({"claim": {"$ne": None}}) is not None
