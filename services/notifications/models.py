"""What was sent to whom, and the questions one may ask of it. Pages are in pages.py.

Every question takes the user's id first, so that another's can't be asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from beanie import Document, PydanticObjectId
from bson import ObjectId
from pydantic import Field
from pymongo import IndexModel

from services.notifications.collapse import Rank, Thing, states_of
from services.notifications.cursor import Position
from services.notifications.queries import (
    EPOCH,
    Filter,
    alive,
    asleep,
    beyond,
    query,
    unread,
    unseen,
)
from services.shared.content import json_size
from services.shared.events import NotificationCreated
from services.shared.store import Row, Session, first_part, quickly
from services.shared.vocabulary import ChangeKind, NotificationType

_DOWN: Final = [("sent_at", -1), ("_id", -1)]
_UP: Final = [("sent_at", 1), ("_id", 1)]
_END: Final = ("expires_at", 1)
_SNOOZED: Final = ("snoozed_until", 1)
_AT_ONCE: Final = 25  # rows of up to MAX_CONTENT_BYTES that one answer of the database holds


class Change(NamedTuple):
    """What was last done with a notification, and when."""

    id: ObjectId
    at: datetime
    kind: ChangeKind


class Notification(Document):
    """One notification for one user. `event` is the key of the event it came from.

    `sent_at` is stamped just before the write and gives the order, with the id for equal stamps.
    `own_title`: whether its title was given by who asked for it; None in rows of before.
    `decision`: why it was sent, see traces.py. `thing`: of what it shows the newest state, `rank`:
    which that is, `said`: a digest of it, `revision`: how many it has shown; see collapse.py. What
    is read, archived or snoozed has been `seen`. `snoozed_until`: it is on no page until then.
    """

    user_id: str
    event: str
    type: NotificationType
    title: str
    own_title: bool | None = None
    body: str
    content: Any
    sent_at: datetime
    expires_at: datetime | None = None
    read: bool = False
    read_at: datetime | None = None
    seen: bool = True  # as rows of before are, which don't say
    archived: bool = False
    snoozed_until: datetime | None = None
    product_ids: list[str] = Field(default_factory=list)
    changed_at: datetime | None = None
    change: ChangeKind | None = None
    decision: dict[str, Any] | None = None
    thing: Thing | None = None
    rank: Rank | None = None
    said: bytes | None = None
    revision: int = 1

    class Settings:
        name = "notifications"
        indexes = (
            IndexModel([("user_id", 1), ("event", 1)], unique=True),
            IndexModel(
                [("user_id", 1), ("thing", 1)],
                unique=True,
                partialFilterExpression={"thing": {"$exists": True}},
            ),
            IndexModel([("user_id", 1), *_DOWN]),
            IndexModel(  # with the ends, so that what has expired or sleeps is not fetched
                [
                    *((name, 1) for name in ("user_id", "archived", "read", "type")),
                    *_DOWN,
                    _END,
                    _SNOOZED,
                ]
            ),
            IndexModel(
                [("user_id", 1), ("seen", 1), *_UP, _END],
                partialFilterExpression={"seen": False},
            ),
            IndexModel([("user_id", 1), *_DOWN, _SNOOZED], partialFilterExpression=asleep()),
            IndexModel([_SNOOZED], partialFilterExpression=asleep()),
            IndexModel(
                [("user_id", 1), ("changed_at", 1)],
                partialFilterExpression={"changed_at": {"$exists": True}},
            ),
            IndexModel(
                [("user_id", 1), _END, ("_id", 1)],
                partialFilterExpression={"expires_at": {"$gt": EPOCH}},
            ),
        )

    @property
    def position(self) -> Position:
        assert self.id is not None
        return Position.of(self.sent_at, self.id)

    @property
    def last_change(self) -> Change | None:
        if self.id is None or self.changed_at is None or self.change is None:
            return None
        return Change(self.id, self.changed_at, self.change)

    @classmethod
    def from_event(cls, created: NotificationCreated) -> Self:
        """The notification as it was when it was stored."""
        return cls(
            id=PydanticObjectId(created.id),
            user_id=created.user_id,
            event="",
            type=created.kind,
            title=created.title,
            body=created.body,
            content=created.content,
            sent_at=created.sent_at,
            expires_at=created.expires_at,
            revision=created.revision,
            read=created.read_at is not None,
            read_at=created.read_at,
            seen=created.seen,
            archived=created.archived,
            snoozed_until=created.snoozed_until,
        )

    def created(self) -> NotificationCreated:
        """What open screens are told of it."""
        return created({**dict(self), "_id": self.id})

    @classmethod
    async def one(cls, user_id: str, id: str, now: datetime) -> Self | None:
        if not ObjectId.is_valid(id):
            return None
        return await cls.find_one({"_id": ObjectId(id), "user_id": user_id, **alive(now)})

    @classmethod
    async def some(cls, user_id: str, ids: Iterable[str], now: datetime) -> Sequence[Self]:
        """In the order of their last changes."""
        keys = [ObjectId(id) for id in ids if ObjectId.is_valid(id)]
        there = {"_id": {"$in": keys}, "user_id": user_id, **alive(now)}
        return await cls.find(there).sort("changed_at").to_list()

    @classmethod
    async def of_events(
        cls, keys: Sequence[tuple[str, str]], session: Session | None = None
    ) -> Mapping[tuple[str, str], Row]:
        """The notifications of these (user id, event key), as far as they exist, as stored."""
        if not keys:
            return {}
        users = list({user_id for user_id, _ in keys})
        events = list({event for _, event in keys})
        rows = cls.get_pymongo_collection().find(
            {"user_id": {"$in": users}, "event": {"$in": events}}, session=session
        )
        return {(row["user_id"], row["event"]): row async for row in rows}

    @classmethod
    async def collapsed(cls, things: Sequence[Thing], session: Session) -> Mapping[Thing, Row]:
        """What shows these things now, as it is stored."""
        if not things:
            return {}
        rows = cls.get_pymongo_collection().find(states_of(things), session=session)
        return {row["thing"]: row async for row in rows}

    @classmethod
    async def behind(
        cls, user_id: str, start: Position, limit: int, now: datetime
    ) -> tuple[Sequence[Self], bool]:
        """The next ones behind that position, the oldest first, archived or not; and whether that
        is all. Not many more bytes than PART_BYTES, or a single one."""
        there = {"user_id": user_id, **alive(now), **beyond(start, "$gt")}
        found = cls.get_pymongo_collection().find(there, batch_size=_AT_ONCE)
        async with found.sort(_UP).limit(limit) as behind:
            rows, is_all = await first_part(behind, size_of)
        return [cls.model_validate(row) for row in rows], is_all and len(rows) < limit

    @classmethod
    async def places_of(
        cls, user_ids: Sequence[str], start: Position, limit: int
    ) -> Mapping[str, Sequence[Position]] | None:
        """The places of these users' from that one on, whatever became of them; None when there are
        `limit` or more. The index answers it alone."""
        there = {"user_id": {"$in": list(user_ids)}, "sent_at": {"$gte": start.sent_at}}
        found = cls.get_pymongo_collection().find(there, {"user_id": 1, "sent_at": 1})
        rows = await found.limit(limit).to_list()
        places: dict[str, list[Position]] = {}
        for row in rows:
            places.setdefault(row["user_id"], []).append(Position.of(row["sent_at"], row["_id"]))
        return places if len(rows) < limit else None

    @classmethod
    async def more_than(
        cls, user_id: str, which: Filter, start: Position, count: int, now: datetime
    ) -> bool:
        """Whether more than `count` lie behind that position."""
        there = query(user_id, which, now) | beyond(start, "$gt")
        found = await cls.get_pymongo_collection().count_documents(there, limit=count + 1)
        return found > count

    @classmethod
    async def changed_since(
        cls, user_id: str, moment: datetime, limit: int, now: datetime
    ) -> Sequence[Change]:
        """What was read, archived and so on since then, in the order of that."""
        since = {"user_id": user_id, "changed_at": {"$gte": moment}, **alive(now)}
        rows = cls.get_pymongo_collection().find(since, {"changed_at": 1, "change": 1})
        return [
            Change(row["_id"], row["changed_at"], ChangeKind(row["change"]))
            async for row in rows.sort("changed_at").limit(limit)
        ]

    @classmethod
    async def ends(
        cls, user_id: str, since: datetime, now: datetime, limit: int
    ) -> Sequence[tuple[ObjectId, datetime]]:
        """Which expire after `since`, and when, the first ones first: up to `now`, and the next."""
        there = {"user_id": user_id, "expires_at": {"$gt": since}}
        rows = cls.get_pymongo_collection().find(there, {"expires_at": 1})
        found: list[tuple[ObjectId, datetime]] = []
        async with rows.sort([("expires_at", 1), ("_id", 1)]).limit(limit) as ending:
            async for row in ending:
                found.append((row["_id"], row["expires_at"]))
                if row["expires_at"] > now:
                    break
        return found

    @classmethod
    async def unread_count(
        cls, user_id: str, types: tuple[NotificationType, ...] | None, now: datetime
    ) -> int:
        return await quickly(cls).count_documents(unread(user_id, types, now))

    @classmethod
    async def unseen_count(cls, user_id: str, now: datetime) -> int:
        return await quickly(cls).count_documents(unseen(user_id, now))

    @classmethod
    async def unseen_behind(
        cls, user_id: str, start: Position, limit: int, now: datetime
    ) -> Sequence[Position]:
        """The places of the next unseen ones behind that position, the oldest first."""
        there = unseen(user_id, now) | beyond(start, "$gt")
        return await cls.places(there, limit)

    @classmethod
    async def unread_behind(
        cls, user_id: str, start: Position, limit: int, now: datetime
    ) -> Sequence[Position]:
        """The places of the next unread ones behind that position, the oldest first."""
        there = query(user_id, Filter(unread_only=True, archived=None), now) | beyond(start, "$gt")
        return await cls.places(there, limit)

    @classmethod
    async def any_due(cls, now: datetime) -> bool:
        """Whether any was snoozed until then."""
        return await cls.get_pymongo_collection().find_one(_due(now), {"_id": 1}) is not None

    @classmethod
    def due(cls, now: datetime, limit: int, session: Session) -> AsyncIterable[Row]:
        """Those that were, the longest overdue first, as they are stored."""
        found = cls.get_pymongo_collection().find(_due(now), batch_size=_AT_ONCE, session=session)
        return found.sort("snoozed_until").limit(limit)

    @classmethod
    async def still_at(
        cls, user_id: str, places: Sequence[Position], session: Session
    ) -> list[ObjectId]:
        """The ids of those that are still in these places."""
        those = {"_id": {"$in": [place.object_id for place in places]}, "user_id": user_id}
        rows = cls.get_pymongo_collection().find(those, {"sent_at": 1}, session=session)
        there = {Position.of(row["sent_at"], row["_id"]) async for row in rows}
        return [place.object_id for place in places if place in there]

    @classmethod
    async def products_recommended(cls, user_id: str, since: datetime) -> set[str]:
        lately = {
            "user_id": user_id,
            "type": NotificationType.RECOMMENDATION,
            "sent_at": {"$gte": since},
        }
        return set(await cls.get_pymongo_collection().distinct("product_ids", lately))

    @classmethod
    async def places(cls, there: Mapping[str, Any], limit: int) -> list[Position]:
        """The places of the first of those, the oldest first. `there`: of one user."""
        rows = cls.get_pymongo_collection().find(there, {"sent_at": 1}).sort(_UP).limit(limit)
        return [Position.of(row["sent_at"], row["_id"]) async for row in rows]


MODELS: list[type[Document]] = [Notification]


def created(row: Row) -> NotificationCreated:
    """What open screens are told of a notification, as it is stored. What rows of before do not
    say is as in `Notification`."""
    return NotificationCreated(
        id=str(row["_id"]),
        user_id=row["user_id"],
        kind=NotificationType(row["type"]),
        title=row["title"],
        body=row["body"],
        content=row["content"],
        sent_at=row["sent_at"],
        expires_at=row.get("expires_at"),
        revision=row.get("revision", 1),
        read_at=row.get("read_at"),
        seen=row.get("seen", True),
        archived=row.get("archived", False),
        snoozed_until=row.get("snoozed_until"),
    )


def _due(now: datetime) -> dict[str, Any]:
    """Of types that this version knows: the others are for a newer one to wake."""
    return {"snoozed_until": {"$gt": EPOCH, "$lte": now}, "type": {"$in": list(NotificationType)}}


def size_of(row: Row) -> int:
    """Bytes, nearly."""
    return json_size((row["title"], row["body"], row["content"]))
