"""What screens show of a notification, read as it is stored.

A page has many, and pages are what is asked for most. Beanie's documents are for the rest: making
one costs more than reading it from the database does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Self

from bson import ObjectId
from msgspec import Struct
from msgspec.structs import fields

from services.notifications.cursor import Position, to_milliseconds
from services.notifications.models import Notification
from services.notifications.queries import alive
from services.shared.store import Row, quickly
from services.shared.vocabulary import NotificationType

_TYPES: Final = {type_.value: type_ for type_ in NotificationType}


class Shown(Struct, frozen=True, kw_only=True):
    """The same as in Notification, without what nobody is shown, and with an id as it is shown:
    what answers is this, and no copy. Long integers in `content` are of the database's class
    (Int64)."""

    id: str
    user_id: str
    type: NotificationType
    title: str
    body: str
    content: Any
    sent_at: datetime
    expires_at: datetime | None
    read: bool
    read_at: datetime | None
    seen: bool
    archived: bool
    snoozed_until: datetime | None
    revision: int

    @classmethod
    def of(cls, row: Row) -> Self:
        """A row of at least COLUMNS; rows of before lack some."""
        told = row.get
        return cls(
            id=str(row["_id"]),
            user_id=row["user_id"],
            type=_TYPES[row["type"]],
            title=row["title"],
            body=row["body"],
            content=row["content"],
            sent_at=row["sent_at"],
            expires_at=told("expires_at"),
            read=told("read", False),
            read_at=told("read_at"),
            seen=told("seen", True),
            archived=told("archived", False),
            snoozed_until=told("snoozed_until"),
            revision=int(told("revision", 1)),
        )

    @property
    def position(self) -> Position:
        return Position.of_hex(to_milliseconds(self.sent_at), self.id)

    @classmethod
    async def one(cls, user_id: str, id: ObjectId, now: datetime) -> Self | None:
        there = {"_id": id, "user_id": user_id, **alive(now)}
        row = await quickly(Notification).find_one(there, COLUMNS)
        return cls.of(row) if row else None


COLUMNS: Final = {field.name: 1 for field in fields(Shown) if field.name != "id"}
