"""Cron in time zones: known nights, every refusal, and an oracle that walks minute by minute.

The oracle knows nothing of croniter or of folds. A generated job carries the numbers that its text
stands for, and the walk reads the wall clock at every real minute around a transition: a job of
every hour fires when the reading matches, any other when the clock first reaches a time it names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.scheduler.cron import Cron
from services.shared.errors import BadInput

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
EACH_SIDE = timedelta(hours=4)
MANY = 25
FIVE_YEARS_FROM = {  # in the past, where laws no longer change
    "America/New_York": 2021,
    "Europe/Berlin": 2021,
    "Europe/Dublin": 2021,  # winter time is the "daylight saving", with a negative offset
    "Australia/Lord_Howe": 2021,  # by 30 minutes
    "Antarctica/Troll": 2021,  # by two hours
    "Africa/Cairo": 2023,  # at midnight, so autumn repeats the evening before
    "Asia/Beirut": 2021,
    "Asia/Gaza": 2021,
    "Africa/Casablanca": 2021,  # around Ramadan
    "America/Havana": 2021,  # autumn repeats midnight
    "America/Sao_Paulo": 2014,  # spring skips midnight, until 2018
    "America/St_Johns": 2006,  # at one minute past midnight
    "Pacific/Apia": 2010,  # skipped the 30th of December 2011
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def fires(cron: Cron, after: datetime, until: datetime) -> list[datetime]:
    """All fires in (after, until]."""
    found: list[datetime] = []
    fire = cron.next_after(after)
    while fire <= until:
        found.append(fire)
        fire = cron.next_after(fire)
    return found


def fire_ids(expression: str, zone: str, after: str, count: int) -> list[str]:
    cron = Cron.parse(expression, zone)
    moment = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    ids: list[str] = []
    for _ in range(count):
        moment = cron.next_after(moment)
        ids.append(cron.fire_id(moment))
    return ids


# Known cases


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00",
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
            id="a time that autumn repeats fires at the first",
        ),
        pytest.param(
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00",
            ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
            id="also in New York",
        ),
        pytest.param(
            "*/20 0-22 * * *",
            "Europe/Berlin",
            "2026-10-25T02:30",
            ["2026-10-25T02:40:00+02:00", "2026-10-25T03:00:00+01:00"],
            id="several in the repeated hour fire once each",
        ),
        pytest.param(
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-25T01:45",
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
            id="a job of every hour fires in both",
        ),
        pytest.param(
            "30 0-23 * * *",
            "Europe/Berlin",
            "2026-10-25T01:45",
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
            id="also when every hour is written as a range",
        ),
        pytest.param(
            "*/20 */1 * * *",
            "Australia/Lord_Howe",
            "2026-04-05T01:20",
            ["2026-04-05T01:40:00+11:00", "2026-04-05T01:40:00+10:30", "2026-04-05T02:00:00+10:30"],
            id="half an hour repeated",
        ),
        pytest.param(
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00",
            ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
            id="once in the repeated half hour",
        ),
        pytest.param(
            "10 * 29 10 *",
            "Africa/Cairo",
            "2026-10-29T22:30",
            ["2026-10-29T23:10:00+03:00", "2026-10-29T23:10:00+02:00"],
            id="the evening repeated at midnight",
        ),
        pytest.param(
            "0 0 * * *",
            "America/Havana",
            "2026-10-31T12:00",
            ["2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"],
            id="midnight twice",
        ),
        pytest.param(
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"],
            id="a time that spring skips fires at the end of the gap",
        ),
        pytest.param(
            "*/15 2-3 * * *",
            "Europe/Berlin",
            "2026-03-29T00:00",
            ["2026-03-29T03:00:00+02:00", "2026-03-29T03:15:00+02:00"],
            id="several in the gap share a fire",
        ),
        pytest.param(
            "30 * * * *",
            "America/New_York",
            "2026-03-08T01:00",
            ["2026-03-08T01:30:00-05:00", "2026-03-08T03:30:00-04:00"],
            id="a job of every hour has nothing to make up for",
        ),
        pytest.param(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00",
            ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
            id="half an hour skipped",
        ),
        pytest.param(
            "0 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03T12:00",
            ["2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"],
            id="midnight skipped",
        ),
        pytest.param(
            "@daily",
            "Africa/Cairo",
            "2026-04-23T12:00",
            ["2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"],
            id="midnight skipped in Cairo",
        ),
        pytest.param(
            "0 0 * * *",
            "Asia/Beirut",
            "2026-03-28T12:00",
            ["2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"],
            id="midnight skipped in Beirut",
        ),
        pytest.param(
            "0 9 * * *",
            "Pacific/Apia",
            "2011-12-29T00:00",
            ["2011-12-29T09:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T09:00:00+14:00"],
            id="a whole day skipped is made up for as soon as it is over",
        ),
        pytest.param(
            "0 0 29 2 *",
            "UTC",
            "2026-01-01T00:00",
            ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"],
            id="leap day",
        ),
        pytest.param(
            "0 0 29 2 *",
            "UTC",
            "2096-03-01T00:00",
            ["2104-02-29T00:00:00+00:00"],
            id="leap day across 2100",
        ),
        pytest.param(
            "0 0 31 * *",
            "UTC",
            "2026-01-01T00:00",
            ["2026-01-31T00:00:00+00:00", "2026-03-31T00:00:00+00:00", "2026-05-31T00:00:00+00:00"],
            id="the 31st passes over shorter months",
        ),
        pytest.param(
            "59 23 28-31 2 *",
            "UTC",
            "2027-01-01T00:00",
            ["2027-02-28T23:59:00+00:00", "2028-02-28T23:59:00+00:00", "2028-02-29T23:59:00+00:00"],
            id="month end",
        ),
        pytest.param(
            "0 9 13 * FRI",
            "UTC",
            "2026-02-01T00:00",
            ["2026-02-06T09:00:00+00:00", "2026-02-13T09:00:00+00:00", "2026-02-20T09:00:00+00:00"],
            id="day-of-month or day-of-week",
        ),
        pytest.param(
            "0 9 13 * FRI",
            "UTC",
            "2026-01-10T00:00",
            ["2026-01-13T09:00:00+00:00", "2026-01-16T09:00:00+00:00"],
            id="the 13th need not be a Friday",
        ),
        pytest.param(
            "0 9 30 2 MON",
            "UTC",
            "2026-02-20T00:00",
            ["2026-02-23T09:00:00+00:00", "2027-02-01T09:00:00+00:00"],
            id="a day that never comes leaves the other day field",
        ),
        pytest.param(
            "30 9 * jan mon-Wed",
            "UTC",
            "2026-01-01T00:00",
            ["2026-01-05T09:30:00+00:00", "2026-01-06T09:30:00+00:00", "2026-01-07T09:30:00+00:00"],
            id="names in any case",
        ),
        pytest.param(
            "0 0 * * 7",
            "UTC",
            "2026-01-01T00:00",
            ["2026-01-04T00:00:00+00:00", "2026-01-11T00:00:00+00:00"],
            id="7 is Sunday",
        ),
        pytest.param(
            "0 0 * * sat-sun",
            "UTC",
            "2026-01-01T00:00",
            ["2026-01-03T00:00:00+00:00", "2026-01-04T00:00:00+00:00", "2026-01-10T00:00:00+00:00"],
            id="a range may wrap",
        ),
        pytest.param(
            "0 22-3/2 * * *",
            "UTC",
            "2026-01-01T12:00",
            ["2026-01-01T22:00:00+00:00", "2026-01-02T00:00:00+00:00", "2026-01-02T02:00:00+00:00"],
            id="a wrapped range keeps its step",
        ),
        pytest.param(
            "0 5-5 * * *",
            "UTC",
            "2026-01-01T00:00",
            ["2026-01-01T05:00:00+00:00", "2026-01-02T05:00:00+00:00"],
            id="a range of one is one",
        ),
        pytest.param(
            "5/20 9 * * *",
            "UTC",
            "2026-01-01T00:00",
            ["2026-01-01T09:05:00+00:00", "2026-01-01T09:25:00+00:00", "2026-01-01T09:45:00+00:00"],
            id="a step from a number runs to the end",
        ),
        pytest.param(
            "@hourly",
            "Asia/Kolkata",
            "2026-01-01T00:30",
            ["2026-01-01T01:00:00+05:30", "2026-01-01T02:00:00+05:30"],
            id="hourly",
        ),
        pytest.param(
            "@weekly", "UTC", "2026-01-01T00:00", ["2026-01-04T00:00:00+00:00"], id="weekly"
        ),
        pytest.param(
            " @Monthly ", "UTC", "2026-01-01T00:00", ["2026-02-01T00:00:00+00:00"], id="monthly"
        ),
        pytest.param(
            "@yearly", "UTC", "2026-01-01T00:00", ["2027-01-01T00:00:00+00:00"], id="yearly"
        ),
    ],
)
def test_known_nights_and_days(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert fire_ids(expression, zone, after, len(expected)) == expected


def test_a_fire_is_utc_and_strictly_later_whatever_the_seconds() -> None:
    cron = Cron.parse("*/5 * * * *", "Asia/Kolkata")
    for text, expected in [
        ("2026-01-01T00:04:59.999999+00:00", "2026-01-01T00:05:00+00:00"),
        ("2026-01-01T00:05:00+00:00", "2026-01-01T00:10:00+00:00"),
        ("2026-01-01T00:05:00.000001+00:00", "2026-01-01T00:10:00+00:00"),
    ]:
        fire = cron.next_after(datetime.fromisoformat(text))
        assert fire == at(expected)
        assert fire.tzinfo is UTC


def test_the_two_fires_of_a_repeated_time_have_two_ids() -> None:
    cron = Cron.parse("30 * * * *", "America/New_York")
    first = cron.next_after(at("2026-11-01T05:00+00:00"))
    second = cron.next_after(first)
    assert second - first == HOUR
    assert cron.fire_id(first) == "2026-11-01T01:30:00-04:00"
    assert cron.fire_id(second) == "2026-11-01T01:30:00-05:00"


def test_an_expression_keeps_its_words_and_loses_extra_spaces() -> None:
    assert Cron.parse("  30  9 * *\tMON ", "UTC").expression == "30 9 * * MON"


def test_the_same_words_in_the_same_zone_are_equal() -> None:
    assert Cron.parse("0 9 * * *", "Europe/Berlin") == Cron.parse("0 9 * * *", "Europe/Berlin")


# Refusals


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "five fields"),
        ("   ", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "no seconds"),
        ("0 0 1 1 * 0 2030", "no seconds or years"),
        ("@reboot", "five fields"),
        ("@every 5m", "five fields"),
        ("0," * 50 + "0 * * * *", "at most 100 characters"),
        ("R 9 * * *", "minute: 'r' is not one of 0-59"),
        ("R(0-30) 9 * * *", "minute"),
        ("0 H * * *", "hour: 'h' is not one of 0-23"),
        ("H/15 * * * *", "minute"),
        ("0 9 L * *", "day-of-month: 'l'"),
        ("0 9 15W * *", "day-of-month"),
        ("0 9 ? * *", "day-of-month"),
        ("0 9 * * 5#2", "day-of-week"),
        ("60 * * * *", "minute: '60' is not one of 0-59"),
        ("0 24 * * *", "hour"),
        ("0 0 0 * *", "day-of-month: '0' is not one of 1-31"),
        ("0 0 32 * *", "day-of-month"),
        ("0 0 * 13 *", "month"),
        ("0 0 * 0 *", "month"),
        ("0 0 * * 8", "day-of-week: '8' is not one of 0-7"),
        ("0 0 * MON *", "month: 'mon'"),
        ("0 0 JAN * *", "day-of-month: 'jan'"),
        ("0 0 * * MONDAY", "day-of-week"),
        ("-5 * * * *", "minute"),
        ("5- * * * *", "minute"),
        ("1-2-3 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        (", * * * *", "minute"),
        ("1.5 * * * *", "minute"),
        ("*5 * * * *", "minute"),
        ("*-5 * * * *", "minute"),
        ("** * * * *", "minute"),
        ("*/ * * * *", "minute"),
        ("*/0 * * * *", "minute: choose a step from 1 to 60, not 0"),
        ("*/90 * * * *", "minute: choose a step from 1 to 60, not 90"),
        ("*/-5 * * * *", "minute"),
        ("١ * * * *", "minute"),
        ("\ud800 * * * *", "minute"),
        ("0\x00 * * * *", "minute"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 30-31 2 *", "never comes"),
    ],
)
def test_an_expression_that_is_not_classic_cron_is_refused(expression: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        Cron.parse(expression, "UTC")
    assert caught.value.field == "cron"


@pytest.mark.parametrize(
    "timezone",
    [
        "",
        "Mars/Olympus",
        "europe/berlin",
        "EUROPE/BERLIN",
        "utc",
        " UTC",
        "Europe/Berlin ",
        "Europe",
        "+02:00",
        "CEST",
        "localtime",
        "posixrules",
        "../x",
        "../../etc/passwd",
        "Europe/../UTC",
        "/usr/share/zoneinfo/UTC",
        "UTC\x00",
        "A" * 10_000,
    ],
)
def test_a_name_that_is_not_a_zone_of_iana_is_refused(timezone: str) -> None:
    with pytest.raises(BadInput, match="Europe/Berlin") as caught:
        Cron.parse("0 9 * * *", timezone)
    assert caught.value.field == "timezone"


@given(st.text(max_size=120) | st.from_regex(r"\A([-*/,0-9A-Za-z#?@]{1,6} ){4,6}\Z"))
def test_whatever_one_types_is_read_or_refused(expression: str) -> None:
    new_year = at("2026-01-01T00:00Z")
    with suppress(BadInput):
        assert Cron.parse(expression, "Europe/Berlin").next_after(new_year) > new_year


def test_a_naive_moment_is_refused() -> None:
    cron = Cron.parse("0 9 * * *", "UTC")
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="no time zone"):
        cron.next_after(naive)
    with pytest.raises(ValueError, match="no time zone"):
        cron.latest_until(naive, naive)


def test_a_latest_fire_before_the_first_is_refused() -> None:
    cron = Cron.parse("0 9 * * *", "UTC")
    with pytest.raises(ValueError, match="is before"):
        cron.latest_until(at("2026-01-01T08:00Z"), at("2026-01-01T09:00Z"))


# The oracle


@dataclass(frozen=True)
class Job:
    """An expression, with what each field allows; None for a day field written `*`."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None

    def names_date(self, date: datetime) -> bool:
        if date.month not in self.months:
            return False
        by_day = self.days is not None and date.day in self.days
        by_weekday = self.weekdays is not None and date.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday or (self.days is None and self.weekdays is None)

    def names(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self.names_date(wall)


Walk = list[tuple[datetime, datetime]]  # every real minute, and the wall clock's reading at it


def walk(zone: ZoneInfo, start: datetime, end: datetime) -> Walk:
    minutes = range(int((end - start) / MINUTE) + 1)
    instants = [start + minute * MINUTE for minute in minutes]
    return [(instant, instant.astimezone(zone).replace(tzinfo=None)) for instant in instants]


def walked_fires(job: Job, steps: Walk) -> list[datetime]:
    """All fires of the walk but at its first minute."""
    if len(job.hours) == 24:
        return [instant for instant, wall in steps[1:] if job.names(wall)]
    found: list[datetime] = []
    reached = steps[0][1]
    for instant, wall in steps[1:]:
        named = False
        while reached < wall:
            reached += MINUTE
            named = named or job.names(reached)
        if named:
            found.append(instant)
    return found


@cache
def transitions(zone: str) -> list[datetime]:
    """The first instants of each new UTC offset, over five years."""
    there, year = ZoneInfo(zone), FIVE_YEARS_FROM[zone]

    def offset(instant: datetime) -> timedelta | None:
        return instant.astimezone(there).utcoffset()

    def since(day: datetime) -> int:
        """The minute of `day` at which its first offset ends, if it does."""
        return bisect_left(range(1440), True, key=lambda m: offset(day + m * MINUTE) != offset(day))

    start = datetime(year, 1, 1, tzinfo=UTC)
    days = [start + day * DAY for day in range(5 * 366)]
    return [day + since(day) * MINUTE for day in days if offset(day) != offset(day + DAY)]


@cache
def walk_across(zone: str, transition: datetime) -> Walk:
    return walk(ZoneInfo(zone), transition - EACH_SIDE, transition + EACH_SIDE)


TRANSITIONS = [(zone, instant) for zone in FIVE_YEARS_FROM for instant in transitions(zone)]

WATCHED = [
    ("30 2 * * *", {30}, {2}),
    ("0 0 * * *", {0}, {0}),
    ("15 0-3,23 * * *", {15}, {0, 1, 2, 3, 23}),
    ("*/20 1-23/2 * * *", {0, 20, 40}, set(range(1, 24, 2))),
    ("5 * * * *", {5}, set(range(24))),
    ("*/25 0-23 * * *", {0, 25, 50}, set(range(24))),
]


@pytest.mark.parametrize(("text", "minutes", "hours"), WATCHED, ids=[row[0] for row in WATCHED])
def test_no_fire_is_lost_or_doubled_across_five_years_of_transitions(
    text: str, minutes: set[int], hours: set[int]
) -> None:
    months = frozenset(range(1, 13))
    job = Job(text, frozenset(minutes), frozenset(hours), None, months, None)
    assert len(TRANSITIONS) > 100
    for zone, transition in TRANSITIONS:
        steps = walk_across(zone, transition)
        found = fires(Cron.parse(text, zone), steps[0][0], steps[-1][0])
        assert found == walked_fires(job, steps), (zone, transition)


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("30 2 * * *", "America/New_York"),
        ("30 1 * * *", "Europe/Dublin"),
        ("15 2 * * *", "Australia/Lord_Howe"),
        ("45 23 * * *", "Africa/Cairo"),
        ("0 0 * * *", "America/Sao_Paulo"),
    ],
)
def test_a_daily_job_fires_once_on_each_day_of_five_years(expression: str, zone: str) -> None:
    there, year = ZoneInfo(zone), FIVE_YEARS_FROM[zone]
    start, end = datetime(year, 1, 1, tzinfo=there), datetime(year + 5, 1, 1, tzinfo=there)
    found = fires(Cron.parse(expression, zone), start - MINUTE, end - MINUTE)
    dates = [fire.astimezone(there).date() for fire in found]
    days = (end.date() - start.date()).days
    assert dates == [start.date() + day * DAY for day in range(days)]


