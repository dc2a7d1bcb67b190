"""How much waits on the broker, as it counts it itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Final

from aio_pika.exceptions import AMQPChannelError

from services.shared.amqp import FAULTS, Connection, abandon, bounded, count
from services.shared.bus import Depths, QueueDepth
from services.shared.errors import Unavailable
from services.shared.events import QUEUES
from services.shared.settings import Settings
from services.shared.topology import DEAD_LETTERS, queue_name, retry_queue_name

_FRESH_SECONDS: Final = 1.0


class QueueDepths:
    """The broker is asked once a second at most, however many look: each time on a connection of
    its own, whose channel it closes on who asks for a queue that is not there."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        lay_out_again: Callable[[], None],
        settings: Settings,
    ) -> None:
        self._connect = connect
        self._lay_out_again = lay_out_again
        self._settings = settings
        self._asking: asyncio.Task[Depths] | None = None
        self._asked_at = 0.0

    async def latest(self) -> Depths:
        """Not older than a second, within RABBITMQ_TIMEOUT_SECONDS. Raises Unavailable."""
        asking = self._asking
        if asking is None or (asking.done() and not self._is_fresh(asking)):
            self._asked_at = monotonic()
            asking = self._asking = asyncio.create_task(self._ask_with_care())
        return await asyncio.shield(asking)

    def forget(self) -> None:
        """Something was changed here: who looks next is told of it."""
        self._asking = None

    def _is_fresh(self, asked: asyncio.Task[Depths]) -> bool:
        if asked.cancelled() or asked.exception():
            return False
        return monotonic() - self._asked_at < _FRESH_SECONDS

    async def _ask_with_care(self) -> Depths:
        try:
            async with bounded(self._settings.rabbitmq_timeout_seconds):
                try:
                    return await self._ask()
                except AMQPChannelError:  # one is not there: the next connection declares it
                    self._lay_out_again()
                    return await self._ask()
        except AMQPChannelError as error:
            raise Unavailable(f"RabbitMQ does not tell how much waits: {error!r}") from error
        except FAULTS as error:
            raise Unavailable(
                "RabbitMQ does not answer: what waits in its queues can't be counted until it does."
            ) from error

    async def _ask(self) -> Depths:
        connection = await self._connect()
        try:
            channel = await (await connection.channel()).get_underlay_channel()
            ask = partial(count, channel)
            queues = []
            for name in QUEUES:
                waiting, consumers = await ask(queue_name(name))
                retrying = 0
                for wait in self._settings.retry_waits:
                    retrying += (await ask(retry_queue_name(name, wait)))[0]
                queues.append(QueueDepth(name, waiting, retrying, consumers))
            letters, _ = await ask(DEAD_LETTERS)
        finally:
            abandon(connection)
        return Depths(queues, letters)
