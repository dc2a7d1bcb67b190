"""What was scheduled: sent once at its time, or cancelled, as was answered. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from campaign.deeds import SCHEDULE, UNSCHEDULE
from campaign.found import Later, Row
from campaign.journal import Attempt
from campaign.kept import by_id, by_key, check_kept
from campaign.verdict import Finding, Violation
from campaign.wishes import State, Wishes

EVENT: Final = "urn:tidings scheduled/"
_SENT, _SUPPRESSED, _CANCELLED = "sent", "suppressed", "cancelled"
_ENDS: Final = {"CANCELLED": {_CANCELLED}, "TOO_LATE": {_SENT, _SUPPRESSED}}
"""How one stands of which this was answered."""
_SLACK: Final = 1.0  # between the services' clocks and this one


def check_later(
    attempts: Sequence[Attempt],
    stored: Sequence[Later],
    rows: Sequence[Row],
    wishes: Wishes,
    end: float,
) -> Iterator[Finding]:
    """`end`: when all was quiet."""
    asked = by_key(attempts, (SCHEDULE, UNSCHEDULE))
    told = by_id(rows, EVENT)
    yield from check_kept(SCHEDULE, asked, stored, told)
    for one in stored:
        if one.key in asked:
            yield from _check_one(one, asked[one.key], told.get(one.id, []), wishes, end)


def _check_one(
    later: Later, steps: Sequence[Attempt], rows: Sequence[Row], wishes: Wishes, end: float
) -> Iterator[Finding]:
    asked = next(one for one in steps if one.kind == SCHEDULE)
    answered = {one.said for one in steps if one.said in _ENDS}
    is_left = all(one.kind == SCHEDULE for one in steps)
    wanted = wishes.over(later.user, asked.type, asked.due - _SLACK, end) is State.ON

    def finding(violation: Violation, **more: Any) -> Finding:
        tries = [(a.kind, a.outcome, a.said, a.started, a.ended) for a in steps]
        known = {"scheduled": later.id, "key": later.key, "is": later.state, "due": asked.due}
        return Finding(violation, known | {"steps": tries[-8:]} | more)

    if len(rows) > 1:
        yield finding(Violation.DUPLICATED, notifications=[row.id for row in rows])
    if rows and (later.state != _SENT or "CANCELLED" in answered):
        yield finding(Violation.STOPPED_BUT_SENT, sent=rows[0].sent)
    elif not rows and (later.state == _SENT or (is_left and wanted)):
        yield finding(Violation.LOST, user=later.user)
    elif any(later.state not in _ENDS[said] for said in answered):
        yield finding(Violation.ACKNOWLEDGED_MISSING, answered=sorted(answered))
    for row in rows:
        if later.user not in (asked.users or ()) or row.user != later.user:
            yield finding(Violation.MISDIRECTED, to=row.user)
        if row.gist != asked.gist or row.type != asked.type:
            yield finding(Violation.ALTERED, notification=row.id)
        if row.sent < asked.due - _SLACK:
            yield finding(Violation.MISSTAMPED, sent=row.sent)
        if wishes.over(row.user, asked.type, asked.due, row.sent) is State.OFF:
            yield finding(Violation.REFUSED_BUT_SENT, sent=row.sent)
