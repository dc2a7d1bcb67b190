"""Quiet hours: known nights, every refusal, and an oracle that walks minute by minute.

The oracle knows nothing of folds. It reads the zone's clock at every real minute of some days: a
window is on from the first minute that shows its start to the last that shows its end, and what no
minute shows is the first that shows more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cache, partial
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.shared.clock import zone_names
from services.shared.errors import BadInput
from services.shared.vocabulary import Channel, QuietAction, Weekday
from services.users.quiet_hours import (
    QuietChange,
    QuietChoices,
    QuietHours,
    QuietWindow,
    merge_quiet,
)

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
WEEK = tuple(Weekday)
MOST = 14


def window(text: str) -> QuietWindow:
    """`sat sun 22:00-07:00`; without days it is on all of them."""
    *days, times = text.split()
    start, end = times.split("-")
    chosen = [day for day in WEEK if not days or day.value[:3] in days]
    return QuietWindow(days=tuple(chosen), start=start, end=end)


def hours(*windows: str) -> QuietHours:
    return QuietHours(action=QuietAction.DEFER, windows=tuple(map(window, windows)))


def until(hours: QuietHours, zone: str, moment: str) -> str | None:
    """As the zone's clock shows it; `moment` has an offset, or is the first that the clock shows
    like this."""
    there = ZoneInfo(zone)
    instant = datetime.fromisoformat(moment)
    instant = instant if instant.tzinfo else instant.replace(tzinfo=there)
    end = hours.quiet_until(instant, there)
    return end.astimezone(there).isoformat(timespec="minutes") if end else None


# Known nights. 2026-01-05 is a Monday.

NIGHT = ["22:00-07:00"]
WEEKEND = ["sat 00:00-00:00", "sun 00:00-00:00"]


@pytest.mark.parametrize(
    ("windows", "zone", "moment", "end"),
    [
        pytest.param(
            ["12:00-14:00"],
            "Europe/Vienna",
            "2026-01-05T12:00",
            "2026-01-05T14:00+01:00",
            id="the start is quiet",
        ),
        pytest.param(
            ["12:00-14:00"], "Europe/Vienna", "2026-01-05T14:00", None, id="the end is not"
        ),
        pytest.param(
            ["12:00-14:00"],
            "Europe/Vienna",
            "2026-01-05T11:59:59.999",
            None,
            id="nor is the last moment before",
        ),
        pytest.param(
            ["12:00-14:00"],
            "Europe/Vienna",
            "2026-01-05T13:59:59.999",
            "2026-01-05T14:00+01:00",
            id="the last moment is",
        ),
        pytest.param(
            NIGHT,
            "Europe/Vienna",
            "2026-01-05T23:00",
            "2026-01-06T07:00+01:00",
            id="a night, before midnight",
        ),
        pytest.param(
            NIGHT,
            "Europe/Vienna",
            "2026-01-06T06:59",
            "2026-01-06T07:00+01:00",
            id="a night, after midnight",
        ),
        pytest.param(NIGHT, "Europe/Vienna", "2026-01-06T12:00", None, id="the day between nights"),
        pytest.param(
            NIGHT,
            "America/New_York",
            "2026-01-06T06:00+01:00",
            "2026-01-06T07:00-05:00",
            id="the clock is the user's",
        ),
        pytest.param(
            ["fri 22:00-07:00"],
            "Europe/Vienna",
            "2026-01-10T06:00",
            "2026-01-10T07:00+01:00",
            id="Friday's night is on on Saturday morning",
        ),
        pytest.param(
            ["fri 22:00-07:00"],
            "Europe/Vienna",
            "2026-01-09T06:00",
            None,
            id="and not on Friday morning",
        ),
        pytest.param(
            ["sun 22:00-07:00"],
            "Europe/Vienna",
            "2026-01-05T06:00",
            "2026-01-05T07:00+01:00",
            id="Sunday's night ends on Monday",
        ),
        pytest.param(
            WEEKEND,
            "Europe/Vienna",
            "2026-01-10T00:00",
            "2026-01-12T00:00+01:00",
            id="equal times are a whole day, and two days that touch are one",
        ),
        pytest.param(WEEKEND, "Europe/Vienna", "2026-01-12T00:00", None, id="but not a third"),
        pytest.param(
            ["mon 18:00-18:00"],
            "Europe/Vienna",
            "2026-01-06T17:59",
            "2026-01-06T18:00+01:00",
            id="equal times take 24 hours from their start",
        ),
        pytest.param(
            ["mon 18:00-18:00"], "Europe/Vienna", "2026-01-05T17:59", None, id="and none before it"
        ),
        pytest.param(
            ["20:00-23:00", "22:00-06:00", "06:00-07:30"],
            "Europe/Vienna",
            "2026-01-05T20:00",
            "2026-01-06T07:30+01:00",
            id="those that overlap or touch are one",
        ),
        pytest.param(
            ["20:00-23:00", "21:00-22:00"],
            "Europe/Vienna",
            "2026-01-05T21:30",
            "2026-01-05T23:00+01:00",
            id="one within another does not end it",
        ),
        pytest.param(
            ["20:00-23:00", "23:01-06:00"],
            "Europe/Vienna",
            "2026-01-05T20:00",
            "2026-01-05T23:00+01:00",
            id="a minute between them is not quiet",
        ),
        pytest.param(
            ["mon 08:01-08:00", "tue wed thu fri sat sun 08:00-08:00"],
            "Europe/Vienna",
            "2026-01-05T08:01",
            "2026-01-12T08:00+01:00",
            id="all of the week but one minute",
        ),
        pytest.param(
            ["01:00-02:30"],
            "Europe/Vienna",
            "2026-03-29T01:30",
            "2026-03-29T03:00+02:00",
            id="spring skips the end: quiet ends with the gap",
        ),
        pytest.param(
            ["02:30-05:00"],
            "Europe/Vienna",
            "2026-03-29T03:00",
            "2026-03-29T05:00+02:00",
            id="spring skips the start: quiet starts with the end of the gap",
        ),
        pytest.param(
            ["02:30-05:00"], "Europe/Vienna", "2026-03-29T01:59:59", None, id="and not before"
        ),
        pytest.param(
            ["02:10-02:50"],
            "Europe/Vienna",
            "2026-03-29T03:00",
            None,
            id="spring skips both: there is none",
        ),
        pytest.param(
            NIGHT,
            "Europe/Vienna",
            "2026-03-28T22:00",
            "2026-03-29T07:00+02:00",
            id="spring's night is an hour shorter",
        ),
        pytest.param(
            ["02:30-05:00"],
            "Europe/Vienna",
            "2026-10-25T02:30+02:00",
            "2026-10-25T05:00+01:00",
            id="autumn repeats the start: the first counts",
        ),
        pytest.param(
            ["02:30-05:00"],
            "Europe/Vienna",
            "2026-10-25T02:00+01:00",
            "2026-10-25T05:00+01:00",
            id="and quiet goes on though the clock shows less again",
        ),
        pytest.param(
            ["01:00-02:30"],
            "Europe/Vienna",
            "2026-10-25T02:45+02:00",
            "2026-10-25T02:30+01:00",
            id="autumn repeats the end: the second counts",
        ),
        pytest.param(
            ["01:00-02:00"],
            "Europe/Vienna",
            "2026-10-25T02:30+02:00",
            "2026-10-25T02:00+01:00",
            id="also where it is the hour that comes back",
        ),
        pytest.param(
            ["02:10-02:20"],
            "Europe/Vienna",
            "2026-10-25T02:40+02:00",
            "2026-10-25T02:20+01:00",
            id="autumn repeats both: from the first start to the second end",
        ),
        pytest.param(
            ["sun 02:30-02:00", "mon tue wed thu fri sat 02:00-02:00"],
            "Europe/Vienna",
            "2026-10-24T12:00",
            "2026-11-01T02:00+01:00",
            id="autumn leaves nothing of the free half hour: the next week's ends it",
        ),
        pytest.param(
            ["sun 03:00-02:00", "mon tue wed thu fri sat 02:00-02:00"],
            "Europe/Vienna",
            "2026-03-28T12:00",
            "2026-04-05T02:00+02:00",
            id="spring skips the free hour: the next week's ends it",
        ),
        pytest.param(
            ["00:00-01:00"],
            "America/Havana",
            "2026-11-01T00:30-05:00",
            "2026-11-01T01:00-05:00",
            id="midnight comes twice in Havana",
        ),
        pytest.param(
            ["fri 23:30-23:30"],
            "America/St_Johns",
            "2010-11-07T00:00:30-02:30",
            "2010-11-06T23:30-03:30",
            id="Sunday went back to Saturday in St John's: Friday's window was on again",
        ),
        pytest.param(
            ["sun 00:00-06:00"],
            "America/St_Johns",
            "2010-11-06T23:45-03:30",
            "2010-11-07T06:00-03:30",
            id="and Sunday's already",
        ),
        pytest.param(
            ["fri 09:00-17:00"],
            "Pacific/Apia",
            "2011-12-31T00:00",
            None,
            id="Samoa skipped a Friday, and its window",
        ),
        pytest.param(
            ["thu 22:00-07:00"],
            "Pacific/Apia",
            "2011-12-29T23:00",
            "2011-12-31T00:00+14:00",
            id="Thursday's night ended with the skipped day",
        ),
        pytest.param(
            ["fri 22:00-07:00"],
            "Pacific/Apia",
            "2011-12-31T06:00",
            "2011-12-31T07:00+14:00",
            id="the skipped day's night is on at its end",
        ),
    ],
)
def test_known_nights(windows: list[str], zone: str, moment: str, end: str | None) -> None:
    assert until(hours(*windows), zone, moment) == end


def test_its_end_is_utc() -> None:
    end = hours(*NIGHT).quiet_until(datetime(2026, 1, 5, 23, tzinfo=UTC), ZoneInfo("Asia/Kolkata"))
    assert end is not None
    assert end.tzinfo is UTC


# The oracle


class Walk:
    """Every real minute of some days, and what the zone's clock shows at it."""

    def __init__(self, zone: ZoneInfo, start: datetime, end: datetime) -> None:
        self.zone = zone
        self.instants = [start + minute * MINUTE for minute in range(int((end - start) / MINUTE))]
        self.shown = [instant.astimezone(zone).replace(tzinfo=None) for instant in self.instants]
        self.showing: dict[datetime, list[int]] = {}
        for minute, wall in enumerate(self.shown):
            self.showing.setdefault(wall, []).append(minute)

    def quiet(self, hours: QuietHours) -> list[bool]:
        """Of each minute, whether a window is on."""
        found = [False] * len(self.shown)
        day, last_day = min(self.shown).date() - 2 * DAY, max(self.shown).date()
        while day <= last_day:
            for window in hours.windows:
                if WEEK[day.weekday()] in window.days:
                    start = datetime.combine(day, time.fromisoformat(window.start))
                    end = datetime.combine(day, time.fromisoformat(window.end))
                    end = end if end > start else end + DAY
                    first, last = self._minutes(start)[0], self._minutes(end)[-1]
                    found[first:last] = [True] * (last - first)
            day += DAY
        return found

    def _minutes(self, wall: datetime) -> list[int]:
        """All that show `wall`, or else the first that shows more."""
        more = (minute for minute, shown in enumerate(self.shown) if shown > wall)
        return self.showing.get(wall) or [next(more, len(self.shown))]

    def end(self, quiet: Sequence[bool], moment: datetime) -> datetime | None:
        """When the quiet at `moment` ends. Raises ValueError if that is after the walk's end."""
        minute = int((moment - self.instants[0]) / MINUTE)
        return self.instants[quiet.index(False, minute)] if quiet[minute] else None


