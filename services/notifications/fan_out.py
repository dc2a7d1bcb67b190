"""Sending broadcasts, chunk by chunk; any number of workers share that.

A chunk is handed out in a transaction that names its broadcast as running, so none is once a pause
or a cancel is answered. Whoever was served before is not served again, so a chunk may be done
twice: it is counted once, in the transaction that removes it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from services.notifications.announcing import Announcing
from services.notifications.broadcasting import end_if_over
from services.notifications.broadcasts import Broadcast, Chunk
from services.notifications.wording import Texts
from services.shared.clock import Clock
from services.shared.errors import Unavailable
from services.shared.failpoints import Failpoint, reach
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Session, Store, is_away
from services.shared.tasks import end_if_cancelled, let_others_run
from services.shared.vocabulary import BroadcastState, Outcome
from services.shared.worker import when_back
from services.users.models import User

log = get_logger()

Tally = Counter[str]  # of a broadcast's counters

MOST_TRIES: Final = 3
_PUT_OFF: Final = timedelta(minutes=1)
_COUNTED: Final = {
    Outcome.SENT: "sent",
    Outcome.DUPLICATE: "sent",  # it was, when the chunk was first done
    Outcome.HELD: "held",
    Outcome.SUPPRESSED: "suppressed",
    Outcome.SUPERSEDED: "suppressed",
}


class FanOut:
    def __init__(
        self,
        store: Store,
        announcing: Announcing,
        texts: Texts,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._announcing = announcing
        self._texts = texts
        self._clock = clock
        self._settings = settings
        self._lease = timedelta(seconds=settings.broadcast_lease_seconds)
        self._tick = timedelta(seconds=settings.scheduler_tick_seconds)

    async def keep_sending(self) -> None:
        """Send chunks until cancelled; waits while the database is away."""
        while True:
            sent = await when_back(self.send, "broadcasts to be sent")
            end_if_cancelled()
            if not sent:
                await asyncio.sleep(self._settings.scheduler_tick_seconds)

    async def send(self) -> int:
        """Serve a chunk that was left behind, and one of each broadcast that may go on; how many
        that were."""
        served = 0
        if chunk := await self._take_over():
            served += await self._serve(chunk)
        for broadcast in await Broadcast.to_send(self._clock.now()):
            if chunk := await self._store.transact(partial(self._hand_out, broadcast)):
                served += await self._serve(chunk)
        return served

    async def _take_over(self) -> Chunk | None:
        """A chunk whose worker has not done it in its time, be its broadcast paused or cancelled:
        some may have been served, and are not yet counted."""
        now = self._clock.now()
        chunk = await Chunk.left_behind(now)
        return await self._claim(chunk, now) if chunk else None

    async def _hand_out(self, broadcast: Broadcast, session: Session) -> Chunk | None:
        """The broadcast's next chunk, if it may go on and none was handed out meanwhile."""
        now = self._clock.now()
        chunk = await Chunk.next_of(broadcast.id, now, session)
        if chunk is None:
            return None
        as_found = {"state": BroadcastState.RUNNING.value, "send_at": broadcast.send_at}
        # The count rises, since a write that changes nothing meets no pause.
        change = {
            "$set": {"send_at": self._next_at(broadcast, len(chunk.user_ids), now)},
            "$inc": {"handed_out": 1},
        }
        changed = await Broadcast.get_pymongo_collection().update_one(
            {"_id": broadcast.id, **as_found}, change, session=session
        )
        return await self._claim(chunk, now, session) if changed.modified_count else None

    async def _claim(
        self, chunk: Chunk, now: datetime, session: Session | None = None
    ) -> Chunk | None:
        """The chunk in hand for BROADCAST_LEASE_SECONDS, if it is as it was found."""
        claimed = await Chunk.get_pymongo_collection().update_one(
            {"_id": chunk.id, "due_at": chunk.due_at},
            {"$set": {"in_hand": True, "due_at": now + self._lease}},
            session=session,
        )
        return chunk if claimed.modified_count else None

    def _next_at(self, broadcast: Broadcast, count: int, now: datetime) -> datetime:
        """When the next chunk may be handed out after one of so many: so that the rate holds, also
        where workers look a tick late."""
        if broadcast.per_second is None:
            return broadcast.send_at
        start = max(broadcast.send_at, now - self._tick)
        return start + timedelta(seconds=count / broadcast.per_second)

    async def _serve(self, chunk: Chunk) -> bool:
        """Serve it, as long as that takes; whoever is found with it in hand later is as good."""
        broadcast = await Broadcast.get(chunk.broadcast_id)
        if broadcast is None:  # forgotten
            await chunk.delete()
            return True
        tally, unserved = await when_back(
            partial(self._announce_or_halve, broadcast, chunk.user_ids), "a broadcast's chunk"
        )
        reach(Failpoint.IN_FAN_OUT)
        await when_back(
            lambda: self._store.transact(partial(self._count, chunk, tally, unserved)),
            "a broadcast's counters",
        )
        return True

    async def _announce_or_halve(
        self, broadcast: Broadcast, user_ids: Sequence[str]
    ) -> tuple[Tally, list[str]]:
        """What became of them, and who can't be served: they hold up nobody else."""
        try:
            return await self._announce(broadcast, user_ids), []
        except Unavailable:  # the broker is away: for half of them, too
            raise
        except Exception as error:
            if len(user_ids) > 1:
                log.warning("broadcast_in_halves", users=len(user_ids), error=repr(error))
                half = len(user_ids) // 2
                tally, unserved = await self._announce_or_halve(broadcast, user_ids[:half])
                others, more = await self._announce_or_halve(broadcast, user_ids[half:])
                return tally + others, unserved + more
            if is_away(error):
                raise
            log.error("broadcast_unserved", id=str(broadcast.id), user=user_ids[0], exc_info=error)
            return Counter(), list(user_ids)

    async def _announce(self, broadcast: Broadcast, user_ids: Sequence[str]) -> Tally:
        """Whoever is gone or disabled by now counts as suppressed."""
        users = await User.by_ids(user_ids)
        there = [id for id in user_ids if id in users and users[id].disabled_at is None]
        drafts = []
        for id in there:
            drafts.append(broadcast.draft(id, self._texts.words(users[id])))
            await let_others_run(len(drafts))
        announced = await self._announcing.announce(drafts, users)
        tally = Counter(_COUNTED[one.decision.outcome] for one in announced)
        tally["suppressed"] += len(user_ids) - len(there)
        return tally

    async def _count(
        self, chunk: Chunk, tally: Tally, unserved: Sequence[str], session: Session
    ) -> None:
        """Remove the chunk, and count it, unless another worker has."""
        collection, now = Chunk.get_pymongo_collection(), self._clock.now()
        removed = await collection.delete_one({"_id": chunk.id}, session=session)
        if not removed.deleted_count:
            return
        counted: dict[str, Any] = dict(tally)
        if unserved and chunk.tries + 1 < MOST_TRIES:
            again = {
                "broadcast_id": chunk.broadcast_id,
                "user_ids": unserved,
                "due_at": now + _PUT_OFF,
                "in_hand": False,
                "tries": chunk.tries + 1,
            }
            await collection.insert_one(again, session=session)
        elif unserved:
            counted["failed"] = len(unserved)
        if counted:
            await Broadcast.get_pymongo_collection().update_one(
                {"_id": chunk.broadcast_id}, {"$inc": counted}, session=session
            )
        await end_if_over(chunk.broadcast_id, now, self._settings, session)
