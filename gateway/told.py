"""What one screen was told of, so that reading the changes again tells only what it missed.

A hint says nothing of other changes: theirs may be late, and lost. So only a reading moves the time
on from which the next one reads; until then, what hints have told is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from beanie import PydanticObjectId

from services.notifications.models import Notification
from services.shared.vocabulary import ChangeKind


class Told:
    """`window`: how long a write may take, so that a reading does not find it yet."""

    def __init__(self, now: datetime, window: timedelta) -> None:
        self._window = window
        self._read_at = now
        self._last: dict[PydanticObjectId | None, tuple[datetime, ChangeKind]] = {}

    def __len__(self) -> int:
        return len(self._last)

    @property
    def since(self) -> datetime:
        """All that was changed before is told."""
        return self._read_at - self._window

    def is_too_much(self, limit: int, now: datetime) -> bool:
        """Whether a reading is due, since more than `limit` are remembered and it would help."""
        return len(self) > limit and now > self._read_at + 2 * self._window

    def by_hint(self, rows: Sequence[Notification], kind: ChangeKind) -> None:
        """These changes are told, unless another of the same notification has overtaken it."""
        for row in rows:
            if row.changed_at is not None and row.change is kind:
                self._last[row.id] = (row.changed_at, kind)

    def missed(self, rows: Sequence[Notification]) -> list[Notification]:
        """Those of the rows whose last change is not told."""
        return [row for row in rows if self._last.get(row.id) != (row.changed_at, row.change)]

    def by_reading(self, rows: Sequence[Notification], now: datetime) -> None:
        """All that was found `now` is told, and the next reading starts there."""
        for row in rows:
            if row.changed_at is not None and row.change is not None:
                self._last[row.id] = (row.changed_at, row.change)
        self._read_at = now
        self._last = {id: last for id, last in self._last.items() if last[0] >= self.since}
