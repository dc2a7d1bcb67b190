"""What one screen was told of, so that reading the changes again tells only what it missed.

A hint says nothing of other changes: theirs may be late, and lost. So only a reading moves the time
on from which the next one reads; until then, what hints have told is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from bson import ObjectId

from services.notifications.models import Change, Notification
from services.shared.vocabulary import ChangeKind


class Told:
    """`window`: how long a write may take, so that a reading does not find it yet. `most`: how many
    are remembered."""

    def __init__(self, now: datetime, window: timedelta, most: int) -> None:
        self._window = window
        self._most = most
        self._read_at = self._asked_at = now
        self._last: dict[ObjectId, Change] = {}

    def __len__(self) -> int:
        return len(self._last)

    @property
    def since(self) -> datetime:
        """All that was changed before is told."""
        return self._read_at - self._window

    @property
    def is_full(self) -> bool:
        """Whether more are remembered than may be."""
        return len(self) > self._most

    def is_reading_due(self, now: datetime) -> bool:
        """Whether half of what may be is remembered, and a reading would help."""
        return 2 * len(self) > self._most and now > self._asked_at + 2 * self._window

    def put_off(self, now: datetime) -> None:
        """A reading was of no use, and is not due again at once."""
        self._asked_at = now

    def by_hint(self, rows: Sequence[Notification], kind: ChangeKind) -> None:
        """These changes are told, unless another of the same notification has overtaken it."""
        changes = [row.last_change for row in rows]
        self._last |= {one.id: one for one in changes if one and one.kind is kind}

    def knows(self, row: Notification, kind: ChangeKind) -> bool:
        """Whether this change of it was told."""
        change = row.last_change
        return change is not None and change.kind is kind and self._last.get(change.id) == change

    def missed(self, changes: Sequence[Change]) -> list[Change]:
        """Those that are not told."""
        return [one for one in changes if self._last.get(one.id) != one]

    def by_reading(self, changes: Sequence[Change], now: datetime) -> None:
        """All that was found `now` is told, and the next reading starts there."""
        self._read_at = self._asked_at = now
        self._last |= {one.id: one for one in changes}
        self._last = {id: one for id, one in self._last.items() if one.at >= self.since}
