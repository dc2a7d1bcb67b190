"""The checker: compares journals, database and broker, when all is over and quiet. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from campaign import broadcasts, later
from campaign.broadcasts import Circumstances, check_broadcasts
from campaign.caps import caps_of, check_caps
from campaign.events import (
    check_answers,
    check_events,
    check_facts,
    check_reasons,
    check_stamps,
)
from campaign.faults import Injected
from campaign.fires import check_fires, fire_of
from campaign.found import Found
from campaign.journal import Attempt, Journal, Outcome, Probe
from campaign.later import check_later
from campaign.moves import check_moves
from campaign.probe import recovery
from campaign.service_process import Sample
from campaign.sights import (
    check_counts,
    check_marks,
    check_readers,
    check_resyncs,
    check_walks,
    overtaken,
)
from campaign.verdict import Finding, Recovered, Verdict, Violation
from campaign.wishes import Wishes
from campaign.world import WorldFacts
from services.shared.settings import Settings

_MIB: Final = 1024 * 1024

# What a process may hold more than at its start, before the load. MongoDB's client keeps as many
# sockets as were in use at once, up to MONGODB_CONNECTIONS (8); a publisher's connection, opened
# when first used, is one more, with six tasks.
RSS_FACTOR: Final = 1.3
RSS_MORE: Final = 30 * _MIB
SOCKETS_MORE: Final = 15
TASKS_MORE: Final = 10

# Groups of faults, and their p95 as it should be, seconds.
KILLED, BACK, HEALED = "a service is killed", "broker or database back", "a link heals"
TARGETS: Final = {KILLED: 2.0, BACK: 1.0, HEALED: 2.0}


def judge(
    journal: Journal,
    found: Found,
    faults: Sequence[Injected],
    facts: WorldFacts,
    settings: Settings,
) -> Verdict:
    recovery = recoveries(journal.probes(), faults)
    window = settings.write_window_seconds  # by which an order may still change
    wishes = Wishes(journal.people, journal.changes)
    findings = [
        *_compare(journal, found, wishes, window),
        *_compare_later(journal, found, wishes, faults, settings),
        *check_growth(facts),
        *check_well(recovery),
    ]
    return Verdict(
        accepted=len(journal.accepted),
        answered=journal.outcomes[Outcome.OK],
        refused=journal.outcomes[Outcome.REFUSED],
        indeterminate=journal.outcomes[Outcome.INDETERMINATE],
        notifications=len(found.rows),
        sights=len(journal.sights),
        faults=Counter(fault.kind for fault in faults),
        findings=findings,
        recovery=recovery,
        notes={
            "attempts by kind": Counter(f"{a.kind} {a.outcome}" for a in journal.attempts),
            "answers by code": Counter(a.code for a in journal.attempts if a.code),
            "seconds until SERVICE_UNAVAILABLE": _waits(journal.attempts),
            "connections ended": dict(journal.closes.most_common(20)),
            "delivered behind a later one": overtaken(journal.sights),
            "schedule fires": sum(fire_of(row.event) > 0 for row in found.rows),
            "broadcasts": Counter(one.state for one in found.broadcasts),
            "scheduled": Counter(one.state for one in found.later),
            "deliveries": Counter(f"{one.type} {one.state}" for one in found.deliveries),
            "dead letters": len(found.dead),
            "orders that moved": len(found.moved),
            "statuses of them that were seen": len(journal.moves_seen),
        },
    )


def _compare(journal: Journal, found: Found, wishes: Wishes, window: float) -> Iterator[Finding]:
    rows, end = found.rows, journal.settled
    events = [row for row in rows if not row.event.startswith((broadcasts.EVENT, later.EVENT))]
    yield from check_events(
        journal.attempts, events, journal.people, journal.schedules, wishes, end
    )
    yield from check_stamps(
        journal.attempts, rows, journal.sights, offset=journal.offset, end=found.at
    )
    yield from check_reasons([*journal.attempts, *journal.marks, *journal.changes], journal.closes)
    yield from check_answers(journal.attempts)
    yield from check_facts(journal.attempts, found)
    yield from check_readers(
        journal.subscribed,
        journal.sights,
        rows,
        window=window,
        offset=journal.offset,
        until=journal.settled - 1,
    )
    yield from check_moves(
        journal.attempts,
        found.moved,
        journal.subscribed,
        journal.moves_seen,
        offset=journal.offset,
        until=journal.settled - 1,
    )
    yield from check_resyncs(journal.subscribed, journal.resyncs)
    yield from check_walks(journal.walks, rows, journal.marks, window=window)
    yield from check_marks(journal.marks, journal.sights, rows)
    yield from check_counts(found.counts, journal.counted)
    yield from check_fires(
        journal.schedules,
        rows,
        journal.published,
        stopping=journal.stopping,
        offset=journal.offset,
    )


def _compare_later(
    journal: Journal, found: Found, wishes: Wishes, faults: Sequence[Injected], settings: Settings
) -> Iterator[Finding]:
    """What goes out by more than an event that is handled."""
    everybody = [person.id for person in journal.people if person.role != "service"]
    around = Circumstances(everybody, wishes, faults, settings.fan_out_size, journal.settled)
    yield from check_broadcasts(journal.attempts, found.broadcasts, found.rows, around)
    yield from check_later(journal.attempts, found.later, found.rows, wishes, journal.settled)
    yield from check_caps(
        found.deliveries,
        found.ledgers,
        found.rows,
        journal.people,
        caps_of(settings),
        datetime.fromtimestamp(found.at + journal.offset, UTC),
    )


def check_growth(facts: WorldFacts) -> Iterator[Finding]:
    """Memory of each life of each process; when all is quiet, sockets and tasks, too."""
    for name, before in facts.start.items():
        lives = facts.ends.get(name, ())
        for life, after in enumerate(lives, start=1):
            limits = {"rss": (before.rss, after.rss, before.rss * RSS_FACTOR + RSS_MORE)}
            if life == len(lives):
                limits |= _of_the_last(before, after)
            for what, (first, last, limit) in limits.items():
                if last > limit:
                    evidence = {"process": name, "life": life, "of": what}
                    yield Finding(Violation.GROWTH, evidence | {"start": first, "end": last})
        if not lives or lives[-1].tasks is None:
            yield Finding(Violation.GROWTH, {"process": name, "does": "not answer any more"})


def _of_the_last(before: Sample, after: Sample) -> Mapping[str, tuple[int, int, float]]:
    limits: dict[str, tuple[int, int, float]] = {
        what: (getattr(before, what), getattr(after, what), getattr(before, what) + SOCKETS_MORE)
        for what in ("sockets", "descriptors")
    }
    if before.tasks is not None and after.tasks is not None:
        limits["tasks"] = (before.tasks, after.tasks, before.tasks + TASKS_MORE)
    return limits


def recoveries(probes: Sequence[Probe], faults: Sequence[Injected]) -> Mapping[str, Recovered]:
    """By group of faults, then by kind. Of those alone: chance had chosen them beforehand."""
    took: defaultdict[str, list[float | None]] = defaultdict(list)
    for fault in faults:
        if fault.alone:
            seconds = recovery(probes, fault.healed_at)
            took[fault.kind].append(seconds)
            if (group := group_of(fault.kind)) is not None:
                took[group].append(seconds)
    names = [*TARGETS, *sorted({fault.kind for fault in faults})]
    return {name: _recovered(took[name], TARGETS.get(name)) for name in names}


def check_well(recovery: Mapping[str, Recovered]) -> Iterator[Finding]:
    """How quickly is a figure; whether at all is a promise."""
    for kind, recovered in recovery.items():
        if recovered.never and kind not in TARGETS:
            yield Finding(Violation.NEVER_WELL, {"after": kind, "times": recovered.never})


def _recovered(took: Sequence[float | None], target: float | None) -> Recovered:
    known = sorted(one for one in took if one is not None)
    return Recovered(
        count=len(took),
        p50=_percentile(known, 0.5),
        p95=_percentile(known, 0.95),
        max=_percentile(known, 1),
        never=len(took) - len(known),
        target=target,
    )


def group_of(kind: str) -> str | None:
    """What a fault's recovery is compared with; None for what has no target."""
    if kind in ("kill-broker", "kill-mongod", "restart-broker", "restart-mongod", "disk-alarm"):
        return BACK
    if kind.startswith(("kill-", "failpoint-", "term")):
        return KILLED
    return HEALED if kind.startswith("link-") else None


def _waits(attempts: Sequence[Attempt]) -> Mapping[str, float | None]:
    """How long callers waited to hear that something is away; their links' faults included."""
    waits = sorted(a.ended - a.started for a in attempts if a.code == "SERVICE_UNAVAILABLE")
    return {name: _percentile(waits, part) for name, part in (("p50", 0.5), ("p95", 0.95))} | {
        "max": _percentile(waits, 1)
    }


def _percentile(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else None
