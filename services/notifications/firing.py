"""Sending what was scheduled, when its time has come; any number of workers share that.

What is due is claimed for a while, so that no two have the same in hand; one that dies leaves its
rows to the others. A row ends and becomes its notification in one transaction, which names the row
as waiting: so it is sent once whoever tries, and never after a cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Any, Final

from beanie import PydanticObjectId
from pydantic import ValidationError

from services.notifications.announcing import Announcing
from services.notifications.scheduled import ScheduledNotification
from services.notifications.scheduling import ended
from services.notifications.wording import Texts
from services.shared.clock import Clock
from services.shared.content import json_size
from services.shared.errors import Unavailable
from services.shared.log import get_logger
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store, first_part, is_away
from services.shared.tasks import end_if_cancelled
from services.shared.vocabulary import ScheduledState
from services.shared.worker import when_back
from services.users.models import Activity, User

log = get_logger()
_PUT_OFF: Final = timedelta(minutes=1)


class Firing:
    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        announcing: Announcing,
        texts: Texts,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._announcing = announcing
        self._texts = texts
        self._clock = clock
        self._settings = settings

    async def keep_firing(self) -> None:
        """Send what is due until cancelled; waits while the database is away."""
        while True:
            found = await when_back(self.fire, "what was scheduled")
            end_if_cancelled()
            if not found:
                await asyncio.sleep(self._settings.scheduler_tick_seconds)

    async def fire(self) -> int:
        """Send what is due, or some of it; how many were found."""
        now = self._clock.now()
        due = ScheduledNotification.due(now, self._settings.fan_out_size)
        rows, _ = await first_part(due, _size)
        found = [one for row in rows if (one := await self._read(row))]
        if claimed := await self._claim(found, now):
            await self._send(claimed)
        return len(rows)

    async def _read(self, row: Row) -> ScheduledNotification | None:
        """None, and the row is put off, where another version wrote what we can't read."""
        try:
            read: ScheduledNotification = ScheduledNotification.model_validate(row)
        except ValidationError:
            log.error("scheduled_unreadable", id=str(row["_id"]))
            await self._put_off(row["_id"])
            return None
        return read

    async def _claim(
        self, found: Sequence[ScheduledNotification], now: datetime
    ) -> Sequence[ScheduledNotification]:
        """Those of them that nobody else has in hand for SCHEDULED_LEASE_SECONDS."""
        if not found:
            return []
        claim = PydanticObjectId()
        lease = timedelta(seconds=self._settings.scheduled_lease_seconds)
        these = {"_id": {"$in": [scheduled.id for scheduled in found]}}
        collection = ScheduledNotification.get_pymongo_collection()
        await collection.update_many(
            these | {"due_at": {"$lte": now}}, {"$set": {"due_at": now + lease, "claim": claim}}
        )
        claimed = {
            row["_id"] async for row in collection.find(these | {"claim": claim}, {"_id": 1})
        }
        return [scheduled for scheduled in found if scheduled.id in claimed]

    async def _send(self, claimed: Sequence[ScheduledNotification]) -> None:
        """In halves, where all at once fails: so what can't be sent holds up nothing else."""
        try:
            await self._transact(claimed)
        except Unavailable:  # the outbox is full: for half of them, too
            raise
        except Exception as error:
            if len(claimed) > 1:
                log.warning("fired_in_halves", rows=len(claimed), exc_info=error)
                half = len(claimed) // 2
                await self._send(claimed[:half])
                await self._send(claimed[half:])
            elif is_away(error):
                raise
            else:
                log.error("scheduled_put_off", id=str(claimed[0].id), exc_info=error)
                await self._put_off(claimed[0].id)

    async def _transact(self, claimed: Sequence[ScheduledNotification]) -> None:
        users = await User.by_ids({scheduled.user_id for scheduled in claimed})
        needless = await _bought(claimed)
        drafts = {
            one.id: one.draft(self._texts.words(users[one.user_id]))
            for one in claimed
            if one.user_id in users and one.id not in needless
        }

        async def write(session: Session) -> None:
            waiting = await _waiting(claimed, session)
            sent = [one for one in waiting if one.id in drafts]
            announced = await self._announcing.announce_within(
                session, [drafts[one.id] for one in sent], users
            )
            states = {one.id: ScheduledState.CANCELLED for one in waiting}
            for one, announcement in zip(sent, announced, strict=True):
                is_sent = announcement.notification is not None
                states[one.id] = ScheduledState.SENT if is_sent else ScheduledState.SUPPRESSED
            await self._end(states, session)

        await self._store.transact(write)
        self._outbox.wake()

    async def _end(
        self, states: Mapping[PydanticObjectId | None, ScheduledState], session: Session
    ) -> None:
        collection = ScheduledNotification.get_pymongo_collection()
        for state in set(states.values()):
            ids = [id for id, one in states.items() if one is state]
            change = {"$set": ended(state, self._clock.now(), self._settings)}
            await collection.update_many({"_id": {"$in": ids}}, change, session=session)

    async def _put_off(self, id: PydanticObjectId | None) -> None:
        later = {"due_at": self._clock.now() + _PUT_OFF}
        await ScheduledNotification.get_pymongo_collection().update_one(
            {"_id": id}, {"$set": later}
        )


def _size(row: Row) -> int:
    """Bytes that are written when it goes out, nearly: a text is its notification's body, too."""
    return json_size((row.get("title"), row.get("content"), row.get("content")))


async def _waiting(
    claimed: Sequence[ScheduledNotification], session: Session
) -> list[ScheduledNotification]:
    """Those of them that still wait; if one is cancelled before the commit, all begins anew."""
    these: dict[str, Any] = {
        "_id": {"$in": [scheduled.id for scheduled in claimed]},
        "state": ScheduledState.WAITING,
    }
    found = ScheduledNotification.get_pymongo_collection().find(these, {"_id": 1}, session=session)
    waiting = {row["_id"] async for row in found}
    return [scheduled for scheduled in claimed if scheduled.id in waiting]


async def _bought(claimed: Sequence[ScheduledNotification]) -> Set[PydanticObjectId | None]:
    """Those whose recipients have bought, since it was scheduled, what makes it needless."""
    asked = [
        (one, one.cancel_on.product_id)
        for one in claimed
        if one.cancel_on and one.cancel_on.product_id
    ]
    if not asked:
        return frozenset()
    purchases = await Activity.purchases_of(
        (one.user_id for one, _ in asked),
        (product_id for _, product_id in asked),
        min(one.created_at for one, _ in asked),
    )
    last: dict[tuple[str, str], datetime] = {}
    for deed in purchases:
        key = (deed.user_id, deed.product_id)
        last[key] = max(deed.at, last.get(key, deed.at))
    return {
        one.id
        for one, product_id in asked
        if (at := last.get((one.user_id, product_id))) and at >= one.created_at
    }