Transition = tuple[ZoneInfo, datetime]


@cache
def transitions(year: int) -> list[Transition]:
    """The first instants of new UTC offsets, of every zone, in five years from that one.

    Of zones whose clocks go at one instant from the same offset to the same, the first is here.
    """
    found: dict[tuple[object, ...], Transition] = {}
    start = datetime(year, 1, 1, tzinfo=UTC)
    days = [start + day * DAY for day in range(5 * 365 + 2)]
    for name in sorted(zone_names()):
        zone = ZoneInfo(name)
        offsets = [day.astimezone(zone).utcoffset() for day in days]
        for day, before, after in zip(days, offsets, offsets[1:], strict=False):
            if before != after:
                minute = bisect_left(range(1440), True, key=partial(_has_left, zone, day, before))
                instant = day + minute * MINUTE
                found.setdefault((instant, before, after), (zone, instant))
    return list(found.values())


def _has_left(zone: ZoneInfo, day: datetime, offset: timedelta | None, minute: int) -> bool:
    return (day + minute * MINUTE).astimezone(zone).utcoffset() != offset


def times_around(zone: ZoneInfo, transition: datetime) -> list[datetime]:
    """Of the times that it skips or repeats the first, one within and the end, and two beyond."""
    second = timedelta(seconds=1)
    before = (transition - second).astimezone(zone).replace(tzinfo=None) + second
    after = transition.astimezone(zone).replace(tzinfo=None)
    first, end = min(before, after), max(before, after)
    return [first - 20 * MINUTE, first, first + 10 * MINUTE, end, end + 20 * MINUTE]


