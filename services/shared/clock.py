"""Time as a dependency: whoever needs the hour is handed a clock."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Final, Protocol

_SAMPLES: Final = 5
_FIRST_SAMPLES: Final = 20
_SLOW_SECONDS: Final = 0.1


def steady() -> float:
    """Seconds that nobody sets, and that count on while the machine sleeps, where it tells them."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Clock(Protocol):
    def now(self) -> datetime:
        """The current instant, aware, in UTC, in whole milliseconds (what MongoDB keeps)."""


class SystemClock:
    def now(self) -> datetime:
        return whole_milliseconds(datetime.now(UTC))


class DatabaseClock:
    """The database's time, carried on by this machine's steady clock.

    So all processes agree to within a network's round trip, and a wall clock that jumps moves
    nobody. It is right once `adjust` has been called.
    """

    def __init__(self, ask: Callable[[], Awaitable[datetime]]) -> None:
        """`ask`: the database's own time, aware."""
        self._ask = ask
        self._was_told = False
        self._started = SystemClock().now() - timedelta(seconds=steady())

    def now(self) -> datetime:
        return whole_milliseconds(self._started + timedelta(seconds=steady()))

    async def adjust(self) -> None:
        """Ask the database anew: of a few answers, that of the shortest round trip counts.

        When all are slow the former answer is the better one; the first time it asks longer.
        """
        best = float("inf")
        for asked in range(_FIRST_SAMPLES):
            if asked >= _SAMPLES and (self._was_told or best < _SLOW_SECONDS):
                break
            before = steady()
            told = await self._ask()
            after = steady()
            if after - before < best:
                best = after - before
                started = told - timedelta(seconds=(before + after) / 2)
        if best < _SLOW_SECONDS or not self._was_told:
            self._started, self._was_told = started, True


def whole_milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@cache
def zone_names() -> frozenset[str]:
    """IANA's names from the locked tzdata; a machine's own list may add its `localtime`."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())
