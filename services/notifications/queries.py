"""Which of a user's notifications are meant: filters and places, in MongoDB's words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from services.notifications.cursor import Cursor, Position
from services.shared.vocabulary import NotificationType

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)  # before all times of ours
_TYPES: Final = [type_.value for type_ in NotificationType]
_OPPOSITE: Final = {"$lt": "$gte", "$lte": "$gt", "$gt": "$lte", "$gte": "$lt"}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of a user's notifications; None and False leave a condition out."""

    types: tuple[NotificationType, ...] | None = None
    unread_only: bool = False
    archived: bool | None = False
    snoozed: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of the list, newest first: `size` rows older than `after`, newer than `before`.

    `from_end` takes the oldest rows of that part instead of the newest.
    """

    size: int
    after: Cursor | None = None
    before: Cursor | None = None
    from_end: bool = False


def alive(now: datetime) -> dict[str, Any]:
    return {"expires_at": {"$not": {"$lte": now}}}


def awake() -> dict[str, Any]:
    return {"snoozed_until": {"$not": {"$gt": EPOCH}}}


def asleep() -> dict[str, Any]:
    return {"snoozed_until": {"$gt": EPOCH}}


def query(user_id: str, which: Filter, now: datetime) -> dict[str, Any]:
    """A condition on every field of the index, so that it gives each filter's rows in order.

    MongoDB then reads one run of the index for each combination of values and merges the runs.
    """
    return {
        "user_id": user_id,
        "archived": {"$in": [False, True] if which.archived is None else [which.archived]},
        "read": {"$in": [False] if which.unread_only else [False, True]},
        "type": {"$in": _TYPES if which.types is None else list(which.types)},
        **alive(now),
        **(asleep() if which.snoozed else awake()),
    }


def unread(
    user_id: str, types: tuple[NotificationType, ...] | None, now: datetime
) -> dict[str, Any]:
    return query(user_id, Filter(types=types, unread_only=True), now)


def unseen(user_id: str, now: datetime) -> dict[str, Any]:
    return {"user_id": user_id, "seen": False, **alive(now)}


def beyond(position: Position, compared: str) -> dict[str, Any]:
    """On one side of a position: `$lt` for older, `$gt` for newer; `$lte`, `$gte` with itself.

    Without an $or, which MongoDB might split in two, and sort what they find.
    """
    same_stamp = {"sent_at": position.sent_at, "_id": {_OPPOSITE[compared]: position.object_id}}
    return {"sent_at": {f"{compared[:3]}e": position.sent_at}, "$nor": [same_stamp]}


def between(after: Cursor | None, before: Cursor | None) -> dict[str, Any]:
    """Older than `after`, newer than `before`, in the list that has the newest first."""
    conditions = [
        beyond(cursor.position, compared)
        for cursor, compared in ((after, "$lt"), (before, "$gt"))
        if cursor
    ]
    return {"$and": conditions} if conditions else {}
