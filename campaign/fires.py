"""When schedules have to fire: an oracle of its own, and what became of the fires. Pure.

Minute by minute, by the rules of `services/scheduler/cron.py` and none of its code: a job of
every hour fires at every instant whose wall time matches; any other at the first one only where
autumn repeats a wall time, and at the end of the gap where spring skips it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from campaign.found import Row
from campaign.journal import Published, Scheduled
from campaign.verdict import Finding, Violation

_MINUTE: Final = 60.0
_KEY: Final = re.compile(r"urn:tidings ([0-9a-f]{24})/(\d{4}-\d\d-\d\dT\S+)")
_EDGE_SECONDS: Final = 3.0


def fires(cron: str, timezone: str, since: float, until: float) -> Iterator[float]:
    """Fires in [since, until), seconds since 1970. Reads `*` and single numbers in the first two
    fields, and `*` in the others: what the campaign uses."""
    minute, hour, *rest = cron.split()
    assert rest == ["*", "*", "*"], f"the oracle does not read {cron}"
    zone = ZoneInfo(timezone)
    at = -(-since // _MINUTE) * _MINUTE
    while at < until:
        local = datetime.fromtimestamp(at, UTC).astimezone(zone)
        hit = _matches(hour, local.hour) and _matches(minute, local.minute)
        if (hit and (hour == "*" or not local.fold)) or (hour != "*" and _ends_gap(local, hour)):
            yield at
        at += _MINUTE


def fire_of(key: str) -> float:
    """The instant in the key of a fire's event; 0 for any other event."""
    match = _KEY.fullmatch(key)
    return datetime.fromisoformat(match[2]).timestamp() if match else 0.0


def check_fires(
    schedules: Sequence[Scheduled],
    rows: Sequence[Row],
    published: Sequence[Published],
    *,
    stopping: float,
    offset: float,
) -> Iterator[Finding]:
    """Times are the campaign's; fires are the services' (`offset` seconds later).

    No fault is an excuse: none lasts until the next fire, and wall clocks decide nothing.
    """
    found: defaultdict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        if match := _KEY.fullmatch(row.event):
            found[match[1], fire_of(row.event) - offset].append(row)
    for schedule in schedules:
        yield from _of_one(schedule, found, stopping, offset)
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for one in published:
        if _KEY.fullmatch(one.key):
            digests[one.key].add(one.digest)
    for key, different in digests.items():
        if len(different) > 1:
            yield Finding(Violation.DOUBLE_FIRE, {"event": key, "messages": sorted(different)})


def _of_one(
    schedule: Scheduled,
    found: defaultdict[tuple[str, float], list[Row]],
    stopping: float,
    offset: float,
) -> Iterator[Finding]:
    since, until = schedule.created - _EDGE_SECONDS, stopping + 7200
    named = [
        at - offset
        for at in fires(schedule.cron, schedule.timezone, since + offset, until + offset)
    ]
    evidence = {"schedule": schedule.id, "cron": schedule.cron, "user": schedule.user}
    for fire in named:
        rows = found[schedule.id, fire]
        due = schedule.created + _EDGE_SECONDS < fire < stopping - _EDGE_SECONDS
        if len(rows) > 1:
            ids = [row.id for row in rows]
            yield Finding(Violation.DOUBLE_FIRE, evidence | {"fire": fire, "notifications": ids})
        elif not rows and due:
            yield Finding(Violation.MISSED_FIRE, evidence | {"fire": fire})
    names = set(named)
    for (id, fire), rows in found.items():
        if id == schedule.id and rows and fire not in names:
            yield Finding(Violation.WRONG_FIRE, evidence | {"fire": fire, "event": rows[0].event})


def _matches(field: str, value: int) -> bool:
    return field == "*" or int(field) == value


def _ends_gap(local: datetime, hour: str) -> bool:
    """Whether the clock has just jumped over a wall time of that hour."""
    before = (local.astimezone(UTC) - timedelta(minutes=1)).astimezone(local.tzinfo)
    jump = local.replace(tzinfo=None) - before.replace(tzinfo=None)
    return jump > timedelta(minutes=1) and before.hour < int(hour) < local.hour
