"""Live: who looks at which user's notifications, and what they have yet to be told.

A reader registers first, reads the database second, and follows third; what it has seen it drops.
Live events are hints and may be lost: after an overflow or a broken connection the reader reads
the database again from its own cursor. What it reads only to be sure is read beside the hints, and
by few at once: a database that is away, or asked by everybody at once, holds up nothing that is at
hand, and little that is missing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from gateway.arrivals import Arrivals, Teller, Types
from gateway.ends import Ends
from gateway.hints import Hint, Hints, Page
from gateway.news import News
from gateway.session_watch import SessionWatch
from gateway.settling import Settling
from gateway.told import Told
from services.notifications import pages
from services.notifications.cursor import Cursor, Position, Progress
from services.notifications.models import Change, Notification
from services.notifications.queries import Filter
from services.shared.bus import Bus, LiveFeed
from services.shared.clock import Clock
from services.shared.errors import Resync
from services.shared.events import (
    Event,
    NotificationChanged,
    NotificationCreated,
    NotificationsCreated,
    Recipient,
    SessionsEnded,
)
from services.shared.settings import Settings
from services.shared.vocabulary import ChangeKind
from services.shared.worker import when_back
from services.users.tokens import Identity

T = TypeVar("T")

_READ_AT_ONCE: Final = 100  # or fewer, of PART_BYTES
_CHANGES_AT_ONCE: Final = 25
_READ_ANEW: Final = "read the first page, and subscribe with its first cursor."


class Live:
    def __init__(self, bus: Bus, clock: Clock, settings: Settings) -> None:
        self.sessions = SessionWatch(clock, settings)
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self.window = timedelta(seconds=settings.write_window_seconds)
        self._waiting: defaultdict[str, set[Hints]] = defaultdict(set)
        self._heard_of: Counter[str] = Counter()
        self._feed: LiveFeed | None = None
        self._turns = asyncio.Semaphore(settings.reads_at_once)
        self._settling_turns = asyncio.Semaphore(max(1, settings.reads_at_once // 2))
        self._settling = Settling(self._page, self.ask, clock, self.window, self._settling_turns)

    @property
    def is_heard(self) -> bool:
        """Whether live events get through to here now."""
        return self._feed is not None and self._feed.hears

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hear live events while this is open."""
        async with (
            self._bus.live(self._dispatch, self._lose_track) as self._feed,
            asyncio.TaskGroup() as group,
        ):
            checking = group.create_task(self.sessions.keep_checking())
            settling = group.create_task(self._settling.keep_settling())
            yield
            checking.cancel()
            settling.cancel()

    async def watch_session(
        self, identity: Identity, end: Callable[[], None]
    ) -> Callable[[], None]:
        """Have `end` called when the session ends, or has ended already; until what is returned is
        called."""

        def stop() -> None:
            self.sessions.unwatch(identity.session_id, end)
            self._forget(identity.user_id)

        try:
            await self._hear_of(identity.user_id)
        except BaseException:
            self._forget(identity.user_id)
            raise
        self.sessions.watch(identity.session_id, end)  # asks, now that no end goes unheard
        return stop

    async def ask(self, question: Callable[[], Awaitable[T]], what: str) -> T:
        """The database's answer, when it is back. A few at once: after a gap all readers ask, and
        callers must not wait behind thousands of them for a connection."""

        async def in_turn() -> T:
            async with self._turns:
                return await question()

        return await when_back(in_turn, what)

    async def added(
        self,
        user_id: str,
        after: Cursor | None,
        types: Types,
        began: datetime,
        teller: Teller | None = None,
    ) -> AsyncGenerator[tuple[Cursor, Notification], None]:
        """Every notification since `after` (since it `began`, without), each once, with its cursor:
        those that `teller` does not tell at once, while nothing else is to be told.

        Hints may be late, as the outbox that they wait in may be: what was told is read once more
        when it is settled. Raises Resync for a cursor that can't be resumed exactly.
        """
        hints = await self._register(user_id)
        arrivals: Arrivals | None = None
        try:
            if after is not None:
                await self._check_resumable(user_id, after, types)
            arrivals = Arrivals(
                user_id,
                after or await self._cursor_at(user_id, began),
                types,
                hints,
                teller,
                self._page,
                self._settling,
                self._clock,
                self._settings.max_cursor_ids,
            )
            hint: Hint | Page | None = None
            while True:
                async for cursor, notification in arrivals.new(hint):
                    yield cursor, notification
                if arrivals.is_full:
                    if hint is None:
                        await asyncio.sleep(self._settings.write_window_seconds)
                    hint = None  # reading settles what is older than the window
                    continue
                arrivals.see_to_settling()
                hint = None  # an idle reader keeps nothing
                hint = await hints.get()
        finally:
            self._leave(user_id, hints)
            hints.at_once = None
            if arrivals is not None:
                arrivals.is_over = True

    async def changed(
        self, user_id: str, began: datetime
    ) -> AsyncIterator[tuple[ChangeKind, Sequence[Notification], int]]:
        """Every change that is made since it `began`: what was changed, and the unread count after
        it.

        After a gap it tells the last change of each notification, where that was missed; a late
        hint may tell it again. Raises Resync when more than RESUME_LIMIT were missed, or when it is
        too much to remember, for the next gap, what was told.
        """
        async with self._registered(user_id) as hints:
            told = Told(began + self.window, self.window, self._settings.changes_remembered)
            ends = Ends(began)
            hints.lose_track()  # it may have waited long for the database
            while True:
                hint, is_gap = None, False
                with suppress(TimeoutError):  # something has expired
                    hint = await hints.get(ends.seconds_left(self._clock.now()))
                    is_gap = hint is None
                ends.hear(hint)
                if isinstance(hint, NotificationChanged):
                    count = await self._unread_count(user_id)
                    async for rows in self._in_parts(user_id, hint.notification_ids):
                        news = [row for row in rows if not told.knows(row, hint.kind)]
                        told.by_hint(news, hint.kind)
                        yield hint.kind, news, count
                now = self._clock.now()
                if is_gap or told.is_reading_due(now):
                    missed = await self._changes_missed(user_id, told, now, after_gap=is_gap)
                    count = await self._unread_count(user_id)
                    async for rows in self._in_parts(user_id, [str(one.id) for one in missed]):
                        for row in rows:
                            if row.change is not None:
                                yield row.change, [row], count
                if is_gap or ends.is_due(now):
                    since = ends.told_until
                    async with self._settling_turns:  # many may expire at the same time
                        ended = await self._ended(user_id, ends)
                        count = await self._unread_count(user_id) if ended else 0
                    async for rows in self._in_parts(user_id, ended, as_of=since):
                        yield ChangeKind.EXPIRED, rows, count
                if told.is_full:
                    raise Resync(f"Too much changes to keep up with it: {_READ_ANEW}")

    async def unread_counts(self, user_id: str) -> AsyncIterator[int]:
        """The unread count now, and whenever it is another."""
        async with self._registered(user_id) as hints:
            last: int | None = None
            ends, hint = Ends(self._clock.now()), None
            while True:
                if hint is None:
                    await self._look_ahead(user_id, ends)
                count = await self._unread_count(user_id)
                if count != last:
                    yield count
                last, hint = count, None
                with suppress(TimeoutError):  # something has expired
                    hint = await hints.get(ends.seconds_left(self._clock.now()))
                ends.hear(hint)

    async def _page(self, user_id: str, start: Position) -> Page:
        async def read() -> Page:
            now = self._clock.now()
            rows, is_last = await Notification.behind(user_id, start, _READ_AT_ONCE, now)
            return Page(rows, now - self.window, is_last)

        return await self.ask(read, "a subscription's read")

    @asynccontextmanager
    async def _registered(self, user_id: str) -> AsyncIterator[Hints]:
        hints = await self._register(user_id)
        try:
            yield hints
        finally:
            self._leave(user_id, hints)

    async def _register(self, user_id: str) -> Hints:
        """A reader of this user's, heard of until it leaves."""
        hints = Hints(self._settings.reader_queue_size)
        self._waiting[user_id].add(hints)
        try:
            await self._hear_of(user_id)
        except BaseException:
            self._leave(user_id, hints)
            raise
        return hints

    def _leave(self, user_id: str, hints: Hints) -> None:
        self._waiting[user_id].discard(hints)
        if not self._waiting[user_id]:
            del self._waiting[user_id]
        self._forget(user_id)

    async def _hear_of(self, user_id: str) -> None:
        self._heard_of[user_id] += 1
        if self._feed:
            await self._feed.watch(user_id)

    def _forget(self, user_id: str) -> None:
        self._heard_of[user_id] -= 1
        if not self._heard_of[user_id]:
            del self._heard_of[user_id]
            if self._feed:
                self._feed.unwatch(user_id)

    async def _cursor_at(self, user_id: str, began: datetime) -> Cursor:
        most = self._settings.max_cursor_ids
        return await self.ask(
            lambda: pages.cursor_at(user_id, began, self.window, most),
            "a subscription's start",
        )

    async def _check_resumable(self, user_id: str, after: Cursor, types: Types) -> None:
        """Raises Resync rather than skip silently, or make up for what no screen could show.

        Only what a first page would show counts: else its cursor would be no better than this one.
        """
        now, limit = self._clock.now(), self._settings.resume_limit
        ahead = after.position.sent_at > now + self.window
        if ahead and not await self._some(user_id, [str(after.position.object_id)]):
            raise Resync(f"This cursor is of a time to come: {_READ_ANEW}")
        ours = 2 * self._settings.max_cursor_ids  # settling is late for a few
        if not after.exact or len(after.seen) > ours:
            raise Resync(f"Too much happened around this cursor: {_READ_ANEW}")
        start = Progress(after).start
        seen = max(1, len(after.seen))
        asked = partial(
            Notification.more_than, user_id, Filter(types=types), start, limit + seen, now
        )
        if await self.ask(asked, "a subscription's start"):
            raise Resync(f"More than {limit} were sent since this cursor: {_READ_ANEW}")

    async def _changes_missed(
        self, user_id: str, told: Told, now: datetime, *, after_gap: bool
    ) -> Sequence[Change]:
        """The changes that `told` does not know yet; then it does.

        Too many: after a gap it raises Resync; without one their hints are yet to come.
        """
        limit = self._settings.resume_limit
        most = limit + len(told) + 1
        read = partial(Notification.changed_since, user_id, told.since, most, now)
        changes = await self.ask(read, "a subscription's changes")
        missed = told.missed(changes)
        if len(missed) > limit and after_gap:
            raise Resync(f"More than {limit} changes were missed: {_READ_ANEW}")
        if len(missed) > limit:
            told.put_off(now)
            return ()
        told.by_reading(changes, now)
        return missed

    async def _ended(self, user_id: str, ends: Ends) -> list[str]:
        """The ids of what has expired and was not told. Raises Resync when it is too much."""
        limit = self._settings.resume_limit
        now = self._clock.now()
        read = partial(Notification.ends, user_id, ends.told_until, now, limit + 2)
        ended = ends.read(await self.ask(read, "what expires"), now)
        if len(ended) > limit:
            raise Resync(f"More than {limit} have expired: {_READ_ANEW}")
        return ended

    async def _look_ahead(self, user_id: str, ends: Ends) -> None:
        """When the next one expires, and no more."""
        now = self._clock.now()
        read = partial(Notification.ends, user_id, now, now, 1)
        ends.read(await self.ask(read, "what expires"), now)

    async def _in_parts(
        self, user_id: str, ids: Sequence[str], as_of: datetime | None = None
    ) -> AsyncIterator[Sequence[Notification]]:
        """Those of the ids that are there, or were `as_of` then, a few at a time: they may be
        large."""
        for start in range(0, len(ids), _CHANGES_AT_ONCE):
            yield await self._some(user_id, ids[start : start + _CHANGES_AT_ONCE], as_of)

    async def _some(
        self, user_id: str, ids: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[Notification]:
        read = partial(Notification.some, user_id, ids, as_of or self._clock.now())
        return await self.ask(read, "a subscription's changes")

    async def _unread_count(self, user_id: str) -> int:
        async def count() -> int:
            return await Notification.unread_count(user_id, None, self._clock.now())

        return await self.ask(count, "an unread count")

    def _dispatch(self, event: Event) -> None:
        data = event.data
        if isinstance(data, NotificationCreated):
            self._tell(News(data), (Recipient(id=data.id, user_id=data.user_id),))
        elif isinstance(data, NotificationsCreated):
            self._tell(News.to_many(data), data.recipients)
        elif isinstance(data, NotificationChanged):
            for hints in self._waiting.get(data.user_id, ()):
                hints.put(data)
        elif isinstance(data, SessionsEnded):
            self.sessions.ended(data)

    def _tell(self, news: News, recipients: Iterable[Recipient]) -> None:
        for one in recipients:
            for hints in self._waiting.get(one.user_id, ()):
                hints.tell(news, one.id, one.user_id)
        news.send()

    def _lose_track(self) -> None:
        self.sessions.lose_track()
        for readers in self._waiting.values():
            for hints in readers:
                hints.lose_track()
