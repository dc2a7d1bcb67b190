"""Row `due`: a million that wait for their time, of which few have come to it."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from bench.filling import fill_scheduled, fill_schedules, fill_users, scheduled_row
from bench.results import TIDINGS, Row, Target, alternated
from bench.world import World
from services.host import Runtime, open_runtime
from services.notifications.scheduled import ScheduledNotification
from services.scheduler.models import Schedule
from services.shared.log import set_up_logging
from services.shared.loop import collect_rarely
from services.shared.outbox import OutboxRow

MANY: Final = 1_000_000
FEW: Final = 1_000
DUE: Final = 500
AMONG_FEW: Final = f"among {FEW:,}"
_MANY_DATABASE, _FEW_DATABASE = "due_many", "due_few"
_USERS: Final = 10_000
_ROUNDS: Final = 7
_FINDS: Final = 9


async def due(world: World) -> Sequence[Row]:
    """How long it takes to find what is due, and how many are fired a second."""
    async with AsyncExitStack() as stack:
        many = await stack.enter_async_context(world.database(_MANY_DATABASE))
        few = await stack.enter_async_context(world.database(_FEW_DATABASE))
        async with world.filling():
            await fill_schedules(few, FEW, world.progress)
            await fill_schedules(many, MANY, world.progress)
            await fill_users(many, _USERS)
            await fill_scheduled(many, _USERS, MANY, world.progress)
        found = await alternated(
            {
                TIDINGS: _measured(world, _MANY_DATABASE, _find),
                AMONG_FEW: _measured(world, _FEW_DATABASE, _find),
            },
            _ROUNDS,
            world.progress,
        )
        fire = {TIDINGS: _measured(world, _MANY_DATABASE, _fire)}
        fired = await alternated(fire, _ROUNDS, world.progress)
        send = {TIDINGS: _measured(world, _MANY_DATABASE, _send)}
        sent = await alternated(send, _ROUNDS, world.progress)
    return [
        Row(
            "due",
            f"{DUE} due of {MANY:,} schedules, until their events are in the outbox",
            "fired/s",
            fired,
            [Target(None, least=8_000)],
        ),
        Row(
            "due, found",
            f"the {DUE} due of {MANY:,} schedules",
            "ms",
            found,
            [Target(AMONG_FEW, most=2.0)],
        ),
        Row(
            "due, notifications",
            f"{DUE} due of {MANY:,} scheduled notifications, until they are stored and told",
            "sent/s",
            sent,
        ),
    ]


def _measured(
    world: World, database: str, measure: Callable[[Runtime], Awaitable[float]]
) -> Callable[[], Awaitable[float]]:
    """In our own process, where nothing else works; once more before, to be warm."""

    async def measured() -> float:
        async with _resting(world, database) as runtime:
            await measure(runtime)
            return await measure(runtime)

    return measured


@asynccontextmanager
async def _resting(world: World, database: str) -> AsyncIterator[Runtime]:
    settings = world.settings(database)
    set_up_logging(settings.log_level)
    async with open_runtime(settings) as runtime:
        collect_rarely()
        yield runtime
        await OutboxRow.get_pymongo_collection().delete_many({})


async def _make_due(runtime: Runtime) -> None:
    """As many as are not due yet, from anywhere among all."""
    minute = runtime.clock.now().replace(second=0, microsecond=0)
    collection = Schedule.get_pymongo_collection()
    ready = {"paused": False, "next_fire_at": {"$lte": minute}}
    missing = DUE - await collection.count_documents(ready)
    if missing > 0:
        later = {"paused": False, "next_fire_at": {"$gt": minute}}
        drawn: list[dict[str, Any]] = [
            {"$sample": {"size": 2 * DUE}},
            {"$match": later},
            {"$limit": missing},
        ]
        chosen = await collection.aggregate([*drawn, {"$project": {"_id": 1}}])
        ids = [row["_id"] async for row in chosen]
        await collection.update_many({"_id": {"$in": ids}}, {"$set": {"next_fire_at": minute}})


async def _find(runtime: Runtime) -> float:
    await _make_due(runtime)
    seconds = []
    for _ in range(_FINDS):
        began = time.perf_counter()
        found = await Schedule.due(runtime.clock.now(), DUE)
        seconds.append(time.perf_counter() - began)
        assert len(found) == DUE, len(found)
    return 1000 * statistics.median(seconds)


async def _fire(runtime: Runtime) -> float:
    await _make_due(runtime)
    began = time.perf_counter()
    fired = await runtime.schedules.tick(runtime.clock.now())
    seconds = time.perf_counter() - began
    assert fired == DUE, fired
    return fired / seconds


async def _send(runtime: Runtime) -> float:
    now = runtime.clock.now()
    rows = [
        scheduled_row(number, number, now - timedelta(seconds=1), now - timedelta(days=1))
        for number in range(DUE)
    ]
    await ScheduledNotification.get_pymongo_collection().insert_many(rows)
    began, sent = time.perf_counter(), 0
    while found := await runtime.firing.work():
        sent += found
    seconds = time.perf_counter() - began
    assert sent == DUE, sent
    return sent / seconds
