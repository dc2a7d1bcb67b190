"""The decision table that product owners read (docs/decision-table.md) is what `decide` does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from services.notifications.caps import Allowance, Spent
from services.notifications.collapse import Rank
from services.notifications.personalize import Situation, decide
from services.notifications.policy import class_of
from services.shared.settings import Settings
from services.shared.vocabulary import (
    Channel,
    NotificationType,
    Outcome,
    OverCap,
    QuietAction,
    Weekday,
)
from services.users.consent import Consent, Consents
from services.users.preferences import Choices, Preferences, TypeChoice, resolve
from services.users.quiet_hours import QuietChoices, QuietHours, QuietWindow

TABLE: Final = Path(__file__).parents[1] / "docs" / "decision-table.md"
VIENNA: Final = ZoneInfo("Europe/Vienna")
MONDAY: Final = date(2026, 11, 23)
DAYS: Final = dict(zip(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), Weekday, strict=True))
NOTHING: Final = "–"
TYPES: Final = {
    "order shipped": (NotificationType.ORDER_UPDATE, "shipped"),
    "payment failed": (NotificationType.ORDER_UPDATE, "payment_failed"),
    "promotion": (NotificationType.PROMOTION, None),
    "recommendation": (NotificationType.RECOMMENDATION, None),
}
PLURALS: Final = {
    "order updates": NotificationType.ORDER_UPDATE,
    "promotions": NotificationType.PROMOTION,
    "recommendations": NotificationType.RECOMMENDATION,
}
CHANNELS: Final = {
    "app": Channel.IN_APP,
    "email": Channel.EMAIL,
    "push": Channel.WEB_PUSH,
    "webhook": Channel.WEBHOOK,
}
OUTCOMES: Final = {
    "sent": Outcome.SENT,
    "not sent": Outcome.SUPPRESSED,
    "superseded": Outcome.SUPERSEDED,
    "held": Outcome.HELD,
}
_MOMENT: Final = re.compile(r"(?P<day>[A-Z]..)(?P<week>[+-]1)? (?P<hour>\d+):(?P<minute>\d\d)")
_SWITCH: Final = re.compile(
    r"(?P<types>[a-z ]+?)(?: by (?P<channel>\w+))? (?P<on>on|off)(?P<unasked>, never agreed)?"
)
_QUIET: Final = re.compile(r"quiet by (?P<channel>\w+) (?P<windows>.+?)(?P<drop> drop)?")


@dataclass(frozen=True)
class Line:
    number: int
    notification: str
    on: str
    user: str
    when: str
    before: str
    outcome: str
    reason: str


def lines() -> Iterator[Line]:
    for text in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")]
        if text.startswith("|") and cells[0].isdigit():
            yield Line(int(cells[0]), *cells[1:])


LINES: Final = list(lines())


def moment(text: str) -> datetime:
    """`Mon 12:00`, or `2026-03-29 01:59 +01` where the clock alone does not say."""
    if found := _MOMENT.fullmatch(text):
        days = [*DAYS].index(found["day"]) + 7 * int(found["week"] or 0)
        day = MONDAY + timedelta(days=days)
        hour, minute = int(found["hour"]), int(found["minute"])
        return datetime(day.year, day.month, day.day, hour, minute, tzinfo=VIENNA).astimezone(UTC)
    return datetime.strptime(text + "00", "%Y-%m-%d %H:%M %z").astimezone(UTC)


def phrases(cell: str) -> list[str]:
    return [] if cell == NOTHING else cell.split("; ")


def window(text: str) -> QuietWindow:
    *days, times = text.split()
    start, end = times.split("–")
    chosen = tuple(DAYS[day] for day in days) or tuple(Weekday)
    return QuietWindow(days=chosen, start=start, end=end)


def preferences(cell: str) -> Preferences:
    """Of a user who did this, one after the other. Who switches marketing on agrees to it."""
    choices: Choices = {}
    quiet: QuietChoices = {}
    consents: Consents = {}
    for phrase in phrases(cell):
        if found := _QUIET.fullmatch(phrase):
            action = QuietAction.DROP if found["drop"] else QuietAction.DEFER
            windows = tuple(window(one) for one in found["windows"].split(" + "))
            quiet[CHANNELS[found["channel"]]] = QuietHours(action=action, windows=windows)
            continue
        found = _SWITCH.fullmatch(phrase)
        assert found, phrase
        type_, on = PLURALS[found["types"]], found["on"] == "on"
        choice = choices.setdefault(type_, TypeChoice())
        if found["channel"] is None:
            choice.enabled = on
            continue
        channel = CHANNELS[found["channel"]]
        choice.channels[channel] = on
        if not found["unasked"]:
            consent = Consent(given=on, at=moment("Mon-1 12:00"), source="preferences")
            consents.setdefault(type_, {})[channel] = consent
    return resolve(choices, 1, str(VIENNA), quiet, consents)


def situation(line: Line) -> Situation:
    what, *more = line.notification.split(", ")
    type_, status = TYPES[what]
    at = moment(line.when)
    allowance = Allowance.of(Settings(_env_file=None))
    ends, rank, told = None, None, None
    for phrase in more:
        kind, _, value = phrase.partition(" ")
        if kind == "ends":
            ends = moment(value)
        else:
            rank = Rank.of(int(value), at, "it")
    spent: list[Spent] = []
    for number, phrase in enumerate(phrases(line.before)):
        if phrase.startswith("over the cap: "):
            over = OverCap(phrase.removeprefix("over the cap: "))
            allowance = replace(allowance, over=over)
        elif phrase.startswith("version "):
            told = Rank.of(int(phrase.split()[1]), at, "before")
        else:
            channel, _, when = phrase.partition(" ")
            spent.append(Spent(f"event {number}", CHANNELS[channel], moment(when)))
    return Situation(
        type_,
        class_of(type_, status),
        preferences(line.user),
        at,
        ends,
        CHANNELS[line.on],
        str(VIENNA),
        rank,
        told,
        replace(allowance, spent=tuple(spent)),
    )


@pytest.mark.parametrize("line", LINES, ids=lambda line: str(line.number))
def test_the_table_says_what_is_decided(line: Line) -> None:
    decision = decide(situation(line))
    outcome, _, until = line.outcome.partition(" until ")
    assert decision.outcome is OUTCOMES[outcome]
    assert decision.reason == line.reason.strip("`")
    assert decision.until == (moment(until) if until else None)


def test_the_table_is_whole() -> None:
    assert [line.number for line in LINES] == list(range(1, len(LINES) + 1))
    assert len(LINES) >= 150
    assert len({replace(line, number=0) for line in LINES}) == len(LINES)
