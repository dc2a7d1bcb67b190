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


class FairPool(Pool):
    """First come, first served, within the operation's time (pymongo.timeout, timeoutMS)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = asyncio.Semaphore(int(self.max_pool_size))

    async def _get_conn(self, checkout_started_time: float, handler: Any = None) -> AsyncConnection:
        try:
            async with asyncio.timeout(_csot.remaining()):
                await self._turns.acquire()
        except TimeoutError:
            self._raise_wait_queue_timeout(checkout_started_time)
        try:
            return await super()._get_conn(checkout_started_time, handler)
        except BaseException:
            self._turns.release()
            raise

    async def checkin(self, conn: AsyncConnection) -> None:
        try:
            await super().checkin(conn)
        finally:
            self._turns.release()
