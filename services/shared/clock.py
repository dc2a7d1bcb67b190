"""Time as a dependency: whoever needs the hour is handed a clock."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The current instant, aware, in UTC, in whole milliseconds (what MongoDB keeps)."""


class SystemClock:
    def now(self) -> datetime:
        return whole_milliseconds(datetime.now(UTC))


def whole_milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@cache
def zone_names() -> frozenset[str]:
    """IANA's names from the locked tzdata; a machine's own list may add its `localtime`."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())
