"""Sending what was scheduled, when its time has come.

A row ends and becomes its notification in one transaction, which names the row as waiting: so it is
sent once whoever tries, and never after a cancel.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

from beanie import PydanticObjectId

from services.notifications.announcing import Announcing
from services.notifications.drafts import Announcement
from services.notifications.due import Due
from services.notifications.scheduled import ScheduledNotification
from services.notifications.scheduling import ended
from services.notifications.wording import Texts
from services.shared.clock import Clock
from services.shared.content import json_size
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store
from services.shared.vocabulary import Channel, ScheduledState
from services.users.models import Activity, User


class Firing(Due[ScheduledNotification]):
    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        announcing: Announcing,
        texts: Texts,
        clock: Clock,
        settings: Settings,
    ) -> None:
        read = ScheduledNotification.model_validate
        super().__init__("scheduled", ScheduledNotification, read, clock, settings)
        self._store = store
        self._outbox = outbox
        self._announcing = announcing
        self._texts = texts

    def _due(self, now: datetime) -> AsyncIterable[Row]:
        return ScheduledNotification.due(now, self._settings.fan_out_size)

    def _size(self, row: Row) -> int:
        """On each channel; a text is its notification's body, too."""
        written = json_size((row.get("title"), row.get("content"), row.get("content")))
        return written * len(Channel)

    async def _transact(self, claimed: Sequence[ScheduledNotification]) -> None:
        users = await User.by_ids({scheduled.user_id for scheduled in claimed})
        needless = await _bought(claimed)
        drafts = {
            one.id: one.draft(self._texts.words(users[one.user_id]))
            for one in claimed
            if one.user_id in users and one.id not in needless
        }

        async def write(session: Session) -> Sequence[Announcement]:
            waiting = await _waiting(claimed, session)
            sent = [one for one in waiting if one.id in drafts]
            announced = await self._announcing.announce_within(
                session, [drafts[one.id] for one in sent], users
            )
            states = {one.id: ScheduledState.CANCELLED for one in waiting}
            for one, announcement in zip(sent, announced, strict=True):
                goes_out = announcement.goes_out
                states[one.id] = ScheduledState.SENT if goes_out else ScheduledState.SUPPRESSED
            await self._end(states, session)
            return announced

        announced = await self._store.transact(write)
        self._outbox.wake()
        self._announcing.count(announced)

    async def _end(
        self, states: Mapping[PydanticObjectId | None, ScheduledState], session: Session
    ) -> None:
        collection = ScheduledNotification.get_pymongo_collection()
        for state in set(states.values()):
            ids = [id for id, one in states.items() if one is state]
            change = {"$set": ended(state, self._clock.now(), self._settings)}
            await collection.update_many({"_id": {"$in": ids}}, change, session=session)


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
