"""What the checker finds: violations with their evidence, and how quickly all was well again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Violation(StrEnum):
    LOST = "lost"
    """An accepted event and a permitted recipient, and no notification."""
    DUPLICATED = "duplicated"
    """Two for one event and recipient."""
    MISDIRECTED = "misdirected"
    """For somebody whom the event was not for, or that nobody asked for."""
    MISSTAMPED = "misstamped"
    """Its sentAt is before it was asked for, or after it was seen."""
    ALTERED = "altered"
    """Its content is not what was accepted."""
    REFUSED_BUT_SENT = "refused but sent"
    """Its type was off from the attempt until it was sent."""
    STOPPED_BUT_SENT = "stopped but sent"
    """It was answered that it does not go out, or not on, and it did."""
    OVER_CAP = "over cap"
    """More marketing in a window than its cap allows."""
    WRONGLY_REFUSED = "wrongly refused"
    """A right attempt was refused for good."""
    WRONGLY_ACCEPTED = "wrongly accepted"
    """Another event under an id that was taken was accepted."""
    NO_REASON = "no reason"
    """An answer from which nobody can tell what to do: an internal error, or no GraphQL."""
    READER_MISSED = "reader missed"
    READER_TWICE = "reader twice"
    READER_DISORDER = "reader disorder"
    """Later than its place in the order by more than the write window."""
    STALE = "stale"
    """An order shows another status than its newest, or was shown with one after a newer one."""
    NEEDLESS_RESYNC = "needless resync"
    """A reader was told to read again, though it could have resumed."""
    PAGE_FAULT = "page fault"
    """Pages showed one twice, or skipped one that was there."""
    DOUBLE_FIRE = "double fire"
    MISSED_FIRE = "missed fire"
    WRONG_FIRE = "wrong fire"
    """At an instant that the expression does not name."""
    POISON_LOST = "poison lost"
    INNOCENT_DEAD = "innocent dead letter"
    """A right event among the dead letters."""
    LEFTOVER = "leftover"
    """Something waits in a queue or the outbox, for ever."""
    ACKNOWLEDGED_MISSING = "acknowledged missing"
    """What was answered with success is not so."""
    WRONG_COUNT = "wrong count"
    NEVER_WELL = "never well"
    """After a fault that was alone, not every path worked again."""
    GROWTH = "growth"
    """A process holds more than at its start."""


@dataclass(frozen=True)
class Finding:
    violation: Violation
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Recovered:
    """Of one kind of fault, or a group of kinds, seconds; None where there was none to measure.

    `count`: faults that happened alone. `never`: those of them after which not all was well again.
    `target`: what a group's p95 should be.
    """

    count: int
    p50: float | None
    p95: float | None
    max: float | None
    never: int = 0
    target: float | None = None


@dataclass(frozen=True)
class Verdict:
    accepted: int
    """Different events, and notifications asked for, that were promised."""
    answered: int
    """Attempts of any kind that were answered with success."""
    refused: int
    indeterminate: int
    notifications: int
    sights: int
    faults: Mapping[str, int]
    findings: Sequence[Finding]
    recovery: Mapping[str, Recovered] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> Mapping[Violation, int]:
        found = Counter(finding.violation for finding in self.findings)
        return {violation: found[violation] for violation in Violation}

    def with_more(self, findings: Iterable[Finding]) -> Verdict:
        return replace(self, findings=[*self.findings, *findings])

    @property
    def violations(self) -> int:
        return len(self.findings)

    @property
    def ok(self) -> bool:
        return not self.findings
