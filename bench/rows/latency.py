"""Row `latency`: how soon an order's news is on the screen, through broker, worker and database."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Final

import msgspec

from bench.filling import fill_users, user_id
from bench.people import token
from bench.queries import ADDED
from bench.results import TIDINGS, Row, Target
from bench.sockets import Crowd, subscribed
from bench.world import World
from services.shared.clock import SystemClock
from services.shared.events import Event, OrderStatusChanged
from services.shared.loop import collect_rarely
from services.shared.rabbit import RabbitBus

USERS: Final = 1_000
RATE: Final = 500  # events a second
_DATABASE: Final = "latency"
_SECONDS: Final = 60
_AT_ONCE: Final = 5
_SETTLED: Final = 1.5


async def latency(world: World) -> Sequence[Row]:
    """Order updates at a steady rate, to users who look."""
    room = {"MAX_SOCKETS_PER_ADDRESS": 2 * USERS}
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(world.database(_DATABASE))
        await fill_users(database, USERS)
        gateway = await stack.enter_async_context(world.service("gateway", _DATABASE, **room))
        await stack.enter_async_context(world.service("notifications", _DATABASE))
        bus = RabbitBus(world.rabbitmq_url, SystemClock(), world.settings(_DATABASE))
        stack.push_async_callback(bus.close)
        crowd = await stack.enter_async_context(
            subscribed(
                gateway.port, [token(number) for number in range(USERS)], ADDED, {}, keeps=True
            )
        )
        await _followed(bus, crowd)
        world.progress(f"{RATE} events a second for {_SECONDS} s")
        times = await _measured(bus, crowd, RATE * _SECONDS)
    cuts = statistics.quantiles(times, n=1000)
    work = (
        f"{RATE} order events a second for {_SECONDS} s, {USERS:,} users who look: publish to next"
    )
    return [
        Row("latency", work, "ms, p99", {TIDINGS: [cuts[989]]}, [Target(None, most=50)]),
        Row("latency, p50", "the same", "ms", {TIDINGS: [cuts[499]]}),
        Row("latency, max", "the same", "ms", {TIDINGS: [max(times)]}),
    ]


async def _followed(bus: RabbitBus, crowd: Crowd) -> None:
    """Return when all hear of their orders; the worker's first batches are over by then."""
    for attempt in range(100):
        crowd.expect(USERS)
        await bus.publish([_moved(f"warm-{attempt}-{number}", number) for number in range(USERS)])
        try:
            await crowd.all_received(10)
        except TimeoutError:
            continue
        break
    await asyncio.sleep(_SETTLED)


async def _measured(bus: RabbitBus, crowd: Crowd, count: int) -> list[float]:
    """Milliseconds of each, from the moment at which it was due to be published."""
    rng = random.Random(7)
    due: dict[str, float] = {}
    crowd.expect(count)
    collect_rarely()  # it is not our own pauses that are measured
    begin = perf_counter()
    async with asyncio.TaskGroup() as publishing:
        for first in range(0, count, _AT_ONCE):
            at = begin + first / RATE
            await asyncio.sleep(max(0.0, at - perf_counter()))
            orders = [f"order-{number}" for number in range(first, first + _AT_ONCE)]
            due |= dict.fromkeys(orders, at)
            events = [_moved(order, rng.randrange(USERS)) for order in orders]
            publishing.create_task(bus.publish(events))
    await crowd.all_received()
    received = zip(map(_order, crowd.messages), crowd.times, strict=True)
    return [1000 * (at - due[order]) for order, at in received if order in due]


def _moved(order_id: str, number: int) -> Event:
    data = OrderStatusChanged(
        order_id=order_id, user_id=user_id(number), status="shipped", version=1
    )
    return Event.of(data, time=SystemClock().now(), source="urn:shop")


def _order(message: bytes) -> str:
    node = msgspec.json.decode(message)["payload"]["data"]["notificationAdded"]["node"]
    return str(node["content"]["orderId"])
