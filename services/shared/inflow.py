"""What one queue delivers over one channel, and whether it still does.

A consumer may be lost without a word: a queue whose leader went, a link that swallows everything.
So when nothing has come for a heartbeat's time, the broker is asked about queue and consumer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from aio_pika.abc import AbstractChannel

from services.shared.amqp import Connection, bounded, count, on_break
from services.shared.frames import Received
from services.shared.settings import Settings
from services.shared.store import PART_BYTES


class Inflow:
    """Messages of `queue` as they come. What has come is void once its channel has broken."""

    def __init__(
        self, connection: Connection, channel: AbstractChannel, queue: str, settings: Settings
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._settings = settings
        self._messages: deque[Received] = deque()
        self._news = asyncio.Event()
        self._consumer: str | None = None
        self._underlay: object = None
        self.ended = False

    async def start(self, prefetch: int) -> None:
        """Consume, with up to `prefetch` messages in hand. Raises what FAULTS lists."""
        async with bounded(self._settings.rabbitmq_timeout_seconds):
            await on_break(self._channel, self.end)
            self._underlay = underlay = await self._channel.get_underlay_channel()
            self._connection.deliveries.take(underlay, self._arrive)
            await self._consume(prefetch)

    async def widen(self, prefetch: int) -> None:
        """The same from now on, with as many in hand as was said before. Raises as `start`."""
        assert self._consumer is not None
        async with bounded(self._settings.rabbitmq_timeout_seconds):
            underlay = await self._channel.get_underlay_channel()
            await underlay.basic_cancel(self._consumer)
            await self._consume(prefetch)

    def brought(self, message: Received) -> bool:
        """Whether it came here, and not before a break."""
        return message.channel is self._underlay

    def end(self) -> None:
        """It has broken: whoever takes from it is told."""
        self.ended = True
        self._messages.clear()
        self._news.set()

    async def take(self, size: int) -> Sequence[Received]:
        """What is there, at least one and at most `size`, or PART_BYTES. Raises what FAULTS lists
        when broken."""
        while not self._messages:
            if self.ended:
                raise ConnectionError(f"the consumer of {self._queue} has ended")
            self._news.clear()
            try:
                async with asyncio.timeout(self._settings.rabbitmq_heartbeat_seconds):
                    await self._news.wait()
            except TimeoutError:
                await self._verify()
        taken: list[Received] = []
        total = 0
        while self._messages and len(taken) < size and total < PART_BYTES:
            taken.append(self._messages.popleft())
            total += len(taken[-1].body)
        return taken

    async def _consume(self, prefetch: int) -> None:
        await self._channel.set_qos(prefetch_count=prefetch)
        underlay = await self._channel.get_underlay_channel()
        self._consumer = (await underlay.basic_consume(self._queue, _unheard)).consumer_tag

    def _arrive(self, message: Received) -> None:
        if not self.ended:
            self._messages.append(message)
            self._news.set()

    async def _verify(self) -> None:
        async with bounded(self._settings.rabbitmq_timeout_seconds):
            underlay = await self._channel.get_underlay_channel()
            found = await count(underlay, self._queue)
        if not found.consumers or (found.messages and not self._messages):
            raise ConnectionError(f"the broker has lost the consumer of {self._queue}")


async def _unheard(_: object) -> None:
    """What comes is taken before the library sees it."""
