"""A gateway's connection to the live events of those users that somebody there looks at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from uuid import uuid4

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue

from services.shared.amqp import FAULTS, close, on_break
from services.shared.clock import Clock
from services.shared.events import Event, Malformed, decode
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.topology import LIVE

log = get_logger()

_RECONNECT_SECONDS: Final = 0.5


class LiveConnection:
    """Live events of the watched users: an exclusive queue, bound user by user."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AbstractConnection]],
        on_event: Callable[[Event], None],
        on_gap: Callable[[], None],
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._connect = connect
        self._on_event = on_event
        self._on_gap = on_gap
        self._clock = clock
        self._settings = settings
        self._watched: set[str] = set()
        self._queue: AbstractQueue | None = None

    async def watch(self, user_id: str) -> None:
        self._watched.add(user_id)
        if self._queue is not None:
            with suppress(*FAULTS):
                await self._queue.bind(LIVE, user_id)

    async def unwatch(self, user_id: str) -> None:
        self._watched.discard(user_id)
        if self._queue is not None:
            with suppress(*FAULTS):
                await self._queue.unbind(LIVE, user_id)

    async def follow(self) -> None:
        """Listen until cancelled; after every break, bind anew and tell of the gap."""
        while True:
            try:
                connection = await self._connect()
            except FAULTS as error:
                log.warning("live_feed_waits", error=repr(error))
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            try:
                await self._listen(connection)
            except FAULTS as error:
                log.warning("live_feed_broke", error=repr(error))
            finally:
                self._queue = None
                await close(connection)

    async def _listen(self, connection: AbstractConnection) -> None:
        broken = asyncio.Event()
        channel = await connection.channel(publisher_confirms=False)
        await on_break(channel, broken.set)
        queue = await channel.declare_queue(
            f"tidings.gateway.{uuid4().hex}",
            exclusive=True,
            auto_delete=True,
            arguments={"x-max-length": self._settings.live_queue_length},
        )
        self._queue = queue
        for user_id in tuple(self._watched):
            await queue.bind(LIVE, user_id)
        await queue.consume(self._hear, no_ack=True)
        self._on_gap()
        await broken.wait()

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        try:
            event = decode(message.body, received=self._clock.now(), checked=True)
        except Malformed as error:
            log.warning("live_event_refused", error=str(error))
        else:
            self._on_event(event)
