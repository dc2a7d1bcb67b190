"""States of one thing, told in one notification: the newest, in any order of arrival. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Self

from services.shared.clock import whole_milliseconds
from services.shared.vocabulary import NotificationType

Thing = str  # a user's id, a type and a collapseKey, as rows keep them together
_MILLISECOND: Final = timedelta(milliseconds=1)


class Rank(NamedTuple):
    """Of two states the one that ranks higher is the newer: by version, where one is given, then by
    time, and by the event's key where both are equal. One with a version is newer than one without.
    """

    has_version: bool
    version: int
    at: datetime
    event: str

    @classmethod
    def of(cls, version: int | None, at: datetime, event: str) -> Self:
        return cls(version is not None, version or 0, whole_milliseconds(at), event)


@dataclass(frozen=True, slots=True)
class Collapse:
    """What a draft is a state of. `key` names the thing among those of its user and type;
    `unread_again`: whether a revision comes back to who has read the one before."""

    key: str
    rank: Rank
    unread_again: bool = True


def thing_of(user_id: str, type_: NotificationType, key: str) -> Thing:
    return f"{user_id} {type_.value} {key}"


def states_of(things: Collection[Thing]) -> dict[str, Any]:
    """What rows that tell of these have."""
    users = {thing.partition(" ")[0] for thing in things}
    return {"user_id": {"$in": list(users)}, "thing": {"$in": list(set(things))}}


def later(now: datetime, sent_at: datetime) -> datetime:
    """The stamp of one that moves to the top now: behind its old one, whatever clocks say."""
    return max(now, sent_at + _MILLISECOND)
