"""A pool of connections that serves whoever came first.

PyMongo's own wakes the one that has waited longest, but whoever asks before that one runs goes
ahead, and it waits again, behind all others. Under load the tasks that were just answered always
ask before: some callers wait until their time is over, though a connection is free every moment.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pymongo import _csot
from pymongo.asynchronous.pool import AsyncConnection, Pool

from services.shared.connection import Connection


class FairPool(Pool):
    """First come, first served, within the operation's time (pymongo.timeout, timeoutMS)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = asyncio.Semaphore(int(self.max_pool_size))
        self._lent: set[AsyncConnection] = set()

    async def connect(self, handler: Any = None) -> AsyncConnection:
        connection = await super().connect(handler)
        if not self.is_sdam:
            connection.__class__ = Connection  # the pool can't be told to make any but its own
        return connection

    async def _get_conn(self, checkout_started_time: float, handler: Any = None) -> AsyncConnection:
        try:
            if self._turns.locked():
                async with asyncio.timeout(_csot.remaining()):
                    await self._turns.acquire()
            else:  # it is free, and nobody waits
                await self._turns.acquire()
        except TimeoutError:
            self._raise_wait_queue_timeout(checkout_started_time)
        try:
            connection = await super()._get_conn(checkout_started_time, handler)
        except BaseException:
            self._turns.release()
            raise
        self._lent.add(connection)
        if connection.cancel_context.cancelled:  # by a reset before it was lent
            _call_off(connection)
        return connection

    async def checkin(self, conn: AsyncConnection) -> None:
        self._lent.discard(conn)
        try:
            await super().checkin(conn)
        finally:
            self._turns.release()

    async def reset(self, service_id: Any = None, interrupt_connections: bool = False) -> None:
        """Forget all connections, and interrupt those that are in use: the server is gone."""
        await super().reset(service_id, interrupt_connections)
        if interrupt_connections:
            for connection in self._lent:
                _call_off(connection)


def _call_off(connection: AsyncConnection) -> None:
    if isinstance(connection, Connection):
        connection.call_off()
