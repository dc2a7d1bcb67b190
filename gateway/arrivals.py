"""What one reader of `notificationAdded` has seen, wants, and is told.

What was told is read once more when it is settled (settling.py): hints may be late or lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from gateway.hints import Hint, Hints, Page
from gateway.news import News
from gateway.settling import ReadPage, Settling
from services.notifications.cursor import Cursor, Position, Progress
from services.notifications.models import Notification
from services.shared.clock import Clock
from services.shared.events import NotificationCreated
from services.shared.vocabulary import NotificationType

Types = tuple[NotificationType, ...] | None


class Teller(Protocol):
    """Tells a subscriber at once, when the news are sent. `ready`: what there is to tell, or None:
    not now."""

    def ready(self, news: News) -> bytes | None: ...

    def tell(self, news: News, template: bytes, id: str, cursor: bytes) -> None: ...


class Arrivals:
    """`most`: places that a cursor may carry."""

    __slots__ = (
        "_clock",
        "_hints",
        "_is_settling",
        "_most",
        "_progress",
        "_read",
        "_settling",
        "_teller",
        "_types",
        "is_over",
        "user_id",
    )

    def __init__(
        self,
        user_id: str,
        cursor: Cursor,
        types: Types,
        hints: Hints,
        teller: Teller | None,
        read: ReadPage,
        settling: Settling,
        clock: Clock,
        most: int,
    ) -> None:
        self.user_id = user_id
        self.is_over = False
        self._progress = Progress(cursor)
        self._types = types
        self._hints = hints
        self._teller = teller
        self._read = read
        self._settling = settling
        self._is_settling = False
        self._clock = clock
        self._most = most
        if teller is not None:
            hints.at_once = self._tell_at_once

    @property
    def start(self) -> Position:
        """Nothing that is wanted lies before it."""
        return self._progress.start

    @property
    def is_full(self) -> bool:
        return self._progress.unsettled >= self._most

    async def new(self, hint: Hint | Page | None) -> AsyncIterator[tuple[Cursor, Notification]]:
        """What a hint brings; without one, or with a page, all that the database has."""
        if hint is None or isinstance(hint, Page):
            async for notification in self._missed(hint):
                if self._is_shown(notification.type, notification.expires_at):
                    yield self._progress.cursor(), notification
        elif isinstance(hint, NotificationCreated):
            notification = Notification.from_event(hint)
            if self._progress.wants(notification.position):
                self._progress.saw(notification.position)
                if self._is_shown(notification.type, notification.expires_at):
                    yield self._progress.cursor(), notification

    def see_to_settling(self) -> None:
        """Have it looked once more at what was told, unless that is being seen to."""
        if self._progress.unsettled and not (self._is_settling or self._hints.has_page):
            self._is_settling = True
            self._settling.add(self)

    def settle(self, places: Sequence[Position], settled: datetime) -> bool:
        """Whether these, all that the database has since `start`, were seen. Then all that is
        stamped before `settled` is settled."""
        if any(map(self._progress.wants, places)):
            return False
        self._progress.settle(settled)
        self.settled()
        return True

    def settled(self, page: Page | None = None) -> None:
        """It has been looked at, and there is this page."""
        self._is_settling = False
        if page is not None:
            self._hints.put(page)
        elif not self.is_over:
            self.see_to_settling()

    def lose_track(self) -> None:
        """It could not be looked at: the reader, if it is still there, asks itself and is told."""
        self._is_settling = False
        self._hints.lose_track()

    def _tell_at_once(self, news: News, id: str) -> bool:
        """Whether nothing is left to do: it was told, or is not wanted."""
        progress = self._progress
        try:
            place = Position.of_hex(news.at, id)
        except ValueError:
            return False
        if not progress.wants(place):
            return True
        if progress.unsettled + 1 >= self._most:  # it has to read, soon
            return False
        if self._is_shown(news.kind, news.expires_at):
            assert self._teller is not None
            template = self._teller.ready(news)
            if template is None:
                return False
            progress.saw(place)
            self._teller.tell(news, template, id, progress.encoded())
        else:
            progress.saw(place)
        if not self._is_settling:  # and no page waits, or it would not be told at once
            self._is_settling = True
            self._settling.add(self)
        return True

    async def _missed(self, page: Page | None) -> AsyncIterator[Notification]:
        """What the database holds and the reader has not seen, the oldest first. `page`: its
        beginning, if that has been read.

        Ends early when the cursor would have to name too many that are not settled yet. What a
        slow reader takes its time over is settled as of the beginning: what was committed late,
        behind rows that were read by then, was not seen.
        """
        progress = self._progress
        page = page or await self._read(self.user_id, progress.start)
        settled = page.settled
        while True:
            for row in page.rows:
                if not progress.wants(row.position):
                    continue
                if row.sent_at >= settled:
                    progress.settle(settled)  # all that is stamped before was read by now
                    if self.is_full:
                        return
                progress.saw_in_order(row.position, settled)
                yield row
            if page.is_last:
                progress.settle(settled)
                return
            page = await self._read(self.user_id, page.rows[-1].position)

    def _is_shown(self, type_: NotificationType, ends: datetime | None) -> bool:
        """Whether it is of these types, and not over yet: what is told may come late."""
        wanted = self._types is None or type_ in self._types
        return wanted and (ends is None or ends > self._clock.now())