MOMENTS = (-121, -61, -60, -50, -20, -1, 0, 10, 20, 59, 60)  # minutes


def test_every_zones_transitions_of_five_years_are_crossed_as_the_oracle_walks_them() -> None:
    assert len(transitions(2021)) > 300
    for zone, transition in transitions(2021):
        walk = Walk(zone, transition - DAY, transition + 3 * DAY)
        times = times_around(zone, transition)
        days = {(wall - ago * DAY).weekday() for wall in times for ago in (0, 1)}
        named = " ".join(WEEK[day][:3] for day in days)
        for start, end in product(times, times):
            chosen = hours(f"{named} {start:%H:%M}-{end:%H:%M}")
            quiet = walk.quiet(chosen)
            for minutes in MOMENTS:
                moment = transition + minutes * MINUTE
                assert chosen.quiet_until(moment, zone) == walk.end(quiet, moment), (chosen, moment)


# Properties


def weeks(near: Sequence[str]) -> st.SearchStrategy[QuietHours]:
    """Some windows, whose times often are those given."""
    any_time = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
    times = st.sampled_from(near) | any_time
    days = st.just(WEEK) | st.sets(st.sampled_from(WEEK), min_size=1).map(tuple)
    windows = st.lists(st.builds(QuietWindow, days=days, start=times, end=times), max_size=4)
    return st.builds(QuietHours, action=st.just(QuietAction.DEFER), windows=windows.map(tuple))


