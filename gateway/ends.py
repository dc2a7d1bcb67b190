"""When a user's notifications expire, as one reader knows it: open screens are told at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from bson import ObjectId

from gateway.hints import Hint, Page
from services.shared.events import NotificationCreated

_A_MOMENT = timedelta(milliseconds=1)


class Ends:
    """`told_until`: what expired before, the reader has been told, or need not be."""

    def __init__(self, told_until: datetime) -> None:
        self.told_until = told_until
        self._next: datetime | None = None

    def hear(self, hint: Hint | Page | None) -> None:
        """A new notification may be the next to expire."""
        if isinstance(hint, NotificationCreated) and hint.expires_at is not None:
            self._next = min(hint.expires_at, self._next or hint.expires_at)

    def seconds_left(self, now: datetime) -> float | None:
        """Until the next one expires; None when none does."""
        if self._next is None:
            return None
        return (max(self._next - now, timedelta()) + _A_MOMENT).total_seconds()

    def is_due(self, now: datetime) -> bool:
        return self._next is not None and self._next <= now

    def read(self, found: Sequence[tuple[ObjectId, datetime]], now: datetime) -> list[str]:
        """The ids of those that have expired by `now`, of all that expire after `told_until`, the
        first ones first; they are told then."""
        self.told_until = now
        self._next = next((at for _, at in found if at > now), None)
        return [str(id) for id, at in found if at <= now]
