"""Row `events`: orders that wait in RabbitMQ until all are stored and acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Final
from uuid import uuid4

from pymongo.asynchronous.database import AsyncDatabase

from bench.filling import fill_users, user_id
from bench.results import TIDINGS, Measure, Row, Target, alternated
from bench.world import Program, World
from services.notifications.models import Notification
from services.shared.amqp import Connection, close
from services.shared.clock import SystemClock
from services.shared.events import CONTENT_TYPE, NOTIFICATIONS, Event, OrderStatusChanged, encode
from services.shared.frames import Outgoing, publish_all
from services.shared.rabbit import RabbitBus
from services.shared.topology import EVENTS, queue_name
from tests.servers import until

USERS: Final = 10_000
COUNT: Final = 50_000
DELIVERIES: Final = "with deliveries by email and push"
BARE: Final = "bare aio-pika"
EXPRESS: Final = "Express and Mongoose"
_DATABASE: Final = "events"
_QUEUE: Final = queue_name(NOTIFICATIONS)
_FEWER: Final = 5_000  # of those that are slower: what counts is the rate
_ROUNDS: Final = 5
_AT_ONCE: Final = 1_000
_SECONDS: Final = 300.0
_ACKNOWLEDGED_SECONDS: Final = 1.0  # what is stored is, by then: the queue does not tell
_STATUSES: Final = ("placed", "paid", "shipped", "delivered")
_KEPT: Final = {"users", "sessions"}

Start = Callable[[], AbstractAsyncContextManager[Program]]


async def events(world: World) -> Sequence[Row]:
    """A backlog: how many a second one process works off."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(world.database(_DATABASE))
        await fill_users(database, USERS)
        bus = RabbitBus(world.rabbitmq_url, SystemClock(), world.settings(_DATABASE))
        connection = await bus.connect()
        stack.push_async_callback(close, connection)

        def measure(start: Start, collection: str, count: int) -> Measure:
            return partial(_rate, database, connection, start, collection, count)

        def tidings(**settings: object) -> Start:
            return partial(world.service, "notifications", _DATABASE, **settings)

        bare = partial(world.limit, "events", _DATABASE, QUEUE=_QUEUE, COUNT=COUNT)
        express = partial(world.peer, "consumer.mjs", _DATABASE, QUEUE=_QUEUE)
        samples = await alternated(
            {
                TIDINGS: measure(tidings(DELIVERY_CHANNELS="[]"), "notifications", COUNT),
                BARE: measure(bare, "bare", COUNT),
                DELIVERIES: measure(tidings(), "notifications", _FEWER),
                EXPRESS: measure(express, "peer_notifications", _FEWER),
            },
            _ROUNDS,
            world.progress,
        )
    return [
        Row(
            "events",
            f"{COUNT:,} order events that wait, until all are stored and acknowledged; one worker",
            "events/s",
            samples,
            [Target(BARE, least=0.85), Target(EXPRESS, least=8)],
            {
                TIDINGS: "no channel besides the app has a sender, as in the others",
                DELIVERIES: f"as it is by default: {_FEWER:,} events and two rows more for each",
                EXPRESS: f"{_FEWER:,} events",
            },
        )
    ]


async def _rate(
    database: AsyncDatabase[dict[str, Any]],
    connection: Connection,
    start: Start,
    collection: str,
    count: int,
) -> float:
    """Events a second, from the first that is seen stored to the last: no process' start counts."""
    await empty(database)
    await _publish(connection, count)
    loop = asyncio.get_running_loop()
    stored = database[collection].estimated_document_count
    async with start():
        first = await until(stored, _SECONDS, every=0.002)
        began = loop.time()
        await until(partial(holds, stored, count), _SECONDS, every=0.005)
        seconds = loop.time() - began
        await until(partial(is_empty, connection), _SECONDS, every=0.005)
        await asyncio.sleep(_ACKNOWLEDGED_SECONDS)
    assert await is_empty(connection), "not all were acknowledged"
    return float(count - first) / seconds


async def empty(database: AsyncDatabase[dict[str, Any]]) -> None:
    """Leave the users alone, and the indexes of notifications."""
    for name in await database.list_collection_names():
        if name not in _KEPT:
            await database[name].drop()
    await database["notifications"].create_indexes([*Notification.Settings.indexes])


async def holds(stored: Callable[[], Awaitable[int]], count: int) -> bool:
    return await stored() >= count


async def _publish(connection: Connection, count: int) -> None:
    channel = await connection.channel()
    underlay = await channel.get_underlay_channel()
    chance = random.Random(7)
    bodies = [encode(_order(number, chance)) for number in range(count)]
    for place in range(0, count, _AT_ONCE):
        keys = (OrderStatusChanged.type,)
        messages = [Outgoing(keys, CONTENT_TYPE, body) for body in bodies[place : place + _AT_ONCE]]
        await publish_all(underlay, EVENTS, messages)
    await channel.close()


def _order(number: int, chance: random.Random) -> Event:
    details = {"total": "49.90", "currency": "EUR", "carrier": "DHL", "tracking": f"JD{number:016}"}
    order = OrderStatusChanged(
        order_id=f"2026-{number:06}",
        user_id=user_id(chance.randrange(USERS)),
        status=chance.choice(_STATUSES),
        version=1,
        details=details,
    )
    return Event.of(order, time=SystemClock().now(), id=uuid4().hex, source="urn:bench")


async def is_empty(connection: Connection) -> bool:
    """Of what no consumer has; so it says all when none is left."""
    channel = await connection.channel()
    queue = await channel.declare_queue(_QUEUE, passive=True)
    await channel.close()
    return queue.declaration_result.message_count == 0
