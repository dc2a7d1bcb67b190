"""What waits to be told to one reader: live events, and pages that were read beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.notifications.models import Notification
from services.shared.events import NotificationChanged, NotificationCreated
from services.shared.tasks import end_if_cancelled

Hint = NotificationCreated | NotificationChanged


@dataclass(frozen=True, slots=True)
class Page:
    """The oldest of a user's notifications behind a place. `settled`: nothing older may follow.

    `is_last`: there were no more behind them.
    """

    rows: Sequence[Notification]
    settled: datetime
    is_last: bool


class Hints:
    """Those that wait for one reader. When there are too many, only that is remembered."""

    def __init__(self, size: int) -> None:
        self._hints: asyncio.Queue[Hint | Page | None] = asyncio.Queue(size)
        self.has_page = False

    def put(self, hint: Hint | Page) -> None:
        try:
            self._hints.put_nowait(hint)
        except asyncio.QueueFull:
            self.lose_track()
        else:
            self.has_page = self.has_page or isinstance(hint, Page)

    def lose_track(self) -> None:
        """Some hints may be missing: forget the rest too, the reader has to read again."""
        while not self._hints.empty():
            self._hints.get_nowait()
        self.has_page = False
        self._hints.put_nowait(None)

    async def get(self, seconds: float | None = None) -> Hint | Page | None:
        """The next hint, or None when the reader has to read again. Raises TimeoutError when there
        is none for so many seconds."""
        end_if_cancelled()
        async with asyncio.timeout(seconds):
            hint = await self._hints.get()
        if isinstance(hint, Page):
            self.has_page = False
        return hint
