"""At which instants the clocks of a zone show a wall time. Pure.

Most wall times come once. Where clocks go forward some are skipped, where they go back some come
twice. Wall times are naive, instants aware and UTC.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


def instants(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """All instants at which clocks show `wall`, in order: none where they skip it, or one, or
    two."""
    first, second = _folds(wall, zone)
    if first == second:
        return [first]
    return [first, second] if first < second else []


def earliest(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first instant at which clocks show `wall`; the end of the gap where they skip it."""
    first, second = _folds(wall, zone)
    return first if first <= second else _end_of_gap(second, first, wall, zone)


def latest(wall: datetime, zone: ZoneInfo) -> datetime:
    """The last instant at which clocks show `wall`; the end of the gap where they skip it."""
    first, second = _folds(wall, zone)
    return second if first <= second else _end_of_gap(second, first, wall, zone)


def _folds(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """`wall` read with fold 0 and 1 (PEP 495): rising where repeated, falling in a gap."""
    first, second = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    return first.astimezone(UTC), second.astimezone(UTC)


def _end_of_gap(before: datetime, after: datetime, wall: datetime, zone: ZoneInfo) -> datetime:
    """The first second in [before, after] at which the clock has reached `wall`."""

    def clock(second: int) -> datetime:
        return (before + timedelta(seconds=second)).astimezone(zone).replace(tzinfo=None)

    seconds = range(int((after - before).total_seconds()))
    return before + timedelta(seconds=bisect_left(seconds, wall, key=clock))
