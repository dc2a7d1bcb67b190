"""Schedules: each fire once, whoever runs; missed ones made up for once, or skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from services.host import Runtime, open_runtime
from services.scheduler import mock
from services.scheduler.models import Schedule
from services.scheduler.service import Plan, SchedulerService
from services.shared.clock import SystemClock
from services.shared.errors import BadInput
from services.shared.events import OrderStatusChanged
from services.shared.outbox import OutboxRow
from services.shared.store import Session, Store
from tests.kit import Elsewhere, ShiftedClock, quick_settings
from tests.servers import PrivateMongod

T = TypeVar("T")
PROMOTION = {"type": "promotion.announced", "data": {"title": "Sale", "body": "All of it"}}


@pytest.fixture
async def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def resting(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[Runtime]:
    """A runtime in which nothing happens by itself: the test ticks."""
    async with open_runtime(quick_settings(mongod.url), clock) as runtime:
        yield runtime
        await runtime.store.drop()


def plan(name: str = "a schedule", cron: str = "* * * * *", event: Any = PROMOTION) -> Plan:
    return Plan(name, cron, "UTC", event)


async def published() -> list[bytes]:
    return [row.event async for row in OutboxRow.find_all()]


async def test_a_schedule_fires_at_its_time_and_not_before(
    resting: Runtime, clock: ShiftedClock
) -> None:
    schedule = await resting.schedules.create(plan())
    assert await resting.schedules.tick(schedule.next_fire_at - timedelta(milliseconds=1)) == 0
    assert await resting.schedules.tick(schedule.next_fire_at) == 1
    assert await resting.schedules.tick(schedule.next_fire_at) == 0
    assert len(await published()) == 1
    fired = await Schedule.by_id(str(schedule.id))
    assert fired is not None
    assert fired.last_fired_at == schedule.next_fire_at
    assert fired.next_fire_at == schedule.next_fire_at + timedelta(minutes=1)


async def test_eight_schedulers_that_find_the_same_fire_publish_it_once(resting: Runtime) -> None:
    schedules = [await resting.schedules.create(plan(f"schedule {n}")) for n in range(10)]
    last = max(schedule.next_fire_at for schedule in schedules)
    fired = await asyncio.gather(*(resting.schedules.tick(last) for _ in range(8)))
    assert sum(fired) == 10
    assert len(await published()) == 10


class OvertakenStore(Store):
    """A store on which somebody else is always faster."""

    def __init__(self, store: Store, faster: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._faster = faster

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        await self._faster()
        return await self._store.transact(work)


async def test_a_scheduler_that_was_overtaken_fires_nothing_and_turns_nothing_back(
    resting: Runtime, clock: ShiftedClock
) -> None:
    schedule = await resting.schedules.create(plan())
    first, minute = schedule.next_fire_at, timedelta(minutes=1)

    async def faster() -> None:
        await resting.schedules.tick(first)
        await resting.schedules.tick(first + minute)

    store = OvertakenStore(resting.store, faster)
    slow = SchedulerService(store, resting.outbox, clock, resting.settings)
    assert await slow.tick(first) == 0
    assert len(await published()) == 2
    after = await Schedule.by_id(str(schedule.id))
    assert after is not None
    assert after.next_fire_at == first + 2 * minute


async def test_runs_missed_within_the_grace_are_made_up_for_once(
    resting: Runtime, clock: ShiftedClock
) -> None:
    schedule = await resting.schedules.create(plan())
    down_until = schedule.next_fire_at + timedelta(hours=5, seconds=30)
    assert await resting.schedules.tick(down_until) == 1
    [event] = await published()
    fire = (down_until - timedelta(seconds=30)).isoformat()
    assert f"{schedule.id}/{fire}".encode() in event


async def test_a_run_missed_by_more_than_the_grace_is_skipped(resting: Runtime) -> None:
    schedule = await resting.schedules.create(plan(cron="0 9 * * *"))
    late = schedule.next_fire_at + timedelta(hours=1, seconds=1)
    assert await resting.schedules.tick(late) == 1
    assert await published() == []
    after = await Schedule.by_id(str(schedule.id))
    assert after is not None
    assert after.next_fire_at == schedule.next_fire_at + timedelta(days=1)
    assert after.last_fired_at is None


async def test_a_paused_schedule_rests_and_makes_up_for_nothing(
    resting: Runtime, clock: ShiftedClock
) -> None:
    schedule = await resting.schedules.create(plan())
    await resting.schedules.pause(str(schedule.id), True)
    clock.shift = timedelta(minutes=10)
    assert await resting.schedules.tick(clock.now()) == 0
    going = await resting.schedules.pause(str(schedule.id), False)
    assert going.next_fire_at > clock.now()
    assert await resting.schedules.tick(clock.now()) == 0


async def test_a_fire_that_is_due_survives_a_new_name(
    resting: Runtime, clock: ShiftedClock
) -> None:
    schedule = await resting.schedules.create(plan("old name", cron="0 9 * * *"))
    clock.shift = schedule.next_fire_at - SystemClock().now() + timedelta(minutes=1)
    await resting.schedules.update(str(schedule.id), plan("new name", cron="0 9 * * *"))
    assert await resting.schedules.tick(clock.now()) == 1


async def test_a_schedule_that_can_no_longer_be_read_pauses_and_lets_the_others_fire(
    resting: Runtime,
) -> None:
    broken = await resting.schedules.create(plan("broken"))
    await broken.set({"event": {"type": "no.longer.known"}})
    fine = await resting.schedules.create(plan("fine"))
    assert await resting.schedules.tick(fine.next_fire_at) == 1
    after = await Schedule.by_id(str(broken.id))
    assert after is not None
    assert after.paused


async def test_many_that_are_due_fire_in_one_transaction(resting: Runtime) -> None:
    schedules = [await resting.schedules.create(plan(f"schedule {n}")) for n in range(20)]
    last = max(schedule.next_fire_at for schedule in schedules)
    committed = 0

    async def count() -> None:
        nonlocal committed
        committed += 1

    counting = Elsewhere(resting.store, after=count)
    service = SchedulerService(counting, resting.outbox, resting.clock, resting.settings)
    assert await service.tick(last) == 20
    assert committed == 1
    assert len(await published()) == 20


async def test_one_that_makes_the_transaction_fail_pauses_and_lets_the_others_fire(
    resting: Runtime,
) -> None:
    schedules = [await resting.schedules.create(plan(f"schedule {n}")) for n in range(5)]
    rows = OutboxRow.get_pymongo_collection()
    await resting.store.database.command(
        "collMod", rows.name, validator={"subject": {"$ne": "too much"}}
    )
    poison = PROMOTION | {"data": {"title": "too much", "body": "All of it"}}
    await schedules[3].set({"event": poison})
    last = max(schedule.next_fire_at for schedule in schedules)
    assert await resting.schedules.tick(last) == 4
    assert len(await published()) == 4
    after = await Schedule.by_id(str(schedules[3].id))
    assert after is not None
    assert after.paused


async def test_a_schedule_that_was_paused_meanwhile_does_not_fire(resting: Runtime) -> None:
    paused, other = [await resting.schedules.create(plan(f"schedule {n}")) for n in range(2)]

    async def pause() -> None:
        await resting.schedules.pause(str(paused.id), True)

    slow = SchedulerService(
        Elsewhere(resting.store, before=pause), resting.outbox, resting.clock, resting.settings
    )
    assert await slow.tick(max(paused.next_fire_at, other.next_fire_at)) == 1
    assert len(await published()) == 1


async def test_finding_what_is_due_reads_only_what_is_due(resting: Runtime) -> None:
    collection = Schedule.get_pymongo_collection()
    now = datetime.now(UTC)
    await collection.insert_many(
        [{**_row(n), "next_fire_at": now + timedelta(hours=n - 2)} for n in range(500)]
    )
    await resting.store.database.command("profile", 2)
    due = await Schedule.due(now, 100)
    await resting.store.database.command("profile", 0)
    seen = await resting.store.database["system.profile"].find_one({"ns": collection.full_name})
    assert len(due) == 3
    assert seen is not None
    assert seen["docsExamined"] == 3


async def test_what_a_demo_mocks_is_refused_where_there_is_no_demo(resting: Runtime) -> None:
    with pytest.raises(BadInput):
        await resting.schedules.create(plan(event={"type": mock.ORDER}))


def test_mock_orders_go_through_all_statuses_and_start_anew() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        mock.mock_event(mock.ORDER, start + timedelta(minutes=n), ["a", "b"]) for n in range(20)
    ]
    orders = [event for event in events if isinstance(event, OrderStatusChanged)]
    of_a = [order for order in orders if order.user_id == "a"]
    assert len(of_a) == 10
    by_order: dict[str, list[int | None]] = {}
    for order in of_a:
        by_order.setdefault(order.order_id, []).append(order.version)
    assert all(versions == sorted(versions, key=str) for versions in by_order.values())
    assert {order.status for order in of_a} == {"placed", "paid", "packed", "shipped", "delivered"}


def test_the_same_fire_mocks_the_same_event() -> None:
    fire = datetime(2026, 1, 1, tzinfo=UTC)
    assert mock.mock_event(mock.ORDER, fire, ["a"]) == mock.mock_event(mock.ORDER, fire, ["a"])
    assert mock.mock_event(mock.ORDER, fire, []) is None


def _row(number: int) -> dict[str, Any]:
    return {
        "name": f"schedule {number}",
        "cron": "* * * * *",
        "timezone": "UTC",
        "event": PROMOTION,
        "paused": False,
        "last_fired_at": None,
    }
