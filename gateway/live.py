"""Live: who looks at which user's notifications, and what they have yet to be told.

A reader registers first, reads the database second, and follows third; what it has seen it drops.
Live events are hints and may be lost: after an overflow or a broken connection the reader reads
the database again from its own cursor.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from services.notifications.cursor import Cursor, Progress
from services.notifications.models import Notification
from services.shared.bus import Bus, LiveFeed
from services.shared.clock import Clock
from services.shared.events import Event, NotificationChanged, NotificationCreated
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled
from services.shared.vocabulary import NotificationType
from services.shared.worker import when_back

log = get_logger()

_READ_AT_ONCE: Final = 100

Hint = NotificationCreated | NotificationChanged
Types = tuple[NotificationType, ...] | None


class Inbox:
    """The hints that wait for one reader. When there are too many, only that is remembered."""

    def __init__(self, size: int) -> None:
        self._hints: asyncio.Queue[Hint | None] = asyncio.Queue(size)

    def put(self, hint: Hint) -> None:
        try:
            self._hints.put_nowait(hint)
        except asyncio.QueueFull:
            self.lose_track()

    def lose_track(self) -> None:
        """Some hints may be missing: forget the rest too, the reader has to read again."""
        while not self._hints.empty():
            self._hints.get_nowait()
        self._hints.put_nowait(None)

    async def get(self) -> Hint | None:
        """The next hint, or None when the reader has to read again."""
        end_if_cancelled()
        return await self._hints.get()


class Live:
    def __init__(self, bus: Bus, clock: Clock, settings: Settings) -> None:
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self.window = timedelta(seconds=settings.write_window_seconds)
        self._inboxes: defaultdict[str, set[Inbox]] = defaultdict(set)
        self._feed: LiveFeed | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hear live events while this is open."""
        async with self._bus.live(self._dispatch, self._lose_track) as self._feed:
            yield

    async def added(
        self, user_id: str, after: Cursor | None, types: Types
    ) -> AsyncIterator[tuple[Cursor, Notification]]:
        """Every notification since `after` (from now on, without), each once, with its cursor."""
        async with self._registered(user_id) as inbox:
            progress = Progress(after or await self._cursor_now(user_id))
            hint: Hint | None = None
            while True:
                if hint is None:
                    async for notification in self._missed(user_id, progress):
                        if types is None or notification.type in types:
                            yield progress.cursor(), notification
                elif isinstance(hint, NotificationCreated):
                    notification = Notification.from_event(hint)
                    if progress.wants(notification.position):
                        progress.saw(notification.position)
                        if types is None or notification.type in types:
                            yield progress.cursor(), notification
                if not self._is_full(progress):
                    hint = await inbox.get()
                elif hint is not None:
                    hint = None  # reading settles what is older than the window
                else:
                    await asyncio.sleep(self._settings.write_window_seconds)

    async def changed(self, user_id: str) -> AsyncIterator[tuple[NotificationChanged, int]]:
        """Every change that is made from now on, with the unread count after it."""
        async with self._registered(user_id) as inbox:
            while True:
                hint = await inbox.get()
                if isinstance(hint, NotificationChanged):
                    yield hint, await self._unread_count(user_id)

    async def unread_counts(self, user_id: str) -> AsyncIterator[int]:
        """The unread count now, and whenever it is another."""
        async with self._registered(user_id) as inbox:
            last: int | None = None
            while True:
                count = await when_back(lambda: self._unread_count(user_id), "an unread count")
                if count != last:
                    yield count
                last = count
                await inbox.get()

    async def _missed(self, user_id: str, progress: Progress) -> AsyncIterator[Notification]:
        """What the database holds and the reader has not seen, the oldest first.

        Ends early when the cursor would have to name too many that are not settled yet. What a
        slow reader takes its time over is settled as of the beginning: what was committed late,
        behind rows that were read by then, was not seen.
        """
        start, settled = progress.start, self._clock.now() - self.window
        while True:
            now = self._clock.now()
            read = partial(Notification.behind, user_id, start, _READ_AT_ONCE, now)
            rows = await when_back(read, "a subscription's read")
            for row in rows:
                if not progress.wants(row.position):
                    continue
                if row.sent_at >= settled and self._is_full(progress):
                    return
                progress.saw_in_order(row.position, settled)
                yield row
            if len(rows) < _READ_AT_ONCE:
                progress.settle(settled)
                return
            start = rows[-1].position

    def _is_full(self, progress: Progress) -> bool:
        return progress.unsettled >= self._settings.max_cursor_ids

    @asynccontextmanager
    async def _registered(self, user_id: str) -> AsyncIterator[Inbox]:
        inbox = Inbox(self._settings.reader_queue_size)
        inboxes = self._inboxes[user_id]
        inboxes.add(inbox)
        try:
            if self._feed:
                await self._feed.watch(user_id)
            yield inbox
        finally:
            inboxes.discard(inbox)
            if not inboxes:
                del self._inboxes[user_id]
                if self._feed:
                    await self._feed.unwatch(user_id)

    async def _cursor_now(self, user_id: str) -> Cursor:
        now = self._clock.now()
        return await when_back(
            lambda: Notification.cursor_now(user_id, now, self.window), "a subscription's start"
        )

    async def _unread_count(self, user_id: str) -> int:
        return await Notification.unread_count(user_id, None, self._clock.now())

    def _dispatch(self, event: Event) -> None:
        if isinstance(event.data, NotificationCreated | NotificationChanged):
            for inbox in self._inboxes.get(event.data.user_id, ()):
                inbox.put(event.data)

    def _lose_track(self) -> None:
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.lose_track()
