"""What a user does with notifications: they are seen, read, archived and snoozed.

All of the user's open screens are told of each change, and what sleeps comes back by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple, TypeVar

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import PyMongoError

from services.notifications.collapse import later
from services.notifications.cursor import Cursor, Position, Progress
from services.notifications.models import Notification, size_of
from services.notifications.queries import alive, asleep
from services.notifications.shown import COLUMNS, Shown
from services.shared.clock import Clock, whole_milliseconds
from services.shared.errors import BadInput, NotFound
from services.shared.events import Data, Event, NotificationChanged
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store, first_part, is_away
from services.shared.tasks import end_if_cancelled
from services.shared.vocabulary import ChangeKind
from services.shared.worker import keep_doing

T = TypeVar("T")
_NONE: Final = "There is no such notification."
_Behind = Callable[[str, Position, int, datetime], Awaitable[Sequence[Position]]]


class _Change(NamedTuple):
    """What is set in those that are as they `was`."""

    kind: ChangeKind
    was: Row
    becomes: Row


class States:
    def __init__(self, store: Store, outbox: Outbox, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._settings = settings
        self._wakes_at_once = settings.fan_out_size

    async def set_read(
        self, user_id: str, id: str, read: bool, revision: int | None = None
    ) -> Shown:
        """Mark one as read or unread; marking again changes nothing. `revision`: only while it
        shows this one. Raises NotFound."""
        unread = _Change(ChangeKind.UNREAD, {"read": True}, {"read": False, "read_at": None})
        return await self._change(user_id, id, self._reading() if read else unread, revision)

    async def set_archived(
        self, user_id: str, id: str, archived: bool, revision: int | None = None
    ) -> Shown:
        """Archive one or take it back, in the same way. Raises NotFound."""
        kind = ChangeKind.ARCHIVED if archived else ChangeKind.UNARCHIVED
        becomes = {"archived": archived, "seen": True, "snoozed_until": None}
        change = _Change(kind, {"archived": not archived}, becomes)
        return await self._change(user_id, id, change, revision)

    async def snooze(self, user_id: str, id: str, until: datetime | None) -> Shown:
        """Put one away until then, or take it back. Raises BadInput and NotFound."""
        change = _Change(ChangeKind.UNSNOOZED, asleep(), {"snoozed_until": None})
        if until is not None:
            until = self._checked(until)
            change = _Change(
                ChangeKind.SNOOZED,
                {"snoozed_until": {"$ne": until}},
                {"snoozed_until": until, "seen": True, "archived": False},
            )
        return await self._change(user_id, id, change)

    async def mark_all_read(self, user_id: str, up_to: Cursor | None) -> int:
        """Mark all as read that were shown at this cursor, or all; how many were unread."""
        return await self._mark_all(user_id, up_to, Notification.unread_behind, self._reading())

    async def mark_all_seen(self, user_id: str, up_to: Cursor | None) -> int:
        """The same with what was not seen yet."""
        seeing = _Change(ChangeKind.SEEN, {"seen": False}, {"seen": True})
        return await self._mark_all(user_id, up_to, Notification.unseen_behind, seeing)

    async def keep_waking(self) -> None:
        """Bring back what sleeps, at its time, until cancelled; waits while the database is
        away."""
        await keep_doing(self.wake, "what is snoozed", self._settings.scheduler_tick_seconds)

    async def wake(self) -> int:
        """Bring back what has slept long enough, or some of it; how many that were.

        It comes back as if it were new: at the top, unread and unseen.
        """
        now = self._clock.now()
        if not await Notification.any_due(now):
            return 0
        try:
            woken = await self._commit(partial(self._wake, now))
        except PyMongoError as error:
            if is_away(error):  # or too slow for so many at once
                self._wakes_at_once = max(1, self._wakes_at_once // 2)
            raise
        self._wakes_at_once = min(2 * self._wakes_at_once, self._settings.fan_out_size)
        return woken

    async def _wake(self, now: datetime, session: Session) -> int:
        rows, _ = await first_part(Notification.due(now, self._wakes_at_once, session), size_of)
        changes = [_awake(row, now) for row in rows]
        if rows:
            writes = [
                UpdateOne({"_id": row["_id"], "user_id": row["user_id"]}, {"$set": change})
                for row, change in zip(rows, changes, strict=True)
            ]
            await Notification.get_pymongo_collection().bulk_write(
                writes, ordered=False, session=session
            )
            awake = [row | change for row, change in zip(rows, changes, strict=True)]
            await self._tell(map(Notification.model_validate, awake), session)
        return len(rows)

    async def _tell(self, rows: Iterable[Notification], session: Session) -> None:
        events: list[Data] = []
        for row in rows:
            changed = NotificationChanged(
                user_id=row.user_id, kind=ChangeKind.UNSNOOZED, notification_ids=(str(row.id),)
            )
            events += [row.created(), changed]
        now = self._clock.now()
        await self._outbox.put([Event.of(event, time=now) for event in events], session)

    async def _mark_all(
        self, user_id: str, up_to: Cursor | None, behind: _Behind, change: _Change
    ) -> int:
        """`behind`: asks for the places of the next ones that are still to be changed.

        What comes after it began is left, so that it ends.
        """
        shown = Progress(up_to) if up_to else None
        began, size = self._clock.now(), self._settings.fan_out_size
        start, marked = Position.start(), 0
        while start.sent_at <= began and (places := await behind(user_id, start, size, began)):
            end_if_cancelled()
            start = places[-1]
            chosen = [
                place
                for place in places
                if place.sent_at <= began and not (shown and shown.wants(place))
            ]
            marked += await self._commit(partial(self._mark, user_id, chosen, change))
        return marked

    async def _mark(
        self, user_id: str, places: Sequence[Position], change: _Change, session: Session
    ) -> int:
        """Those that are still in their places: what was revised meanwhile was not shown."""
        ids = await Notification.still_at(user_id, places, session)
        return await self._set(user_id, ids, change, session)

    async def _change(
        self, user_id: str, id: str, change: _Change, revision: int | None = None
    ) -> Shown:
        if not ObjectId.is_valid(id):
            raise NotFound(_NONE)
        if revision is not None:  # rows of before, which don't say, show their first
            shown = {"revision": {"$in": [1, None] if revision == 1 else [revision]}}
            change = change._replace(was=change.was | shown)
        key = ObjectId(id)
        changed = await self._commit(partial(self._set_one, user_id, key, change))
        # It may have been so before.
        found = changed or await Shown.one(user_id, key, self._clock.now())
        if found is None:
            raise NotFound(_NONE)
        return found

    async def _set_one(
        self, user_id: str, id: ObjectId, change: _Change, session: Session
    ) -> Shown | None:
        """Change it if it is still as it was, and tell of it; what it shows then."""
        now = self._clock.now()
        row = await Notification.get_pymongo_collection().find_one_and_update(
            {"_id": id, "user_id": user_id, **alive(now), **change.was},
            {"$set": change.becomes | {"change": change.kind.value, "changed_at": now}},
            COLUMNS,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if row is None:
            return None
        await self._tell_change(user_id, change.kind, [id], session)
        return Shown.of(row)

    async def _set(
        self, user_id: str, ids: Sequence[ObjectId], change: _Change, session: Session
    ) -> int:
        """Change those that are still as they were, and tell of them; how many that are."""
        collection = Notification.get_pymongo_collection()
        query = {"_id": {"$in": list(ids)}, "user_id": user_id, **change.was}
        changing = [row["_id"] async for row in collection.find(query, {"_id": 1}, session=session)]
        if changing:
            told = {"change": change.kind.value, "changed_at": self._clock.now()}
            await collection.update_many(
                {"_id": {"$in": changing}}, {"$set": change.becomes | told}, session=session
            )
            await self._tell_change(user_id, change.kind, changing, session)
        return len(changing)

    async def _tell_change(
        self, user_id: str, kind: ChangeKind, ids: Sequence[ObjectId], session: Session
    ) -> None:
        changed = NotificationChanged(
            user_id=user_id, kind=kind, notification_ids=tuple(map(str, ids))
        )
        await self._outbox.put([Event.of(changed, time=self._clock.now())], session)

    async def _commit(self, write: Callable[[Session], Awaitable[T]]) -> T:
        result = await self._store.transact(write)
        self._outbox.wake()
        return result

    def _reading(self) -> _Change:
        becomes = {"read": True, "read_at": self._clock.now(), "seen": True}
        return _Change(ChangeKind.READ, {"read": False}, becomes)

    def _checked(self, until: datetime) -> datetime:
        """In UTC and whole milliseconds. Raises BadInput."""
        if until.tzinfo is None:
            raise BadInput("Give a time with its zone: 2026-01-31T12:00:00Z.", "until")
        now, ahead = self._clock.now(), self._settings.snooze_seconds
        if until <= now:
            raise BadInput("This lies in the past.", "until")
        if until > now + timedelta(seconds=ahead):
            raise BadInput(
                f"This is too far ahead: {ahead / 86400:g} days are the most (SNOOZE_SECONDS).",
                "until",
            )
        return whole_milliseconds(until.astimezone(UTC))


def _awake(row: Row, now: datetime) -> Row:
    """What becomes of one that was snoozed."""
    return {
        "snoozed_until": None,
        "sent_at": later(now, row["sent_at"]),
        "read": False,
        "read_at": None,
        "seen": False,
        "change": ChangeKind.UNSNOOZED.value,
        "changed_at": now,
    }
