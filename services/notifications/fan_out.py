"""Sending broadcasts, chunk by chunk; any number of workers share that.

A chunk is handed out in a transaction that names its broadcast as running, so none is once a pause
or a cancel is answered; one that its worker has not done is handed out anew in the same way.
Whoever was served before is not served again, so a chunk may be done twice: it is counted once, in
the transaction that removes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from services.notifications.announcing import Announcing
from services.notifications.broadcasting import PUT_OFF, SOON, end_if_over, readable
from services.notifications.broadcasts import Broadcast, Chunk
from services.notifications.tallies import Tally, tally_of
from services.notifications.wording import Texts
from services.shared.bus import PartlyPublished
from services.shared.clock import Clock
from services.shared.errors import Unavailable
from services.shared.failpoints import Failpoint, reach
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Session, Store
from services.shared.vocabulary import BroadcastState
from services.shared.worker import is_passing, keep_doing, when_back
from services.users.recipients import Customer, Recipient

log = get_logger()

Faults = dict[str, Exception]  # by the ids of those who could not be served for them

MOST_TRIES: Final = 3


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
        await keep_doing(self.send, "broadcasts to be sent", self._settings.scheduler_tick_seconds)

    async def send(self) -> int:
        """Serve a chunk of each broadcast that may go on; how many that were."""
        await self._take_back()
        served = 0
        for row in await Broadcast.to_send(self._clock.now()):
            broadcast = await readable(Broadcast, row, "send_at", self._clock.now())
            if broadcast is None:
                continue
            if chunk := await self._store.transact(partial(self._hand_out, broadcast)):
                served += await self._serve(broadcast, chunk)
        return served

    async def _take_back(self) -> None:
        """Let chunks be handed out anew whose workers have not done them in their time: if and when
        their broadcasts may go on."""
        await Chunk.get_pymongo_collection().update_many(
            {"in_hand": True, "due_at": {"$lte": self._clock.now()}}, {"$set": {"in_hand": False}}
        )

    async def _hand_out(self, broadcast: Broadcast, session: Session) -> Chunk | None:
        """The broadcast's next chunk, in hand for BROADCAST_LEASE_SECONDS; if it may go on and none
        was handed out meanwhile."""
        now = self._clock.now()
        row = await Chunk.next_of(broadcast.id, now, session)
        chunk = await readable(Chunk, row, "due_at", now, session) if row else None
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
        return (
            await self._claim(chunk, now + self._lease, session) if changed.modified_count else None
        )

    async def _claim(self, chunk: Chunk, until: datetime, session: Session) -> Chunk | None:
        """If it is as it was found."""
        claimed = await Chunk.get_pymongo_collection().update_one(
            {"_id": chunk.id, "due_at": chunk.due_at},
            {"$set": {"in_hand": True, "begun": True, "due_at": until}},
            session=session,
        )
        return chunk.model_copy(update={"due_at": until}) if claimed.modified_count else None

    def _next_at(self, broadcast: Broadcast, count: int, now: datetime) -> datetime:
        """When the next chunk may be handed out after one of so many: so that the rate holds, also
        where workers look a tick late."""
        if broadcast.per_second is None:
            return broadcast.send_at
        start = max(broadcast.send_at, now - self._tick)
        return start + timedelta(seconds=count / broadcast.per_second)

    async def _serve(self, broadcast: Broadcast, chunk: Chunk) -> bool:
        """Serve it and count it; or give it back, where the database or the broker is away, or too
        slow for it: then others come first."""
        try:
            tally, unserved = await self._announce_or_halve(broadcast, chunk.user_ids)
            reach(Failpoint.IN_FAN_OUT)
            await self._store.transact(partial(self._count, chunk, tally, [*unserved]))
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("broadcast_chunk_put_off", id=str(broadcast.id), error=repr(error))
            await when_back(partial(self._give_back, chunk), "a broadcast's chunk")
            return False
        if unserved:
            users, [*_, last] = [*unserved], unserved.values()
            log.error("broadcast_unserved", id=str(broadcast.id), users=users, exc_info=last)
        return True

    async def _give_back(self, chunk: Chunk) -> None:
        """Unless another worker has it by now."""
        change = {"in_hand": False, "due_at": self._clock.now() + SOON}
        await Chunk.get_pymongo_collection().update_one(
            {"_id": chunk.id, "due_at": chunk.due_at}, {"$set": change}
        )

    async def _announce_or_halve(
        self, broadcast: Broadcast, user_ids: Sequence[str]
    ) -> tuple[Tally, Faults]:
        """What became of them, and who can't be served: they hold up nobody else."""
        try:
            return await self._announce(broadcast, user_ids), {}
        except Exception as error:
            if isinstance(error, Unavailable) and not isinstance(error, PartlyPublished):
                raise  # the broker is away: for half of them, too
            if len(user_ids) > 1:
                log.warning("broadcast_in_halves", users=len(user_ids), error=repr(error))
                half = len(user_ids) // 2
                tally, faults = await self._announce_or_halve(broadcast, user_ids[:half])
                others, more = await self._announce_or_halve(broadcast, user_ids[half:])
                return tally + others, faults | more
            if is_passing(error):
                raise
            return Counter(), {user_ids[0]: error}

    async def _announce(self, broadcast: Broadcast, user_ids: Sequence[str]) -> Tally:
        """With their preferences when the drafts are made, which takes a while. Whoever is gone or
        disabled by then counts as suppressed."""
        drafts = await broadcast.offer.drafts(await Customer.by_ids(user_ids), self._texts)
        users = await Recipient.by_ids([draft.user_id for draft in drafts])
        there = {id for id, user in users.items() if not user.is_disabled}
        drafts = [draft for draft in drafts if draft.user_id in there]
        announced = await self._announcing.announce(drafts, users)
        tally = await tally_of(drafts, announced)
        tally["suppressed"] += len(user_ids) - len(drafts)
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
                "due_at": now + PUT_OFF,
                "in_hand": False,
                "begun": True,
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