def test_an_hourly_job_fires_once_in_each_real_hour_of_five_years() -> None:
    cron = Cron.parse("@hourly", "Europe/Berlin")
    for transition in transitions("Europe/Berlin"):
        found = fires(cron, transition - DAY, transition + DAY)
        assert {later - earlier for earlier, later in pairwise(found)} == {HOUR}


# Properties

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

Written = tuple[str, frozenset[int]]


@st.composite
def item(draw: st.DrawFn, first: int, last: int, names: list[str], near: list[int]) -> Written:
    """One item of a field, such as `10-40/5`, and the numbers it stands for."""
    number = st.integers(first, last) | st.sampled_from(near or [first])

    def spelled(value: int) -> str:
        spellings = [str(value), *names[value - first : value - first + 1]]
        return draw(st.sampled_from(spellings))

    low, high = sorted((draw(number), draw(number)))
    step = draw(st.integers(1, last - first + 1))
    written: list[tuple[str, Iterable[int]]] = [
        (spelled(low), [low]),
        (f"{spelled(low)}-{spelled(high)}", range(low, high + 1)),
        (f"{low}-{high}/{step}", range(low, high + 1, step)),
        (f"{low}/{step}", range(low, last + 1, step)),
        (f"*/{step}", range(first, last + 1, step)),
        ("*", range(first, last + 1)),
        (f"{high}-{low}", [*range(high, last + 1), *range(first, low + 1)]),
    ]
    if low == high:
        written.pop()
    text, numbers = written[draw(st.integers(0, len(written) - 1))]
    return text, frozenset(numbers)


