"""The verdict as people like to look at it, and as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from campaign.verdict import Recovered, Verdict

SHOWN: Final = 20
_WIDTH: Final = 58


def table(verdict: Verdict) -> str:
    numbers = {
        "accepted, each counted once": verdict.accepted,
        "attempts answered": verdict.answered,
        "attempts indeterminate": verdict.indeterminate,
        "attempts refused": verdict.refused,
        "notifications stored": verdict.notifications,
        "seen by readers": verdict.sights,
    }
    lines = [_head("Campaign"), *_rows(numbers)]
    lines += [_head("Faults", sum(verdict.faults.values()))]
    lines += _rows(dict(sorted(verdict.faults.items())))
    lines += [_head("Violations", verdict.violations)]
    lines += _rows({str(name): count for name, count in verdict.counts.items()})
    if verdict.recovery:
        lines += [_head("Recovery, seconds")]
        lines += [f"  {'after (alone)':<34}{'faults':>6}{'p50':>6}{'p95':>6}{'max':>6}"]
        lines += [_recovery(name, one) for name, one in verdict.recovery.items()]
    ending = "Nothing lost, nothing twice." if verdict.ok else "Violations: see the report."
    return "\n".join([*lines, _head(), ending])


def as_json(verdict: Verdict) -> dict[str, Any]:
    evidence: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for finding in verdict.findings:
        if len(evidence[finding.violation]) < SHOWN:
            evidence[finding.violation].append(finding.evidence)
    return {
        "accepted": verdict.accepted,
        "answered": verdict.answered,
        "indeterminate": verdict.indeterminate,
        "refused": verdict.refused,
        "notifications": verdict.notifications,
        "seen": verdict.sights,
        "faults": dict(verdict.faults),
        "violations": verdict.violations,
        "counts": {str(name): count for name, count in verdict.counts.items()},
        "recovery": {name: asdict(one) for name, one in verdict.recovery.items()},
        "evidence": dict(evidence),
        "notes": dict(verdict.notes),
    }


def write_json(path: Path, verdict: Verdict) -> None:
    path.write_text(json.dumps(as_json(verdict), indent=1, default=str) + "\n")


def _recovery(name: str, one: Recovered) -> str:
    seconds = "".join(
        f"{'-':>6}" if one is None else f"{one:>6.2f}" for one in (one.p50, one.p95, one.max)
    )
    target = f"  p95 should be {one.target:.0f}" if one.target else ""
    never = f"  {one.never} never" if one.never else ""
    return f"  {name:<34}{one.count:>6}{seconds}{target}{never}"


def _head(title: str = "", total: int | None = None) -> str:
    text = f"── {title} " if title else ""
    number = f" {total:,}" if total is not None else ""
    return f"{text:─<{_WIDTH - len(number)}}{number}"


def _rows(numbers: Mapping[str, int]) -> list[str]:
    return [f"  {name:<40}{count:>16,}" for name, count in numbers.items()]
