"""What readers saw, what pages showed, and what was acknowledged to them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Final

from campaign.found import Row
from campaign.journal import Closed, Mark, Outcome, Sight, Subscribed, Walk
from campaign.plan import LONGEST
from campaign.verdict import Finding, Violation

# A request that nobody answered may lie in a black hole, and be carried out when it is healed.
_UNDER_WAY: Final = 15.0


def check_readers(
    subscribed: Sequence[Subscribed],
    sights: Sequence[Sight],
    rows: Sequence[Row],
    *,
    window: float,
    offset: float,
    until: float,
) -> Iterator[Finding]:
    """`until`: what was sent later than that may still be under way to a reader."""
    by_user = _by_user(rows)
    seen: defaultdict[str, list[Sight]] = defaultdict(list)
    for sight in sights:
        seen[sight.reader].append(sight)
    first = {one.reader: one for one in reversed(subscribed)}
    for reader, start in first.items():
        yield from _check_reader(start, seen[reader], by_user[start.user], offset, until)
        yield from _check_order(start, seen[reader], window)
        yield from _check_content(start, seen[reader], by_user[start.user])


def _check_reader(
    start: Subscribed,
    sights: Sequence[Sight],
    rows: Sequence[Row],
    offset: float,
    until: float,
) -> Iterator[Finding]:
    seen = {sight.id for sight in sights}
    for row in rows:
        if start.base - offset < row.sent <= until and row.id not in seen:
            evidence = {
                "reader": start.reader,
                "user": start.user,
                "notification": row.id,
                "event": row.event,
                "sent": row.sent,
                "around": _around(sights, row.sent + offset),
            }
            yield Finding(Violation.READER_MISSED, evidence)


def _check_content(
    start: Subscribed, sights: Sequence[Sight], rows: Sequence[Row]
) -> Iterator[Finding]:
    """What was seen is stored for this user, and says the same."""
    own = {row.id: row for row in rows}
    if others := {sight.id for sight in sights} - set(own):
        evidence = {"reader": start.reader, "seen and not its user's": sorted(others)[:10]}
        yield Finding(Violation.MISDIRECTED, evidence)
    for sight in sights:
        if sight.id in own and sight.gist != own[sight.id].gist:
            yield Finding(Violation.ALTERED, {"reader": start.reader, "notification": sight.id})


def _check_order(start: Subscribed, sights: Sequence[Sight], window: float) -> Iterator[Finding]:
    """None twice, and none behind one that was sent later by more than the window and the longest
    fault: a broker that takes nothing holds up the news of what was stored when it fell silent.
    """
    live: set[str] = set()
    newest = float("-inf")
    for sight in sights:
        if sight.connection < 0:
            continue
        evidence = {
            "reader": start.reader,
            "user": start.user,
            "notification": sight.id,
            "connection": sight.connection,
            "at": sight.at,
        }
        if sight.id in live:
            yield Finding(Violation.READER_TWICE, evidence)
        live.add(sight.id)
        if sight.sent < newest - window - LONGEST:
            yield Finding(Violation.READER_DISORDER, evidence | {"behind": newest - sight.sent})
        newest = max(newest, sight.sent)


def _around(sights: Sequence[Sight], sent: float) -> list[tuple[str, float, int, float]]:
    """What the reader saw just before and after: id, sent, connection, at."""
    near = sorted(sights, key=lambda sight: abs(sight.sent - sent))[:4]
    return [(sight.id, sight.sent, sight.connection, sight.at) for sight in near]


def check_walks(
    walks: Sequence[Walk], rows: Sequence[Row], marks: Sequence[Mark], *, window: float
) -> Iterator[Finding]:
    """Newest first, no id twice, and nothing skipped that was there, and settled, at the start."""
    by_user = _by_user(rows)
    moved = {mark.id for mark in marks if mark.field == "archived"}
    for walk in walks:
        ids, who = set(walk.ids), {"user": walk.user, "walk": walk.started}
        if len(ids) < len(walk.ids):
            yield Finding(Violation.PAGE_FAULT, who | {"twice": len(walk.ids) - len(ids)})
        own = by_user[walk.user]
        place = {row.id: (row.sent, row.id) for row in own}
        if others := ids - set(place):
            yield Finding(Violation.MISDIRECTED, who | {"shown": sorted(others)[:10]})
        places = [place[id] for id in walk.ids if id in place]
        if wrong := [later for sooner, later in pairwise(places) if later > sooner]:
            yield Finding(Violation.PAGE_FAULT, who | {"behind an older one": wrong[:10]})
        oldest = min(places, default=(0.0, ""))
        for row in own:
            reached = walk.complete or place[row.id] >= oldest
            if (
                reached
                and row.sent + window < walk.started
                and row.id not in ids
                and row.id not in moved
            ):
                yield Finding(Violation.PAGE_FAULT, who | {"skipped": row.id, "sent": row.sent})


def check_marks(
    marks: Sequence[Mark], sights: Sequence[Sight], rows: Sequence[Row]
) -> Iterator[Finding]:
    """An acknowledged mark that nobody may have undone is in the database."""
    stored = {row.id: row for row in rows}
    single: defaultdict[tuple[str, str], list[Mark]] = defaultdict(list)
    alls: defaultdict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        if mark.outcome is Outcome.REFUSED:
            evidence = {"user": mark.user, "id": mark.id, "code": mark.code, "at": mark.ended}
            yield Finding(Violation.WRONGLY_REFUSED, evidence | {"kind": f"mark {mark.field}"})
        elif mark.id:
            single[mark.id, mark.field].append(mark)
        else:
            alls[mark.user].append(mark)
    for (id, field), own in single.items():
        rivals = own + (alls[own[0].user] if field == "read" else [])
        for mark in own:
            if mark.outcome is Outcome.OK and not _undone(mark, rivals):
                yield from _check_mark(mark, stored.get(id), field)
    saw = {(sight.user, sight.id): sight.at for sight in reversed(sights)}
    for (user, id), at in saw.items():
        for mark in alls[user]:
            if mark.outcome is not Outcome.OK or at > mark.started or id not in stored:
                continue
            if not _undone(mark, single.get((id, "read"), [])):
                yield from _check_mark(mark, stored[id], "read")
                break


def _check_mark(mark: Mark, row: Row | None, field: str) -> Iterator[Finding]:
    is_so = None if row is None else row.read if field == "read" else row.archived
    if is_so is not mark.value:
        evidence = {"user": mark.user, "id": row.id if row else mark.id, "field": field}
        said = {"answered": mark.value, "is": is_so, "at": mark.ended, "all": not mark.id}
        yield Finding(Violation.ACKNOWLEDGED_MISSING, evidence | said)


def _undone(mark: Mark, rivals: Sequence[Mark]) -> bool:
    """Whether one that says otherwise may have come after it."""
    return any(
        rival.value is not mark.value
        and rival.ended + (_UNDER_WAY if rival.outcome is Outcome.INDETERMINATE else 0)
        > mark.started
        for rival in rivals
    )


def check_resyncs(subscribed: Sequence[Subscribed], resyncs: Sequence[Closed]) -> Iterator[Finding]:
    """The load gives nobody as much as a reader can't make up for."""
    readers = {one.reader for one in subscribed}
    for one in resyncs:
        if one.reader in readers:
            evidence = {"reader": one.reader, "connection": one.connection, "at": one.at}
            yield Finding(Violation.NEEDLESS_RESYNC, evidence)


def check_counts(
    counts: Mapping[str, tuple[int | None, int]], told: Mapping[str, int]
) -> Iterator[Finding]:
    """What unreadCount answers, and what its subscribers were last told, is what one counts."""
    for user, (answered, counted) in counts.items():
        if answered != counted:
            evidence: dict[str, object] = {"user": user, "answered": answered, "counted": counted}
            yield Finding(Violation.WRONG_COUNT, evidence)
        if user in told and told[user] != counted:
            evidence = {"user": user, "last told": told[user], "counted": counted}
            yield Finding(Violation.WRONG_COUNT, evidence)


def overtaken(sights: Sequence[Sight]) -> int:
    """How many were delivered behind one that was sent later: allowed, within limits."""
    live = [sight for sight in sights if sight.connection >= 0]
    by_reader = sorted(live, key=lambda sight: (sight.reader, sight.at))
    return sum(
        later.sent < sooner.sent
        for _, own in groupby(by_reader, lambda sight: sight.reader)
        for sooner, later in pairwise(own)
    )


def _by_user(rows: Sequence[Row]) -> defaultdict[str, list[Row]]:
    by_user: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_user[row.user].append(row)
    return by_user
