"""How much waits on the broker, as it counts it itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from aiormq.abc import AbstractChannel

from services.shared.amqp import Connection, abandon, bounded
from services.shared.bus import Depths, QueueDepth
from services.shared.events import QUEUES
from services.shared.settings import Settings
from services.shared.topology import DEAD_LETTERS, queue_name, retry_queue_name


async def depths(connect: Callable[[], Awaitable[Connection]], settings: Settings) -> Depths:
    """Within RABBITMQ_TIMEOUT_SECONDS, on a connection of its own: the broker closes the channel
    of who asks for a queue that is not there. Raises what FAULTS lists."""
    async with bounded(settings.rabbitmq_timeout_seconds):
        connection = await connect()
        try:
            channel = await (await connection.channel()).get_underlay_channel()
            ask = partial(_ask, channel)
            queues = []
            for name in QUEUES:
                waiting, consumers = await ask(queue_name(name))
                retrying = 0
                for wait in settings.retry_waits:
                    retrying += (await ask(retry_queue_name(name, wait)))[0]
                queues.append(QueueDepth(name, waiting, retrying, consumers))
            letters, _ = await ask(DEAD_LETTERS)
        finally:
            abandon(connection)
    return Depths(queues, letters)


async def _ask(channel: AbstractChannel, queue: str) -> tuple[int, int]:
    """How many messages it has that wait, and how many consumers."""
    declared = await channel.queue_declare(queue, passive=True)
    return declared.message_count or 0, declared.consumer_count or 0
