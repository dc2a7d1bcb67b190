"""When a cron expression fires, in its own time zone: pure, no clock inside.

croniter walks the calendar, and only the calendar: on naive wall time, over plain lists of numbers.
Fields are read and DST is crossed here: croniter 7 reads `0 5-5 * * *` as every hour, and fires
`30 2 * * *` twice in autumn.

The rule. Let w be a wall time that the expression names.
- A job that runs in all 24 hours of the day follows real time: it fires at every instant whose
  wall time is w. That is twice where autumn repeats w, and never where spring skips it.
- Any other job follows the wall clock: it fires once, at the first instant at which the clock has
  reached w. That is the first of autumn's two, and the end of spring's gap. Wall times that share
  an instant, as all in one gap do, share a fire. (Both as in cron(8) of vixie cron.)
- If neither day field is `*`, a day matches either of them, else both (POSIX crontab).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter
from croniter.croniter import DOW_ALPHAS, M_ALPHAS

from services.shared.clock import zone_names
from services.shared.errors import BadInput
from services.shared.wall_time import earliest, instants, latest

LONGEST_EXPRESSION = 100
LEAP_CYCLE_YEARS = 8  # 29 February 2096 to 29 February 2104: the longest wait there is
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
MINUTE = timedelta(minutes=1)


class _Field(NamedTuple):
    name: str
    first: int
    last: int  # the largest number one may write
    size: int  # how many there are: Sunday is both 0 and 7
    names: Mapping[str, int]


_FIELDS = (
    _Field("minute", 0, 59, 60, {}),
    _Field("hour", 0, 23, 24, {}),
    _Field("day-of-month", 1, 31, 31, {}),
    _Field("month", 1, 12, 12, M_ALPHAS),
    _Field("day-of-week", 0, 7, 7, DOW_ALPHAS),
)
_ITEM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)


@dataclass(frozen=True)
class Cron:
    """An expression in a zone, made by `parse`. Moments are aware; fires are aware UTC."""

    expression: str
    zone: ZoneInfo
    calendar: str  # the five fields for croniter: each `*` or a list of numbers
    every_hour: bool

    @classmethod
    def parse(cls, expression: str, timezone: str) -> Cron:
        """Read crontab(5)'s five fields, or an alias such as `@daily`, and an IANA zone's name.

        Lists, ranges, steps and names are read; a range may wrap (`22-2`, `SAT-SUN`), and `5/20`
        is `5-59/20`. Raises BadInput, of field `cron` or `timezone`, for anything else, and for a
        date that never comes (`0 0 30 2 *`).
        """
        if timezone not in zone_names():
            raise BadInput("Name an IANA time zone, spelled like Europe/Berlin.", "timezone")
        if len(expression) > LONGEST_EXPRESSION:
            raise _bad(f"Shorten the expression to at most {LONGEST_EXPRESSION} characters.")
        fields = ALIASES.get(expression.strip().lower(), expression).split()
        if len(fields) != len(_FIELDS):
            names = ", ".join(field.name for field in _FIELDS)
            raise _bad(f"Write five fields ({names}), no seconds or years: 30 9 * * MON.")
        numbers = [_numbers(field, text) for field, text in zip(_FIELDS, fields, strict=True)]
        calendar = " ".join(
            "*" if text == "*" else ",".join(map(str, sorted(chosen)))
            for text, chosen in zip(fields, numbers, strict=True)
        )
        every_hour = len(numbers[1]) == 24
        cron = cls(" ".join(expression.split()), ZoneInfo(timezone), calendar, every_hour)
        try:
            cron._walk(datetime.fromisoformat("2000-01-01")).get_next()
        except CroniterBadDateError as error:
            raise _bad("Choose a day that its month has: this date never comes.") from error
        return cron

    def next_after(self, moment: datetime) -> datetime:
        """The first fire strictly after `moment`. Raises ValueError if `moment` is naive."""
        wall, repeated = self._read(moment)
        return min(self._first_after(start, moment) for start in {wall, wall - repeated})

    def latest_until(self, moment: datetime, since: datetime) -> datetime:
        """The last fire in [since, moment], where `since` is a fire: the one to make up for.

        The cost does not grow with the number of fires between. Raises ValueError if `moment` is
        naive or before `since`.
        """
        wall, repeated = self._read(moment)
        if moment < since:
            raise ValueError(f"{moment} is before {since}")
        found = max(self._last_until(start, moment) for start in {wall, wall + repeated})
        return max(found, since.astimezone(UTC))

    def fire_id(self, fire: datetime) -> str:
        """The fire's wall time and UTC offset, `2026-10-25T02:30:00+02:00`: for event ids."""
        return fire.astimezone(self.zone).isoformat(timespec="seconds")

    def _read(self, moment: datetime) -> tuple[datetime, timedelta]:
        """The wall time at `moment`, and the length of the repeated stretch it is in, or zero.

        In such a stretch the order of wall times isn't that of instants: look from both readings.
        """
        if moment.tzinfo is None:
            raise ValueError(f"{moment} has no time zone")
        wall = moment.astimezone(self.zone).replace(tzinfo=None, second=0, microsecond=0, fold=0)
        return wall, latest(wall, self.zone) - earliest(wall, self.zone)

    def _first_after(self, wall: datetime, moment: datetime) -> datetime:
        walk = self._walk(wall)
        while True:
            if later := [fire for fire in self._fires(walk.get_next()) if fire > moment]:
                return min(later)

    def _last_until(self, wall: datetime, moment: datetime) -> datetime:
        walk = self._walk(wall + MINUTE)  # `wall` itself counts
        while True:
            if earlier := [fire for fire in self._fires(walk.get_prev()) if fire <= moment]:
                return max(earlier)

    def _walk(self, wall: datetime) -> croniter[datetime]:
        return croniter(self.calendar, wall, datetime, max_years_between_matches=LEAP_CYCLE_YEARS)

    def _fires(self, wall: datetime) -> list[datetime]:
        """The instants of `wall`, a wall time that the expression names."""
        return instants(wall, self.zone) if self.every_hour else [earliest(wall, self.zone)]


def _numbers(field: _Field, text: str) -> set[int]:
    chosen: set[int] = set()
    for item in text.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise _bad(f"{field.name}: write {item!r} as *, a number, a range or a step.")
        start, end, step = match[1], match[2], int(match[3] or 1)
        low = _number(field, start) if start else field.first
        high = field.first + field.size - 1
        if end or (start and not match[3]):
            high = _number(field, end) if end else low
        if not 1 <= step <= field.size:
            raise _bad(f"{field.name}: choose a step from 1 to {field.size}, not {step}.")
        stop = high + 1 + (field.size if high < low else 0)
        chosen |= {field.first + (n - field.first) % field.size for n in range(low, stop, step)}
    return chosen


def _number(field: _Field, text: str) -> int:
    if text in field.names:
        return field.names[text]
    if text.isdecimal() and field.first <= int(text) <= field.last:
        return int(text)
    raise _bad(f"{field.name}: {text!r} is not one of {field.first}-{field.last}.")


def _bad(message: str) -> BadInput:
    return BadInput(message, field="cron")