@st.composite
def field(draw: st.DrawFn, first: int, last: int, names: list[str], near: list[int]) -> Written:
    if draw(st.booleans()):
        return "*", frozenset(range(first, last + 1))
    items = draw(st.lists(item(first, last, names, near), min_size=1, max_size=3))
    return ",".join(text for text, _ in items), frozenset().union(*(found for _, found in items))


@st.composite
def jobs(draw: st.DrawFn, near: datetime | None = None) -> Job:
    """A job; its dates often fall near a given wall time."""
    around = [] if near is None else [near - DAY, near, near + DAY]
    minutes = draw(field(0, 59, [], [0, 30]))
    hours = draw(field(0, 23, [], [] if near is None else [near.hour, 0, 2, 23]))
    days = draw(field(1, 31, [], [date.day for date in around] or [28, 29, 30, 31]))
    months = draw(field(1, 12, MONTHS, [date.month for date in around] or [2, 4]))
    weekdays = draw(field(0, 6, WEEKDAYS, [date.isoweekday() % 7 for date in around]))
    return Job(
        " ".join(text for text, _ in (minutes, hours, days, months, weekdays)),
        minutes[1],
        hours[1],
        None if days[0] == "*" else days[1],
        months[1],
        None if weekdays[0] == "*" else weekdays[1],
    )


