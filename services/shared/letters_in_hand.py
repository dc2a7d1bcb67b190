"""What one command has in hand of the dead letters: taken by the hundred, and given back in whole.

A consumer brings them, as many as are asked for: one question for each letter would take a queue
of thousands longer than a query has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final, TypeVar

from aiormq.abc import AbstractChannel

from services.shared.amqp import FAULTS, Connection, bounded, count
from services.shared.frames import Received
from services.shared.settings import Settings
from services.shared.topology import DEAD_LETTERS

T = TypeVar("T")
_SETTLING_SECONDS: Final = 0.02
_QUIET_SECONDS: Final = 1.0


class Hand:
    """All of these raise what FAULTS lists."""

    def __init__(
        self, connection: Connection, channel: AbstractChannel, settings: Settings
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._seconds = settings.rabbitmq_timeout_seconds
        self._arrived = 0
        self._acked = 0
        self._consumers = 0
        self._news = asyncio.Event()
        self._sift: Callable[[Received], None] = _let_go
        connection.deliveries.take(channel, self._arrive)

    async def batches(
        self, sift: Callable[[Received], T | None], at_once: int
    ) -> AsyncIterator[list[tuple[int, T]]]:
        """Go through those that lie there now, so many at once. `sift` sees each as it comes, and
        says what is kept of it: that is handed out, with what `ack` calls it by."""
        kept: list[tuple[int, T]] = []

        def see(message: Received) -> None:
            if (found := sift(message)) is not None:
                kept.append((message.tag, found))

        self._sift = see
        left = await self._waiting()  # not those that die again meanwhile
        while left > 0:
            before = self._arrived
            await self._take(min(left, at_once))
            if self._arrived == before:
                return
            left -= self._arrived - before
            batch = kept.copy()
            kept.clear()
            yield batch

    async def ack(self, tag: int, count: int = 1) -> None:
        """Delete it; returns when the broker has read that. `count`: with all that are in hand
        before it, so many in all.

        Of acks one by one a quorum queue's channel keeps those back that are more than 32 ahead of
        the queue, and forgets them when it closes.
        """
        async with bounded(self._seconds):
            await self._channel.basic_ack(tag, multiple=count > 1)
            self._acked += count
            await self._waiting()

    async def give_back(self) -> None:
        """All that is left; returns when it is there for the next who looks.

        The broker puts back in order what a channel leaves that closes, consumer by consumer in
        the order of their names; what is nacked it mixes up (3.10, from 33 on).
        """
        left = self._arrived - self._acked
        if not left:
            return
        async with bounded(self._seconds):
            await self._channel.close()
            self._channel = await (await self._connection.channel()).get_underlay_channel()
            while await self._waiting() < left:  # noqa: ASYNC110 - it is the broker's
                await asyncio.sleep(_SETTLING_SECONDS)

    async def _take(self, count: int) -> None:
        """So many, or as many as nobody else has in hand."""
        wanted, name = self._arrived + count, f"letters-{self._consumers:02}"
        self._consumers += 1
        async with bounded(self._seconds):
            await self._channel.basic_qos(prefetch_count=count)
            await self._channel.basic_consume(DEAD_LETTERS, _unheard, consumer_tag=name)
        try:
            while self._arrived < wanted and await self._has_come():
                pass
        finally:
            with suppress(*FAULTS):
                async with bounded(self._seconds):
                    await self._channel.basic_cancel(name)

    async def _has_come(self) -> bool:
        """Wait for the next; if it is long in coming, ask whether there is one. What another node
        hands out may still be on its way when the broker says that none waits."""
        self._news.clear()
        async with bounded(self._seconds + _QUIET_SECONDS):
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_QUIET_SECONDS):
                        return await self._news.wait()
                if not await self._waiting():
                    return self._news.is_set()

    async def _waiting(self) -> int:
        async with bounded(self._seconds):
            return (await count(self._channel, DEAD_LETTERS)).messages

    def _arrive(self, message: Received) -> None:
        self._arrived += 1
        self._sift(message)
        self._news.set()


def _let_go(_: Received) -> None:
    return


async def _unheard(_: object) -> None:
    """What comes is taken before the library sees it."""
