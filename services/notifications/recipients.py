"""Finding the recipients of broadcasts, part by part; any number of workers share that.

One of them has a broadcast in hand at a time. What it has found and how far it has come are written
in one transaction, so that a part that is looked at twice is counted once. A part that the database
is too slow for is put off and halved: an audience that can't be found holds up no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from beanie import PydanticObjectId

from services.notifications.audience import read
from services.notifications.broadcasting import SOON, end_if_over, readable
from services.notifications.broadcasts import GOES_ON, UNTOUCHED, Broadcast, Chunk, event_of
from services.notifications.membership import Find, Search, members
from services.notifications.tallies import tally_of_served
from services.shared.clock import Clock
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store, is_away
from services.shared.worker import keep_doing, when_back

log = get_logger()

_SEARCHES: Final = 5  # that are kept, with the products of their categories


class Recipients:
    def __init__(
        self, store: Store, clock: Clock, settings: Settings, find: Find = members
    ) -> None:
        self._store = store
        self._find_members = find
        self._clock = clock
        self._settings = settings
        self._lease = timedelta(seconds=settings.broadcast_lease_seconds)
        self._searches: dict[PydanticObjectId | None, Search] = {}

    async def keep_finding(self) -> None:
        """Find recipients until cancelled; waits while the database is away."""
        await keep_doing(
            self.find, "broadcasts to be planned", self._settings.scheduler_tick_seconds
        )

    async def find(self) -> int:
        """Find some recipients of each broadcast that has not all, and put away the chunks of those
        that were cancelled; how many broadcasts that helped on."""
        planned = [await self._plan(row) for row in await Broadcast.to_plan(self._clock.now())]
        put_away = [await self._put_away(id) for id in await Broadcast.to_put_away()]
        return sum(planned) + sum(put_away)

    async def _plan(self, row: Row) -> bool:
        """Find the next part, unless another worker does."""
        now = self._clock.now()
        broadcast = await readable(Broadcast, row, "plan_at", now)
        if broadcast is None:
            return False
        until = now + self._lease
        as_found = {"plan_at": broadcast.plan_at, "checkpoint": broadcast.checkpoint}
        claimed = await Broadcast.get_pymongo_collection().update_one(
            {"_id": broadcast.id, **as_found}, {"$set": {"plan_at": until}}
        )
        if not claimed.modified_count:
            return False
        size = min(broadcast.plan_size or self._settings.fan_out_size, self._settings.fan_out_size)
        try:
            await self._find_part(broadcast, size, until)
        except Exception as error:
            if is_away(error):  # or it is too slow for so many at once
                log.warning("broadcast_in_halves", id=str(broadcast.id), error=repr(error))
                put_off = partial(self._put_off, broadcast, max(1, size // 2), until)
                await when_back(put_off, "a broadcast to be put off")
            else:  # a fault of ours: somebody tries again when the lease is over
                log.error("broadcast_put_off", id=str(broadcast.id), exc_info=error)
            return False
        return True

    async def _find_part(self, broadcast: Broadcast, size: int, until: datetime) -> None:
        search = await self._search(broadcast)
        ids, upto = await self._find_members(search, broadcast.checkpoint, size)
        more = min(size * 2, self._settings.fan_out_size)
        await self._store.transact(partial(self._keep, broadcast, until, ids, upto, more))

    async def _search(self, broadcast: Broadcast) -> Search:
        search = self._searches.pop(broadcast.id, None)
        if search is None:
            audience = read(broadcast.audience, "audience")
            search = await Search.of(audience, broadcast.started_at, self._settings, "audience")
        self._searches[broadcast.id] = search
        if len(self._searches) > _SEARCHES:
            del self._searches[next(iter(self._searches))]
        return search

    async def _put_off(self, broadcast: Broadcast, size: int, until: datetime) -> None:
        """So that others come first; unless another worker has it in hand by now."""
        change = {"plan_at": self._clock.now() + SOON, "plan_size": size}
        await Broadcast.get_pymongo_collection().update_one(
            {"_id": broadcast.id, "plan_at": until}, {"$set": change}
        )

    async def _keep(
        self,
        broadcast: Broadcast,
        until: datetime,
        ids: Sequence[str],
        upto: str | None,
        size: int,
        session: Session,
    ) -> None:
        """Keep what was found, unless it was cancelled, or another worker has found it."""
        now = self._clock.now()
        there = {"_id": broadcast.id, "plan_at": until, "state": {"$in": GOES_ON}}
        change: dict[str, Any] = {"$inc": {"total": len(ids)}}
        if upto is None:
            change["$unset"] = {"plan_at": ""}
        else:
            change["$set"] = {"plan_at": now, "plan_size": size, "checkpoint": upto}
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
                "begun": False,
                "tries": 0,
            }
            for start in range(0, len(ids), size)
        ]

    async def _put_away(self, id: PydanticObjectId) -> bool:
        """Delete some chunks of a cancelled broadcast, those that were begun when it is counted who
        has it; it is closed when there are none. Whether there were any to delete."""
        collection = Chunk.get_pymongo_collection()
        if ids := await Chunk.untouched(id, self._settings.fan_out_size):
            await collection.delete_many({"_id": {"$in": ids}, **UNTOUCHED})
            return True
        if chunk := await Chunk.begun_of(id, self._clock.now()):
            await self._store.transact(partial(self._count_served, id, chunk))
            return True
        if not await Chunk.any_of(id):
            await Broadcast.get_pymongo_collection().update_one(
                {"_id": id}, {"$set": {"is_open": False}}
            )
        return False

    async def _count_served(self, id: PydanticObjectId, chunk: Row, session: Session) -> None:
        """Unless another worker has."""
        removed = await Chunk.get_pymongo_collection().delete_one(
            {"_id": chunk["_id"]}, session=session
        )
        served = await tally_of_served([(user_id, event_of(id)) for user_id in chunk["user_ids"]])
        if removed.deleted_count and served:
            await Broadcast.get_pymongo_collection().update_one(
                {"_id": id}, {"$inc": dict(served)}, session=session
            )
