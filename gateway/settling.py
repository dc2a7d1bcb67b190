"""Looks once more at what readers were told, when it is settled.

A hint may overtake one that was stamped before it, or that one may be lost: what the database has
then and a reader has not seen is read for it. A broadcast makes thousands of readers due at the
same moment, so many are looked up with one question, which the index of places answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from gateway.hints import Page
from services.notifications.cursor import Position
from services.notifications.models import Notification
from services.shared.clock import Clock
from services.shared.tasks import end_if_cancelled

ReadPage = Callable[[str, Position], Awaitable[Page]]
Ask = Callable[[Callable[[], Awaitable[Any]], str], Awaitable[Any]]

BREATH: Final = 0.1  # seconds
_GATHERED: Final = 0.1  # seconds for which others may become due
_READERS_AT_ONCE: Final = 100


class Reader(Protocol):
    user_id: str
    is_over: bool

    @property
    def start(self) -> Position: ...

    def settle(self, places: Sequence[Position], settled: datetime) -> bool: ...

    def settled(self, page: Page | None = None) -> None: ...

    def lose_track(self) -> None: ...


class Settling:
    """`read`: a reader's page. `ask`: for the database's answer, when it is back. `turns`: of
    those who read pages only to be sure. `most_places`: that one question may be answered with."""

    def __init__(
        self,
        read: ReadPage,
        ask: Ask,
        clock: Clock,
        window: timedelta,
        turns: asyncio.Semaphore,
        most_places: int = 2000,
    ) -> None:
        self._read = read
        self._ask = ask
        self._clock = clock
        self._window = window
        self._wait = window.total_seconds() + BREATH
        self._turns = turns
        self._most_places = most_places
        self._line: deque[tuple[float, Reader]] = deque()
        self._news = asyncio.Event()

    def add(self, reader: Reader) -> None:
        """Look when all that it has been told by now is settled."""
        self._line.append((monotonic() + self._wait, reader))
        self._news.set()

    async def keep_settling(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                end_if_cancelled()
                while not self._line:
                    self._news.clear()
                    await self._news.wait()
                await asyncio.sleep(max(0.0, self._line[0][0] + _GATHERED - monotonic()))
                for reader in await self._settle(self._due(monotonic())):
                    group.create_task(self._look_up(reader))

    def _due(self, now: float) -> list[Reader]:
        readers: list[Reader] = []
        while self._line and self._line[0][0] <= now and len(readers) < _READERS_AT_ONCE:
            reader = self._line.popleft()[1]
            if not reader.is_over:
                readers.append(reader)
        return readers

    async def _settle(self, readers: Sequence[Reader]) -> Sequence[Reader]:
        """Those that have not seen all, or may not have."""
        if not readers:
            return ()
        readers = sorted(readers, key=lambda reader: reader.start)
        first = readers[0].start
        users = list({reader.user_id for reader in readers})
        settled = self._clock.now() - self._window
        read = partial(Notification.places_of, users, first, self._most_places)
        try:
            places = await self._ask(read, "what was told")
        except Exception:
            for reader in readers:
                reader.lose_track()
            return ()
        if places is None and len(readers) == 1:
            return readers
        if places is None:  # those who start long before the others ask for too many
            half = len(readers) // 2
            return [*await self._settle(readers[:half]), *await self._settle(readers[half:])]
        return [
            reader
            for reader in readers
            if not (reader.is_over or reader.settle(places.get(reader.user_id, ()), settled))
        ]

    async def _look_up(self, reader: Reader) -> None:
        try:
            async with self._turns:
                page = await self._read(reader.user_id, reader.start)
        except (Exception, asyncio.CancelledError):
            reader.lose_track()
            end_if_cancelled()
        else:
            reader.settled(page)
