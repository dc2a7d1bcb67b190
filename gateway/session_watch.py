"""Whether the sessions of open websockets are open: ends those whose session has ended.

At once when an event tells it; and since events may be lost, all are looked up after a gap and
every SESSION_CHECK_SECONDS.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from services.shared.clock import Clock
from services.shared.events import SessionsEnded
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled
from services.shared.worker import when_back
from services.users.credentials import Session

_ASKED_AT_ONCE: Final = 1000


class SessionWatch:
    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._seconds = settings.session_check_seconds
        self._watched: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)
        self._unchecked: set[str] = set()
        self._news = asyncio.Event()

    def watch(self, session_id: str, end: Callable[[], None]) -> None:
        """Have `end` called when the session ends, or has ended already."""
        self._watched[session_id].add(end)
        self._unchecked.add(session_id)
        self._news.set()

    def unwatch(self, session_id: str, end: Callable[[], None]) -> None:
        self._watched[session_id].discard(end)
        if not self._watched[session_id]:
            del self._watched[session_id]

    def ended(self, event: SessionsEnded) -> None:
        for session_id in event.session_ids:
            self._end(session_id)

    def lose_track(self) -> None:
        """Some events may be missing."""
        self._unchecked |= self._watched.keys()
        self._news.set()

    async def keep_checking(self) -> None:
        """Look up what is new, and all from time to time, until cancelled."""
        loop = asyncio.get_running_loop()
        all_due = loop.time() + self._seconds
        while True:
            end_if_cancelled()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(all_due):
                    await self._news.wait()
            if loop.time() >= all_due:  # however much news there was
                all_due = loop.time() + self._seconds
                self.lose_track()
            self._news.clear()
            ids, self._unchecked = list(self._unchecked), set()
            for start in range(0, len(ids), _ASKED_AT_ONCE):
                part = ids[start : start + _ASKED_AT_ONCE]
                look_up = partial(Session.still_open, part, self._clock.now())
                still_open = await when_back(look_up, "the sessions of websockets")
                for session_id in set(part) - still_open:
                    self._end(session_id)

    def _end(self, session_id: str) -> None:
        for end in tuple(self._watched.get(session_id, ())):
            end()