@st.composite
def nights(draw: st.DrawFn) -> tuple[Cron, list[datetime], datetime, datetime]:
    """A job on a night with a transition: its walked fires, and the ends of the walk."""
    zone, transition = draw(st.sampled_from(TRANSITIONS))
    steps = walk_across(zone, transition)
    job = draw(jobs(near=transition.astimezone(ZoneInfo(zone)).replace(tzinfo=None)))
    assume(len(job.text) <= 100)
    found = walked_fires(job, steps)
    assume(found)
    return Cron.parse(job.text, zone), found, steps[0][0], steps[-1][0]


@settings(max_examples=200, deadline=None)
@given(nights(), st.data())
def test_a_fire_found_from_any_moment_is_the_next_one_walked(
    night: tuple[Cron, list[datetime], datetime, datetime], data: st.DataObject
) -> None:
    cron, walked, start, end = night
    span = int((end - start) / timedelta(seconds=1))
    moment = start + timedelta(seconds=data.draw(st.integers(0, span)))
    expected = [fire for fire in walked if fire > moment][:MANY]
    assert fires(cron, moment, expected[-1] if len(expected) == MANY else end) == expected


@settings(max_examples=200, deadline=None)
@given(nights(), st.data())
def test_the_latest_fire_is_the_last_one_walked(
    night: tuple[Cron, list[datetime], datetime, datetime], data: st.DataObject
) -> None:
    cron, walked, _, end = night
    since = data.draw(st.sampled_from(walked))
    span = int((end - since) / timedelta(seconds=1))
    moment = since + timedelta(seconds=data.draw(st.integers(0, span)))
    expected = max(fire for fire in walked if fire <= moment)
    assert cron.latest_until(moment, since) == expected
    assert cron.latest_until(moment, expected) == expected


