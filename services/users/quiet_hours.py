"""When a channel shall be quiet: a week of windows, read on the user's own clock. Pure.

The rule. A window has days and two times, and is on from the one, inclusive, to the other,
exclusive. With an end that is not after its start it runs into the next day: it belongs to the day
on which it starts, and with both equal it takes 24 hours by the clock. Windows that touch or
overlap are one.

Where clocks change, the user is disturbed too little rather than too much: a start that comes
twice counts the first time, an end the second. Either one that is skipped is the end of the gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from services.shared.errors import BadInput
from services.shared.vocabulary import Channel, QuietAction, Weekday
from services.shared.wall_time import earliest, latest

_TIME: Final = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)
_WEEK: Final = tuple(Weekday)
_DAY_MINUTES: Final = 24 * 60
_WEEK_MINUTES: Final = 7 * _DAY_MINUTES
# Days from the start of a window to a moment at which it is on, by the clock. Usually 0 or 1; 2 if
# it ends in an hour that is repeated after midnight, -1 if it starts in one.
_DAYS_AGO: Final = (-1, 0, 1, 2)


class QuietWindow(BaseModel, frozen=True):
    """`days`: on which it starts, in the week's order; `start` and `end`: HH:MM."""

    days: tuple[Weekday, ...]
    start: str
    end: str

    @property
    def minutes(self) -> int:
        """How long it is by the clock: 1 to 1440."""
        length = (_minute(self.end) - _minute(self.start)) % _DAY_MINUTES
        return length or _DAY_MINUTES

    def bounds(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """The instants, UTC, at which the one of that day starts and ends."""
        start = datetime.combine(day, time.min) + timedelta(minutes=_minute(self.start))
        end = start + timedelta(minutes=self.minutes)
        return earliest(start, zone), latest(end, zone)


class QuietHours(BaseModel, frozen=True):
    """What a user chose for a channel: when it is quiet, and what happens to what falls there."""

    action: QuietAction
    windows: tuple[QuietWindow, ...]

    def quiet_until(self, instant: datetime, zone: ZoneInfo) -> datetime | None:
        """When the quiet that holds at `instant` ends, UTC; None where it doesn't. `zone` is the
        user's."""
        end = instant
        while (later := self._end_of_one_on(end, zone)) is not None:
            end = later
        return end if end > instant else None

    def _end_of_one_on(self, instant: datetime, zone: ZoneInfo) -> datetime | None:
        today = instant.astimezone(zone).date()
        days = [today - timedelta(days=ago) for ago in _DAYS_AGO]
        bounds = (
            window.bounds(day, zone)
            for day in days
            for window in self.windows
            if _WEEK[day.weekday()] in window.days
        )
        return next((end for start, end in bounds if start <= instant < end), None)


QuietChoices = dict[Channel, QuietHours]


@dataclass(frozen=True, slots=True)
class QuietChange:
    """A wish to give a channel these windows instead of its own; none takes them away."""

    channel: Channel
    action: QuietAction
    windows: tuple[QuietWindow, ...]


def merge_quiet(
    choices: Mapping[Channel, QuietHours],
    changes: Sequence[QuietChange],
    field: str,
    most_windows: int,
) -> QuietChoices:
    """The choices with the changes in them. Raises BadInput for what is no week of windows.

    `field` is the path of the list of changes in the caller's input.
    """
    merged = dict(choices)
    seen: set[Channel] = set()
    for index, change in enumerate(changes):
        place = f"{field}[{index}]"
        if change.channel is Channel.IN_APP:
            raise BadInput("In the app nothing is delayed: leave IN_APP out.", f"{place}.channel")
        if change.channel in seen:
            raise BadInput(
                f"{change.channel.name} is named twice: put all of its windows in one place.",
                f"{place}.channel",
            )
        seen.add(change.channel)
        merged.pop(change.channel, None)
        if change.windows:
            windows = _checked(change.windows, f"{place}.windows", most_windows)
            merged[change.channel] = QuietHours(action=change.action, windows=windows)
    return merged


def _checked(
    windows: Sequence[QuietWindow], field: str, most_windows: int
) -> tuple[QuietWindow, ...]:
    if len(windows) > most_windows:
        raise BadInput(
            f"Give at most {most_windows} windows (MAX_QUIET_WINDOWS): one may have many days.",
            field,
        )
    for index, window in enumerate(windows):
        place = f"{field}[{index}]"
        if not window.days:
            raise BadInput("Name a day at least, or leave days out for all.", f"{place}.days")
        for name, text in (("start", window.start), ("end", window.end)):
            if not _TIME.fullmatch(text):
                raise BadInput(
                    "Write a time as HH:MM, from 00:00 to 23:59; the end of the day is 00:00.",
                    f"{place}.{name}",
                )
    if _fill_the_week(windows):
        raise BadInput(
            "These windows leave no time in the week: switch the channel off instead.", field
        )
    return tuple(_tidy(window) for window in windows)


def _fill_the_week(windows: Iterable[QuietWindow]) -> bool:
    """Free time, if there is any, begins where one window ends and no other is on."""
    spans = [
        (_WEEK.index(day) * _DAY_MINUTES + _minute(window.start), window.minutes)
        for window in windows
        for day in window.days
    ]
    return all(
        any((start + length - other) % _WEEK_MINUTES < its_length for other, its_length in spans)
        for start, length in spans
    )


def _tidy(window: QuietWindow) -> QuietWindow:
    """Each day once, in the week's order."""
    return QuietWindow(
        days=tuple(day for day in _WEEK if day in window.days), start=window.start, end=window.end
    )


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
