"""Broadcasts: once to each who was meant and wants it, none behind a stop, and counted. Pure.

A broadcast's attempts have its dedupKey as key, and the first one's `users` are its members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from campaign.deeds import BROADCAST, CANCEL, PAUSE, PROMOTION, RESUME
from campaign.faults import MONGOD, Injected
from campaign.found import Broadcast, Row
from campaign.journal import Attempt, Outcome
from campaign.kept import by_id, by_key, check_kept
from campaign.verdict import Finding, Violation
from campaign.wishes import State, Wishes

EVENT: Final = "urn:tidings broadcast/"
_DONE, _CANCELLED, _PAUSED = "DONE", "CANCELLED", "PAUSED"
_WORKERS: Final = 2
_SLACK: Final = 1.0  # between the services' clocks and this one


@dataclass(frozen=True)
class Circumstances:
    """`everybody`: who is in an audience without conditions. `chunk`: recipients that a worker has
    in hand at most. `end`: when all was quiet."""

    everybody: Sequence[str]
    wishes: Wishes
    faults: Sequence[Injected]
    chunk: int
    end: float


def check_broadcasts(
    attempts: Sequence[Attempt],
    stored: Sequence[Broadcast],
    rows: Sequence[Row],
    around: Circumstances,
) -> Iterator[Finding]:
    asked = by_key(attempts, (BROADCAST, PAUSE, RESUME, CANCEL))
    told = by_id(rows, EVENT)
    yield from check_kept(BROADCAST, asked, stored, told)
    for one in stored:
        if one.key in asked:
            yield from _Check(one, asked[one.key], told.get(one.id, []), around).findings()


class _Check:
    """Of one that is stored. `rows`: its notifications."""

    def __init__(
        self,
        broadcast: Broadcast,
        steps: Sequence[Attempt],
        rows: Sequence[Row],
        around: Circumstances,
    ) -> None:
        self._broadcast = broadcast
        self._steps = steps
        self._rows = rows
        self._around = around
        self._first = next(one for one in steps if one.kind == BROADCAST)
        users = self._first.users
        self._members = around.everybody if users is None else users

    def findings(self) -> Iterator[Finding]:
        yield from self._of_rows()
        yield from self._of_members()
        yield from self._of_state()
        yield from self._of_counters()
        yield from self._of_stops()

    def _finding(self, violation: Violation, **evidence: Any) -> Finding:
        steps = [(a.kind, a.outcome, a.said, a.started, a.ended) for a in self._steps]
        known = {"broadcast": self._broadcast.id, "key": self._broadcast.key, "steps": steps[-8:]}
        return Finding(violation, known | evidence)

    def _of_rows(self) -> Iterator[Finding]:
        """None twice, and each to a member who wanted it, with what was to be said."""
        for user, count in Counter(row.user for row in self._rows).items():
            if count > 1:
                yield self._finding(Violation.DUPLICATED, user=user, notifications=count)
        for row in self._rows:
            if row.user not in self._members:
                yield self._finding(Violation.MISDIRECTED, user=row.user)
            if row.gist != self._first.gist:
                yield self._finding(Violation.ALTERED, user=row.user)
            if row.sent < self._first.started - _SLACK:
                yield self._finding(Violation.MISSTAMPED, user=row.user, sent=row.sent)
            if self._wish(row.user, row.sent) is State.OFF:
                yield self._finding(Violation.REFUSED_BUT_SENT, user=row.user, sent=row.sent)

    def _of_members(self) -> Iterator[Finding]:
        """Unless it may have been cancelled, who wanted it all the while has it."""
        if self._tried(CANCEL):
            return
        have = {row.user for row in self._rows}
        for user in self._members:
            if user not in have and self._wish(user) is State.ON:
                yield self._finding(Violation.LOST, user=user)

    def _of_state(self) -> Iterator[Finding]:
        """It has come to its end, and to the one that was answered."""
        cancels = self._tried(CANCEL)
        answered = {one.said for one in cancels if one.outcome is Outcome.OK}
        right = answered or ({_DONE, _CANCELLED} if cancels else {_DONE})
        if self._broadcast.state.upper() not in right or len(answered) > 1:
            evidence = {"is": self._broadcast.state, "answered": sorted(answered)}
            yield self._finding(Violation.ACKNOWLEDGED_MISSING, **evidence)

    def _of_counters(self) -> Iterator[Finding]:
        """They are as many as were served. Who changed their mind may have been decided on by two
        workers, and be counted by the one that did not send it."""
        one, members = self._broadcast, len(self._members)
        served = one.sent + one.held + one.suppressed + one.failed
        is_done = one.state.upper() == _DONE
        in_all = served == one.total == members if is_done else served <= one.total <= members
        uncounted = len({row.user for row in self._rows}) - one.sent
        wavering = sum(self._wish(user) is State.EITHER for user in self._members)
        if not in_all or one.failed or not 0 <= uncounted <= wavering:
            evidence = {"counters": one, "members": members, "uncounted": uncounted}
            yield self._finding(Violation.WRONG_COUNT, **evidence, wavering=wavering)

    def _of_stops(self) -> Iterator[Finding]:
        """Behind the answer to a pause or a cancel only what workers had in hand: a chunk each, and
        another for each fault that may have made them leave one behind."""
        size = min(self._broadcast.per_second or self._around.chunk, self._around.chunk)
        for since, until in self._stops():
            late = [row.user for row in self._rows if since + _SLACK < row.sent < until]
            faults = self._faults(since)
            if len(late) > size * _WORKERS * (1 + faults):
                evidence = {"sent": len(late), "since": since, "until": until, "faults": faults}
                yield self._finding(Violation.STOPPED_BUT_SENT, **evidence)

    def _faults(self, until: float) -> int:
        """How many hit workers, or their database, from its beginning on."""
        began = self._first.started
        return sum(
            one.at <= until and began <= one.healed_at
            for one in self._around.faults
            if one.target == MONGOD or one.target.startswith("notifications")
        )

    def _stops(self) -> Iterator[tuple[float, float]]:
        """From when until when nothing may be handed out."""
        resumed = min((one.started for one in self._tried(RESUME)), default=float("inf"))
        for one in self._tried(PAUSE):
            if one.said == _PAUSED:
                yield one.ended, resumed
        for one in self._tried(CANCEL):
            if one.said == _CANCELLED:
                yield one.ended, float("inf")

    def _tried(self, step: str) -> Sequence[Attempt]:
        """The attempts that may have done so."""
        these = [one for one in self._steps if one.kind == step]
        return [one for one in these if one.outcome is not Outcome.REFUSED]

    def _wish(self, user: str, until: float | None = None) -> State:
        """From when it was asked for, to the end of all if nothing else is given."""
        end = self._around.end if until is None else until
        return self._around.wishes.over(user, PROMOTION, self._first.started, end)
