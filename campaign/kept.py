"""What was asked for under a key of the caller's own is there, and there once. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from campaign.found import Row
from campaign.journal import Attempt, Outcome
from campaign.verdict import Finding, Violation


class Kept(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def key(self) -> str: ...


def by_key(attempts: Sequence[Attempt], kinds: Collection[str]) -> Mapping[str, list[Attempt]]:
    """Those of these kinds, in their order."""
    found: defaultdict[str, list[Attempt]] = defaultdict(list)
    for one in attempts:
        if one.kind in kinds:
            found[one.key].append(one)
    return found


def by_id(rows: Sequence[Row], prefix: str) -> Mapping[str, list[Row]]:
    """By what stands behind the prefix in their events."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.event.startswith(prefix):
            found[row.event.removeprefix(prefix)].append(row)
    return found


def check_kept(
    kind: str,
    asked: Mapping[str, Sequence[Attempt]],
    stored: Sequence[Kept],
    told: Mapping[str, Sequence[Row]],
) -> Iterator[Finding]:
    """`kind`: of the attempts that ask for one; `told`: by id, what came of it."""
    there: dict[str, str] = {}
    for one in stored:
        if one.key not in asked:
            yield Finding(Violation.MISDIRECTED, {kind: one.id, "key": one.key})
        elif there.setdefault(one.key, one.id) != one.id:
            yield Finding(Violation.DUPLICATED, {kind: one.id, "key": one.key})
    for key, steps in asked.items():
        ids = {one.id for one in steps if one.kind == kind and one.outcome is Outcome.OK}
        if ids - {there.get(key)}:
            lost = key not in there
            evidence = {kind: key, "answered": sorted(ids), "stored": there.get(key)}
            yield Finding(Violation.LOST if lost else Violation.DUPLICATED, evidence)
    for id in told.keys() - there.values():
        yield Finding(Violation.MISDIRECTED, {kind: id, "notifications": len(told[id])})
