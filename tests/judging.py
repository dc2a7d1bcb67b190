"""A campaign's journal and what was found, made by hand, for the checker to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from campaign.checker import judge
from campaign.faults import Injected
from campaign.found import Found, Row
from campaign.journal import (
    Attempt,
    Change,
    Journal,
    Mark,
    Outcome,
    Period,
    Person,
    Record,
    Scheduled,
    Sight,
    Subscribed,
)
from campaign.service_process import Sample
from campaign.verdict import Verdict, Violation
from campaign.world import WorldFacts
from services.shared.settings import Settings

SETTINGS: Final = Settings(_env_file=None, write_window_seconds=5, fan_out_size=5)
NOON = datetime.fromisoformat("2026-06-01T12:00:00Z").timestamp()
END = NOON + 600
ANN = Person(id="ann", role="user", token="", refuses=("promotion",))
BEN = Person(id="ben", role="user", token="", refuses=("promotion",))
SCHEDULE = Scheduled(id="5" * 24, user="ben", cron="* * * * *", timezone="UTC", created=NOON)


def attempt(at: float = 10, **changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "kind": "order",
        "via": "graphql",
        "key": "shop 1",
        "users": ("ann",),
        "type": "order_update",
        "gist": "g",
        "outcome": Outcome.OK,
        "started": NOON + at,
        "ended": NOON + at + 0.1,
    }
    return Attempt(**(values | changes))


def row(id: str = "n1", **changes: Any) -> Row:
    return replace(Row(id, "ann", "shop 1", "order_update", NOON + 11, "g"), **changes)


def promotion(**changes: Any) -> Attempt:
    return attempt(**({"kind": "promotion", "type": "promotion"} | changes))


def change(on: bool, at: float, outcome: Outcome = Outcome.OK) -> Change:
    start = NOON + at
    return Change(
        user="ann", type="promotion", on=on, outcome=outcome, started=start, ended=start + 0.1
    )


def mark(value: bool, at: float, id: str = "n1", outcome: Outcome = Outcome.OK) -> Mark:
    times: dict[str, Any] = {"started": NOON + at, "ended": NOON + at + 0.1}
    return Mark(user="ann", id=id, field="read", value=value, outcome=outcome, **times)


def sight(id: str, sent: float, at: float, connection: int = 1, gist: str = "g") -> Sight:
    return Sight(
        reader="r",
        user="ann",
        id=id,
        sent=NOON + sent,
        connection=connection,
        at=NOON + at,
        gist=gist,
    )


READER = Subscribed(reader="r", user="ann", base=NOON, at=NOON)


def judged(
    records: Sequence[Record],
    rows: Sequence[Row] = (),
    faults: Sequence[Injected] = (),
    start: Sample | None = None,
    end: Sample | None = None,
    **found: Any,
) -> Verdict:
    journal = Journal()
    for record in (ANN, BEN, *records):
        journal.note(record)
    for event, at in (("began", NOON), ("stopping", END - 10), ("settled", END)):
        journal.note(Period(event=event, at=at, offset=0))
    facts = WorldFacts({"one": start}, {"one": [end]}) if start and end else WorldFacts({}, {})
    return judge(journal, Found(rows, at=END, **found), faults, facts, SETTINGS)


def found(verdict: Verdict) -> dict[Violation, int]:
    return {violation: count for violation, count in verdict.counts.items() if count}