def save(*windows: QuietWindow, field: str = "input.quietHours") -> QuietChoices:
    change = QuietChange(Channel.EMAIL, QuietAction.DEFER, windows)
    return merge_quiet({}, [change], field, MOST)


@settings(max_examples=100)
@given(st.data())
def test_any_week_ends_at_any_moment_near_a_transition_as_the_oracle_walks_it(
    data: st.DataObject,
) -> None:
    zone, transition = data.draw(st.sampled_from(transitions(2007) + transitions(2021)))
    near = [f"{wall:%H:%M}" for wall in times_around(zone, transition)]
    chosen = data.draw(weeks(near))
    try:
        save(*chosen.windows)
    except BadInput:
        assume(False)
    walk = Walk(zone, transition - 2 * DAY, transition + 16 * DAY)
    quiet = walk.quiet(chosen)
    for seconds in data.draw(st.lists(st.integers(-100_000, 100_000), min_size=5, max_size=5)):
        moment = transition + timedelta(seconds=seconds)
        assert chosen.quiet_until(moment, zone) == walk.end(quiet, moment)


@settings(max_examples=60)
@given(weeks(["00:00", "12:00"]))
def test_windows_are_refused_when_no_minute_of_the_week_is_left(week: QuietHours) -> None:
    monday = datetime(2026, 1, 5, tzinfo=UTC)
    walk = Walk(ZoneInfo("UTC"), monday, monday + 7 * DAY)
    if all(walk.quiet(week)):
        with pytest.raises(BadInput, match="switch the channel off instead"):
            save(*week.windows)
    else:
        save(*week.windows)


# Refusals


@pytest.mark.parametrize(
    ("windows", "place", "told"),
    [
        (["25:00-07:00"], "[0].start", "HH:MM"),
        (["12:00-13:00", "22:00-24:00"], "[1].end", "the end of the day is 00:00"),
        (["22:60-07:00"], "[0].start", "HH:MM"),
        (["7:00-08:00"], "[0].start", "HH:MM"),
        (["07:00:00-08:00"], "[0].start", "HH:MM"),
        (["07:00-"], "[0].end", "HH:MM"),
        (["0٧:00-08:00"], "[0].start", "HH:MM"),
        (["nil 07:00-08:00"], "[0].days", "a day at least"),
        ([f"{hour:02}:00-{hour:02}:30" for hour in range(15)], "", "at most 14 windows"),
        (["00:00-00:00"], "", "switch the channel off"),
        (["22:00-07:00", "06:00-22:00"], "", "switch the channel off"),
        (["mon 12:00-12:00", "tue wed thu fri sat sun 12:00-12:00"], "", "switch the channel off"),
    ],
)
def test_a_week_that_is_none_is_refused_with_its_place(
    windows: list[str], place: str, told: str
) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        save(*map(window, windows), field="input.quietHours")
    assert caught.value.field == f"input.quietHours[0].windows{place}"


def test_a_minute_a_week_may_be_left() -> None:
    assert save(window("mon 08:01-08:00"), window("tue wed thu fri sat sun 08:00-08:00"))


def test_days_are_kept_once_and_in_order() -> None:
    days = (Weekday.SUNDAY, Weekday.MONDAY, Weekday.SUNDAY)
    kept = save(QuietWindow(days=days, start="10:00", end="11:00"))
    assert kept[Channel.EMAIL].windows[0].days == (Weekday.MONDAY, Weekday.SUNDAY)
