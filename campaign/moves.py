"""Orders that move on: of each the newest status is shown, and none after a newer one. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from campaign.deeds import MOVE
from campaign.found import Row
from campaign.journal import Attempt, Outcome, Sight, Subscribed
from campaign.verdict import Finding, Violation


def check_moves(
    attempts: Sequence[Attempt],
    rows: Sequence[Row],
    subscribed: Sequence[Subscribed],
    sights: Sequence[Sight],
    *,
    offset: float,
    until: float,
) -> Iterator[Finding]:
    """`rows`, `sights`: of orders that move. `until`: what was sent later than that may still be
    under way to a reader."""
    stored: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        stored[row.order].append(row)
    moves: defaultdict[tuple[str, str], list[tuple[int, Outcome]]] = defaultdict(list)
    for one in attempts:
        if one.kind == MOVE:
            order, _, version = one.key.split()[-1].rpartition("/")
            moves[order, (one.users or ("",))[0]].append((int(version), one.outcome))
    for (order, user), told in moves.items():
        yield from _check_order(order, user, told, stored.pop(order, []))
    for order, others in stored.items():
        yield Finding(Violation.MISDIRECTED, {"order": order, "user": others[0].user})
    yield from _check_readers(rows, subscribed, sights, offset, until)


def _check_order(
    order: str, user: str, told: Sequence[tuple[int, Outcome]], rows: Sequence[Row]
) -> Iterator[Finding]:
    """One notification, of the highest version that was accepted, or may have been."""
    evidence = {"order": order, "user": user, "shown": [row.version for row in rows]}
    accepted = max((v for v, outcome in told if outcome is Outcome.OK), default=0)
    highest = max((v for v, outcome in told if outcome is not Outcome.REFUSED), default=0)
    if len(rows) > 1:
        yield Finding(Violation.DUPLICATED, evidence)
    if accepted and not rows:
        yield Finding(Violation.LOST, evidence | {"accepted": accepted})
    for row in rows:
        if row.user != user:
            yield Finding(Violation.MISDIRECTED, evidence | {"to": row.user})
        if not accepted <= row.version <= highest:
            yield Finding(Violation.STALE, evidence | {"accepted": accepted, "highest": highest})


def _check_readers(
    rows: Sequence[Row],
    subscribed: Sequence[Subscribed],
    sights: Sequence[Sight],
    offset: float,
    until: float,
) -> Iterator[Finding]:
    """Who was there when it was sent saw the last status; and none saw one after a newer one."""
    seen: defaultdict[tuple[str, str], list[Sight]] = defaultdict(list)
    for sight in sights:
        seen[sight.reader, sight.id].append(sight)
    first = {one.reader: one for one in reversed(subscribed)}
    for row in rows:
        if row.sent > until:
            continue
        for start in first.values():
            if start.user != row.user or row.sent <= start.base - offset:
                continue
            evidence = {"reader": start.reader, "order": row.order, "last": row.version}
            versions = [sight.version for sight in seen[start.reader, row.id]]
            if row.version not in versions:
                yield Finding(Violation.READER_MISSED, evidence | {"seen": versions[-5:]})
    for (reader, id), of_one in seen.items():
        newest = told = 0  # at all, and live: a page may show what is then told
        for sight in of_one:
            evidence = {"reader": reader, "notification": id, "after": newest, "at": sight.at}
            if sight.connection >= 0:
                if sight.version < newest or sight.version == told:
                    yield Finding(Violation.STALE, evidence | {"seen": sight.version})
                told = max(told, sight.version)
            newest = max(newest, sight.version)