MOMENTS = st.datetimes(
    datetime(2024, 1, 1),  # noqa: DTZ001
    datetime(2034, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@settings(max_examples=60, deadline=None)
@given(jobs(), MOMENTS)
def test_the_calendar_is_walked_right_both_ways_or_refused(job: Job, moment: datetime) -> None:
    assume(len(job.text) <= 100)
    minutes = sorted(hour * HOUR + minute * MINUTE for hour in job.hours for minute in job.minutes)
    today = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today + day * DAY for day in range(-1500, 1500) if job.names_date(today + day * DAY)]
    if not days:
        with pytest.raises(BadInput, match="never comes"):
            Cron.parse(job.text, "UTC")
        return
    cron = Cron.parse(job.text, "UTC")
    later = (day + minute for day in days for minute in minutes if day >= today)
    assert cron.next_after(moment) == next(fire for fire in later if fire > moment)
    earlier = (day + minute for day in days[::-1] for minute in minutes[::-1] if day <= today)
    assert cron.latest_until(moment, days[0] + minutes[0]) == next(
        fire for fire in earlier if fire <= moment
    )


# Making up for missed runs


@pytest.mark.parametrize(
    ("expression", "moment", "expected"),
    [
        pytest.param(
            "50 * * * *",
            "2026-11-01T01:40:00-05:00",
            "2026-11-01T01:50:00-04:00",
            id="later on the clock, earlier in truth",
        ),
        pytest.param(
            "50 * * * *",
            "2026-11-01T01:50:00-05:00",
            "2026-11-01T01:50:00-05:00",
            id="the second of the repeated",
        ),
        pytest.param(
            "30 1 * * *",
            "2026-11-01T01:45:00-05:00",
            "2026-11-01T01:30:00-04:00",
            id="not the second, for a daily job",
        ),
        pytest.param(
            "50 1 * * *",
            "2026-11-01T01:40:00-05:00",
            "2026-11-01T01:50:00-04:00",
            id="a daily job, later on the clock",
        ),
        pytest.param(
            "30 2 * * *",
            "2026-03-08T01:59:59-05:00",
            "2026-03-07T02:30:00-05:00",
            id="before the gap",
        ),
        pytest.param(
            "30 2 * * *",
            "2026-03-08T03:00:00-04:00",
            "2026-03-08T03:00:00-04:00",
            id="at the end of the gap",
        ),
    ],
)
def test_the_latest_fire_on_known_nights(expression: str, moment: str, expected: str) -> None:
    cron = Cron.parse(expression, "America/New_York")
    since = cron.next_after(at(moment) - 3 * DAY)
    assert cron.fire_id(cron.latest_until(at(moment), since)) == expected


def test_the_latest_of_many_missed_fires_is_found_without_walking_them() -> None:
    class Counting(Cron):
        steps = 0

        def _fires(self, wall: datetime) -> list[datetime]:
            Counting.steps += 1
            return super()._fires(wall)

    plain = Cron.parse("* * * * *", "Europe/Berlin")
    cron = Counting(plain.expression, plain.zone, plain.calendar, plain.every_hour)
    since, moment = at("2016-01-01T00:00Z"), at("2026-10-25T01:10:30Z")
    assert cron.latest_until(moment, since) == at("2026-10-25T01:10Z")
    assert Counting.steps <= 120


def test_the_latest_fire_is_never_before_the_one_known() -> None:
    since = at("2026-01-01T08:17:00+01:00")  # no longer a fire: the expression has changed
    cron = Cron.parse("0 9 * * *", "Europe/Berlin")
    assert cron.latest_until(since + MINUTE, since) == since
