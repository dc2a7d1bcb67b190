"""Finding the recipients of broadcasts, part by part; any number of workers share that.

One of them has a broadcast in hand at a time. What it has found and how far it has come are written
in one transaction, so that a part that is looked at twice is counted once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from services.notifications.audience import read
from services.notifications.broadcasting import end_if_over
from services.notifications.broadcasts import GOES_ON, Broadcast, Chunk
from services.notifications.membership import Find, members
from services.shared.clock import Clock
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store, is_away
from services.shared.tasks import end_if_cancelled
from services.shared.worker import when_back

log = get_logger()


class Recipients:
    def __init__(
        self, store: Store, clock: Clock, settings: Settings, find: Find = members
    ) -> None:
        self._store = store
        self._find_members = find
        self._clock = clock
        self._settings = settings
        self._lease = timedelta(seconds=settings.broadcast_lease_seconds)
        self._size = settings.fan_out_size

    async def keep_finding(self) -> None:
        """Find recipients until cancelled; waits while the database is away."""
        while True:
            found = await when_back(self.find, "broadcasts to be planned")
            end_if_cancelled()
            if not found:
                await asyncio.sleep(self._settings.scheduler_tick_seconds)

    async def find(self) -> int:
        """Find some recipients of each broadcast that has not all, and put away the chunks of those
        that were cancelled; how many broadcasts that helped on."""
        planned = [await self._plan(one) for one in await Broadcast.to_plan(self._clock.now())]
        put_away = [await self._put_away(one) for one in await Broadcast.to_put_away()]
        return sum(planned) + sum(put_away)

    async def _plan(self, broadcast: Broadcast) -> bool:
        """Find the next part, unless another worker does."""
        until = self._clock.now() + self._lease
        claimed = await Broadcast.get_pymongo_collection().update_one(
            {"_id": broadcast.id, "plan_at": broadcast.plan_at}, {"$set": {"plan_at": until}}
        )
        if not claimed.modified_count:
            return False
        try:
            await when_back(partial(self._find_part, broadcast, until), "a broadcast's recipients")
        except Exception as error:  # a fault of ours: somebody tries again when the lease is over
            log.error("broadcast_put_off", id=str(broadcast.id), exc_info=error)
            return False
        return True

    async def _find_part(self, broadcast: Broadcast, until: datetime) -> None:
        audience = read(broadcast.audience, "audience")
        started_at, zone = broadcast.started_at, self._settings.shop_timezone
        try:
            ids, upto = await self._find_members(
                audience, broadcast.checkpoint, self._size, started_at, zone
            )
        except Exception as error:
            if is_away(error):  # or it is too slow for so many at once
                self._size = max(1, self._size // 2)
            raise
        self._size = min(self._size * 2, self._settings.fan_out_size)
        await self._store.transact(partial(self._keep, broadcast, until, ids, upto))

    async def _keep(
        self,
        broadcast: Broadcast,
        until: datetime,
        ids: Sequence[str],
        upto: str | None,
        session: Session,
    ) -> None:
        """Keep what was found, unless it was cancelled, or another worker has found it."""
        now = self._clock.now()
        there = {"_id": broadcast.id, "plan_at": until, "state": {"$in": GOES_ON}}
        change: dict[str, Any] = {"$inc": {"total": len(ids)}}
        if upto is None:
            change["$unset"] = {"plan_at": ""}
        else:
            change["$set"] = {"plan_at": now, "checkpoint": upto}
        kept = await Broadcast.get_pymongo_collection().update_one(there, change, session=session)
        if not kept.modified_count:
            return
        if ids:
            chunks = self._chunks(broadcast, ids, now)
            await Chunk.get_pymongo_collection().insert_many(chunks, session=session)
        if upto is None:
            await end_if_over(broadcast.id, now, self._settings, session)

    def _chunks(self, broadcast: Broadcast, ids: Sequence[str], now: datetime) -> list[Row]:
        """Of a second's worth at most, where there is a rate."""
        most = self._settings.fan_out_size
        size = min(broadcast.per_second or most, most)
        return [
            {
                "broadcast_id": broadcast.id,
                "user_ids": ids[start : start + size],
                "due_at": now,
                "in_hand": False,
                "tries": 0,
            }
            for start in range(0, len(ids), size)
        ]

    async def _put_away(self, broadcast: Broadcast) -> bool:
        """Delete some chunks of a cancelled one; it is closed when nobody has one in hand."""
        collection = Chunk.get_pymongo_collection()
        if ids := await Chunk.free(broadcast.id, self._settings.fan_out_size):
            await collection.delete_many({"_id": {"$in": ids}, "in_hand": False})
        elif not await Chunk.any_of(broadcast.id):
            await Broadcast.get_pymongo_collection().update_one(
                {"_id": broadcast.id}, {"$set": {"is_open": False}}
            )
        return bool(ids)
