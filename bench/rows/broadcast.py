"""Row `broadcast`: a promotion to everybody, until the last one has it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from bench.filling import fill_users
from bench.limits.broadcast import BODY, TITLE
from bench.results import TIDINGS, Measure, Row, Target, alternated
from bench.rows.events import Start, empty, holds, is_empty
from bench.world import World
from services.shared.amqp import Connection, close
from services.shared.clock import SystemClock
from services.shared.events import Event, PromotionAnnounced
from services.shared.rabbit import RabbitBus
from tests.servers import until

USERS: Final = 200_000
BARE: Final = "bare insert_many"
_DATABASE: Final = "broadcast"
_ROUNDS: Final = 4
_SECONDS: Final = 600.0


async def broadcast(world: World) -> Sequence[Row]:
    """How many a second one worker serves."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(world.database(_DATABASE))
        await fill_users(database, USERS)
        bus = RabbitBus(world.rabbitmq_url, SystemClock(), world.settings(_DATABASE))
        stack.push_async_callback(bus.close)
        connection: Connection = await bus.connect()
        stack.push_async_callback(close, connection)

        def measure(start: Start, collection: str) -> Measure:
            return partial(_rate, database, connection, bus, start, collection)

        samples = await alternated(
            {
                TIDINGS: measure(
                    partial(world.service, "notifications", _DATABASE), "notifications"
                ),
                BARE: measure(partial(world.limit, "broadcast", _DATABASE), "bare"),
            },
            _ROUNDS,
            world.progress,
        )
    return [
        Row(
            "broadcast",
            f"a promotion to {USERS:,} users until the last is stored; one worker",
            "users/s",
            samples,
            [Target(BARE, least=0.7)],
        )
    ]


async def _rate(
    database: AsyncDatabase[dict[str, Any]],
    connection: Connection,
    bus: RabbitBus,
    start: Start,
    collection: str,
) -> float:
    """Users a second, from the first that is seen stored to the last."""
    await empty(database)
    if collection == "notifications":
        promotion = PromotionAnnounced(title=TITLE, body=BODY)
        await bus.publish([Event.of(promotion, time=SystemClock().now(), source="urn:bench")])
    loop = asyncio.get_running_loop()
    stored = database[collection].estimated_document_count
    async with start():
        first = await until(stored, _SECONDS, every=0.005)
        began = loop.time()
        await until(partial(holds, stored, USERS), _SECONDS, every=0.01)
        seconds = loop.time() - began
        await until(partial(is_empty, connection), _SECONDS)
    return float(USERS - first) / seconds
