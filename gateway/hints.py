"""What waits to be told to one reader: live events, and pages that were read beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.news import News
from services.notifications.models import Notification
from services.shared.events import NotificationChanged, NotificationCreated
from services.shared.log import get_logger
from services.shared.tasks import end_if_cancelled

log = get_logger()

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
    """Those that wait for one reader. When there are too many, only that is remembered.

    `at_once`: does with news what there is to do, if it can, and says whether it did. It is asked
    while the reader waits and nothing else does: what comes then need not wake it up.
    A list and a future, since an idle asyncio.Queue takes 3 KB.
    """

    __slots__ = ("_hints", "_size", "_waiting", "at_once", "has_page")

    def __init__(self, size: int) -> None:
        self._hints: list[Hint | Page | None] = []
        self._size = size
        self._waiting: asyncio.Future[None] | None = None
        self.at_once: Callable[[News, str], bool] | None = None
        self.has_page = False

    def tell(self, news: News, id: str, user_id: str) -> None:
        """Put the hint of it, unless all is done at once. What fails is this reader's alone."""
        waiting = self._waiting
        is_idle = waiting is not None and not waiting.done()
        try:
            if not (is_idle and self.at_once is not None and self.at_once(news, id)):
                self.put(news.hint(id, user_id))
        except Exception as error:
            log.error("not_told_at_once", exc_info=error)
            self.lose_track()

    def put(self, hint: Hint | Page) -> None:
        if isinstance(hint, Page):
            self.has_page = True
        if len(self._hints) >= self._size:
            self.lose_track()
        else:
            self._hints.append(hint)
            self._wake()

    def lose_track(self) -> None:
        """Some hints may be missing: forget the rest too, the reader has to read again."""
        self._hints = [None]
        self.has_page = False
        self._wake()

    async def get(self, seconds: float | None = None) -> Hint | Page | None:
        """The next hint, or None when the reader has to read again. Raises TimeoutError when there
        is none for so many seconds."""
        end_if_cancelled()
        if not self._hints:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                if seconds is None:
                    await self._waiting
                else:
                    async with asyncio.timeout(seconds):
                        await self._waiting
            finally:
                self._waiting = None
        hint = self._hints.pop(0)
        if isinstance(hint, Page):
            self.has_page = False
        return hint

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
