"""The checker is not blind: each kind of violation, made by hand, is found, and no others."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replaced

from campaign.checker import HEALED, KILLED, recoveries
from campaign.deeds import MOVE
from campaign.events import NO_REASON
from campaign.faults import Injected
from campaign.fires import fires
from campaign.found import Row
from campaign.journal import (
    Attempt,
    Change,
    Closed,
    Expect,
    Journal,
    Outcome,
    Probe,
    Published,
    Record,
    Sight,
    Walk,
)
from campaign.probe import PATHS, recovery
from campaign.report import as_json, table
from campaign.service_process import Sample
from campaign.verdict import Violation
from tests.judging import (
    ANN,
    END,
    NOON,
    READER,
    SCHEDULE,
    attempt,
    change,
    found,
    judged,
    mark,
    promotion,
    row,
    sight,
)


def test_a_right_run_has_no_violations() -> None:
    records: list[Record] = [attempt(), READER, sight("n1", 11, 12), mark(True, 20)]
    verdict = judged(records, [row(read=True)], counts={"ann": (0, 0)})
    assert verdict.ok
    assert "Nothing lost, nothing twice." in table(verdict)


def test_an_accepted_event_without_its_notification_is_lost() -> None:
    assert found(judged([attempt()])) == {Violation.LOST: 1}


def test_an_indeterminate_event_may_be_there_or_not() -> None:
    perhaps = attempt(outcome=Outcome.INDETERMINATE)
    assert judged([perhaps]).ok
    assert judged([perhaps], [row()]).ok


def test_an_attempt_that_was_repeated_and_then_accepted_has_to_be_there() -> None:
    tries = [attempt(outcome=Outcome.INDETERMINATE), attempt(at=12)]
    assert found(judged(tries)) == {Violation.LOST: 1}


def test_two_notifications_of_one_event_are_duplicates() -> None:
    assert found(judged([attempt()], [row(), row("n2")])) == {Violation.DUPLICATED: 1}


def test_one_for_somebody_else_is_misdirected() -> None:
    rows = [row(), row("n2", user="ben")]
    assert found(judged([attempt()], rows)) == {Violation.MISDIRECTED: 1}


def test_one_that_nobody_asked_for_is_misdirected() -> None:
    assert found(judged([], [row()])) == {Violation.MISDIRECTED: 1}


def test_other_content_is_seen() -> None:
    assert found(judged([attempt()], [row(gist="h")])) == {Violation.ALTERED: 1}


def test_a_broadcast_has_to_reach_everyone_who_accepts_promotions() -> None:
    verdict = judged([change(True, 1), promotion(users=None)])
    assert found(verdict) == {Violation.LOST: 1}
    assert verdict.findings[0].evidence["user"] == "ann"


def test_a_refused_type_that_was_sent_is_seen() -> None:
    rows = [row(type="promotion")]
    assert found(judged([promotion()], rows)) == {Violation.REFUSED_BUT_SENT: 1}
    off_again: list[Record] = [change(True, 1), change(False, 5), promotion()]
    assert found(judged(off_again, rows)) == {Violation.REFUSED_BUT_SENT: 1}


@pytest.mark.parametrize(
    "changes",
    [
        [change(True, 10.5)],
        [change(True, 1), change(False, 10.5)],
        [change(True, 5, Outcome.INDETERMINATE)],
    ],
)
def test_a_wish_that_changes_meanwhile_allows_either(changes: list[Change]) -> None:
    assert judged([*changes, promotion()]).ok
    assert judged([*changes, promotion()], [row(type="promotion")]).ok


def test_an_answer_that_it_was_sent_is_a_promise() -> None:
    sent = promotion(kind="create", said="SENT")
    assert found(judged([sent])) == {Violation.LOST: 1}
    assert judged([promotion(kind="create", said="SUPPRESSED")]).ok
    wanted: list[Record] = [change(True, 1), promotion(kind="create", said="SUPPRESSED")]
    assert found(judged(wanted)) == {Violation.LOST: 1}


def test_right_attempts_that_are_refused_and_conflicts_that_are_not_are_seen() -> None:
    refused = attempt(outcome=Outcome.REFUSED, code="CONFLICT")
    assert found(judged([refused])) == {Violation.WRONGLY_REFUSED: 1}
    conflict = attempt(at=20, kind="conflict", expect=Expect.REFUSED)
    assert found(judged([attempt(), conflict], [row()])) == {Violation.WRONGLY_ACCEPTED: 1}


def test_an_answer_that_helps_nobody_is_seen() -> None:
    for code in NO_REASON:
        unknown = attempt(outcome=Outcome.INDETERMINATE, code=code)
        assert found(judged([unknown])) == {Violation.NO_REASON: 1}
        nobodys = replaced(mark(True, 20), outcome=Outcome.INDETERMINATE, code=code)
        assert found(judged([nobodys])) == {Violation.NO_REASON: 1}
        unheard = replaced(change(True, 20), outcome=Outcome.INDETERMINATE, code=code)
        assert found(judged([unheard])) == {Violation.NO_REASON: 1}
        for why in (code, f"page {code}"):
            ended = Closed(reader="r", connection=1, why=why, at=20)
            assert found(judged([ended])) == {Violation.NO_REASON: 1}
    assert judged([attempt(outcome=Outcome.INDETERMINATE, code="SERVICE_UNAVAILABLE")]).ok


@pytest.mark.parametrize("why", ["1001", "1012", "1013", "cut", "1000", "1011", "4400", "4403"])
def test_a_close_code_that_a_right_client_never_gets_is_seen(why: str) -> None:
    closed = judged([Closed(reader="r", connection=1, why=why, at=20)])
    expected = {Violation.NO_REASON: 1} if why in ("1000", "1011", "4400", "4403") else {}
    assert found(closed) == expected


def test_a_recommendation_to_who_refuses_them_is_seen() -> None:
    def off(at: float) -> Change:
        return replaced(change(False, at), type="recommendation")

    asked = attempt(kind="recommend", key="recommend ann", type="recommendation", gist="")
    answered = replaced(asked, id="n1", said="SENT")
    unknown = replaced(asked, outcome=Outcome.INDETERMINATE)
    own = row(type="recommendation", event="urn:tidings:user:ann 1")
    for one in (answered, unknown):
        assert judged([one], [own]).ok
        assert judged([one, off(10.5)], [own]).ok
        assert found(judged([off(1), one], [own])) == {Violation.REFUSED_BUT_SENT: 1}


def test_what_a_reader_missed_is_seen() -> None:
    assert found(judged([attempt(), READER], [row()])) == {Violation.READER_MISSED: 1}


def test_what_a_reader_saw_on_a_page_after_a_resync_is_not_missed() -> None:
    records: list[Record] = [attempt(), READER, sight("n1", 11, 12, connection=-1)]
    assert judged(records, [row()]).ok


def test_what_a_reader_saw_twice_is_seen() -> None:
    records: list[Record] = [
        attempt(),
        READER,
        sight("n1", 11, 12),
        sight("n1", 11, 13, connection=2),
    ]
    assert found(judged(records, [row()])) == {Violation.READER_TWICE: 1}


def test_disorder_beyond_window_and_longest_fault_is_seen_and_within_them_is_not() -> None:
    records: list[Record] = [
        attempt(at=1),
        attempt(at=1, key="shop 2"),
        READER,
        sight("n1", 20, 22),
    ]
    for sent, expected in ((10.0, {}), (8.0, {Violation.READER_DISORDER: 1})):
        rows = [row(sent=NOON + 20), row("n2", event="shop 2", sent=NOON + sent)]
        assert found(judged([*records, sight("n2", sent, 23)], rows)) == expected


@pytest.mark.parametrize("sent", [8, 15, 3611, -3589])
def test_what_a_wrong_clock_has_stamped_is_seen(sent: float) -> None:
    rows = [row(sent=NOON + sent)]
    verdict = judged([attempt(), READER, sight("n1", sent, 12)], rows)
    assert found(verdict) == {Violation.MISSTAMPED: 1}


def test_what_a_wrong_clock_has_stamped_is_missed_all_the_same() -> None:
    seen = found(judged([attempt(), READER], [row(sent=NOON + 8)]))
    assert seen == {Violation.MISSTAMPED: 1, Violation.READER_MISSED: 1}


def test_a_reader_that_had_to_read_again_is_seen_and_other_subscribers_are_not() -> None:
    def ended(reader: str) -> Closed:
        return Closed(reader=reader, connection=1, why="RESYNC", at=NOON + 5)

    assert judged([READER, ended("w")]).ok
    assert found(judged([READER, ended("r")])) == {Violation.NEEDLESS_RESYNC: 1}


def test_what_a_reader_saw_and_is_not_stored_is_seen() -> None:
    records: list[Record] = [READER, sight("ghost", 11, 12)]
    assert found(judged(records)) == {Violation.MISDIRECTED: 1}


def test_what_a_reader_saw_with_other_content_is_seen() -> None:
    records: list[Record] = [attempt(), READER, sight("n1", 11, 12, gist="another")]
    assert found(judged(records, [row()])) == {Violation.ALTERED: 1}


def test_what_was_shown_to_another_than_its_user_is_seen() -> None:
    rows = [row(), row("n2", event="shop 2", user="ben")]
    records: list[Record] = [attempt(), attempt(key="shop 2", users=("ben",)), READER]
    mine = sight("n1", 11, 12)
    assert judged([*records, mine], rows).ok
    mixed = [mine, sight("n2", 11, 13)]
    assert found(judged([*records, *mixed], rows)) == {Violation.MISDIRECTED: 1}
    walk = Walk(ids=("n1", "n2"), complete=True, user="ann", started=NOON + 60, ended=NOON + 61)
    assert found(judged([*records, mine, walk], rows)) == {Violation.MISDIRECTED: 1}


def moved(version: int, at: float = 10, **changes: Any) -> Attempt:
    key = f"shop parcel/{version}"
    return attempt(at, **({"kind": MOVE, "type": "", "gist": "", "key": key} | changes))


def status(version: int, at: float, connection: int = 1) -> Sight:
    return replaced(sight("n1", at, at, connection), version=version)


def shown(version: int, **changes: Any) -> Row:
    values: dict[str, Any] = {"order": "parcel", "version": version}
    return row(**(values | changes))


def test_an_order_that_moves_shows_its_newest_status() -> None:
    moves: list[Record] = [moved(2), moved(3, outcome=Outcome.INDETERMINATE), moved(1)]
    for version, right in ((1, False), (2, True), (3, True), (4, False)):
        verdict = judged(moves, moved=[shown(version)])
        assert found(verdict) == ({} if right else {Violation.STALE: 1})
    assert found(judged(moves)) == {Violation.LOST: 1}
    twice = [shown(2), shown(2, id="n2")]
    assert found(judged(moves, moved=twice)) == {Violation.DUPLICATED: 1}
    assert found(judged(moves, moved=[shown(2, user="ben")])) == {Violation.MISDIRECTED: 1}
    strangers = [shown(2), shown(1, id="n2", order="another")]
    assert found(judged(moves, moved=strangers)) == {Violation.MISDIRECTED: 1}


@pytest.mark.parametrize(
    ("sights", "wrong"),
    [
        ([(1, 1), (3, 1)], None),
        ([(3, 2)], None),
        ([(1, 1), (3, -1), (3, 2)], None),
        ([(1, 1)], Violation.READER_MISSED),
        ([], Violation.READER_MISSED),
        ([(3, 1), (1, 1)], Violation.STALE),
        ([(3, 1), (3, 2)], Violation.STALE),
        ([(3, -1), (1, 2)], Violation.STALE),
    ],
)
def test_a_reader_sees_the_newest_status_last_and_once(
    sights: list[tuple[int, int]], wrong: Violation | None
) -> None:
    seen = [status(version, 12 + n, link) for n, (version, link) in enumerate(sights)]
    verdict = judged([moved(1), moved(3), READER, *seen], moved=[shown(3)])
    assert found(verdict) == ({wrong: 1} if wrong else {})


def test_pages_that_skip_or_repeat_are_seen() -> None:
    records: list[Record] = [attempt(), attempt(key="shop 2")]
    rows = [row(), row("n2", event="shop 2")]
    times: dict[str, Any] = {"user": "ann", "started": NOON + 60, "ended": NOON + 61}
    right = Walk(ids=("n2", "n1"), complete=True, **times)
    assert judged([*records, right], rows).ok
    skipped = Walk(ids=("n2",), complete=True, **times)
    assert found(judged([*records, skipped], rows)) == {Violation.PAGE_FAULT: 1}
    twice = Walk(ids=("n2", "n1", "n1"), complete=True, **times)
    assert found(judged([*records, twice], rows)) == {Violation.PAGE_FAULT: 1}
    disordered = Walk(ids=("n1", "n2"), complete=True, **times)
    assert found(judged([*records, disordered], rows)) == {Violation.PAGE_FAULT: 1}


def fired(minute: int, id: str = "") -> Row:
    event = f"urn:tidings {SCHEDULE.id}/2026-06-01T12:0{minute}:00+00:00"
    return Row(id or f"f{minute}", "ben", event, "order_update", NOON + 60 * minute + 1)


def test_fires_that_are_missed_or_double_or_wrong_are_seen() -> None:
    every = [fired(minute) for minute in range(1, 10)]
    assert judged([SCHEDULE], every).ok
    assert found(judged([SCHEDULE], every[:-1])) == {Violation.MISSED_FIRE: 1}
    assert found(judged([SCHEDULE], [*every, fired(3, "again")])) == {Violation.DOUBLE_FIRE: 1}
    between = every[2].event.replace("12:03:00", "12:03:30")
    wrong = replace(fired(3, "w"), event=between, sent=NOON + 211)
    assert found(judged([SCHEDULE], [*every, wrong])) == {Violation.WRONG_FIRE: 1}
    faults = [Injected("clocks-back", "all-clocks", NOON, END)]
    assert found(judged([SCHEDULE], every[:-1], faults)) == {Violation.MISSED_FIRE: 1}


def test_two_schedulers_that_both_fired_are_seen_on_the_broker() -> None:
    every = [fired(minute) for minute in range(1, 10)]
    seen = [
        Published(key=every[0].event, type="order.status_changed", digest=digest, at=NOON)
        for digest in ("a", "a", "b")
    ]
    assert judged([SCHEDULE, *seen[:2]], every).ok
    assert found(judged([SCHEDULE, *seen], every)) == {Violation.DOUBLE_FIRE: 1}


@pytest.mark.parametrize(
    ("cron", "since", "hours", "expected"),
    [
        ("30 2 * * *", "2026-10-24T22:00Z", 8, ["2026-10-25T00:30Z"]),
        ("30 * * * *", "2026-10-25T00:00Z", 2, ["2026-10-25T00:30Z", "2026-10-25T01:30Z"]),
        ("30 2 * * *", "2026-03-29T00:00Z", 8, ["2026-03-29T01:00Z"]),
        ("30 2 * * *", "2026-06-01T00:00Z", 8, ["2026-06-01T00:30Z"]),
    ],
)
def test_the_oracle_knows_dst(cron: str, since: str, hours: int, expected: list[str]) -> None:
    start = datetime.fromisoformat(since).timestamp()
    found = list(fires(cron, "Europe/Vienna", start, start + hours * 3600))
    assert found == [datetime.fromisoformat(one).timestamp() for one in expected]


def test_poison_that_is_lost_and_the_innocent_that_died_are_seen() -> None:
    poison = attempt(kind="poison", key="digest", type="", expect=Expect.REFUSED)
    assert judged([poison], dead=frozenset({"digest"})).ok
    assert found(judged([poison])) == {Violation.POISON_LOST: 1}
    assert found(judged([], innocents=["{}"])) == {Violation.INNOCENT_DEAD: 1}
    assert found(judged([], unexplained=2)) == {Violation.POISON_LOST: 1}


def test_what_still_waits_is_seen() -> None:
    leftovers = {"outbox": 3, "tidings.users": 1}
    assert found(judged([], leftovers=leftovers)) == {Violation.LEFTOVER: 2}


def test_an_acknowledged_mark_that_is_not_there_is_seen() -> None:
    assert found(judged([attempt(), mark(True, 20)], [row()])) == {
        Violation.ACKNOWLEDGED_MISSING: 1
    }
    assert judged([attempt(), mark(True, 20), mark(False, 21)], [row()]).ok
    perhaps = mark(False, 19, outcome=Outcome.INDETERMINATE)
    assert judged([attempt(), mark(True, 20), perhaps], [row()]).ok
    assert not judged([attempt(), mark(True, 60), perhaps], [row()]).ok


def test_a_mark_of_all_that_left_one_out_is_seen() -> None:
    records: list[Record] = [attempt(), READER, sight("n1", 11, 12), mark(True, 20, id="")]
    assert found(judged(records, [row()])) == {Violation.ACKNOWLEDGED_MISSING: 1}


def test_a_product_and_an_activity_that_were_accepted_are_kept() -> None:
    product = attempt(kind="product", key="p", type="")
    assert judged([product], products=frozenset({"p"})).ok
    assert found(judged([product])) == {Violation.LOST: 1}
    activity = attempt(kind="activity", key="shop a", type="")
    assert found(judged([activity], activities={"shop a": 2})) == {Violation.DUPLICATED: 1}
    tracked = attempt(kind="track", key="ann view p", type="")
    assert found(judged([tracked, tracked], activities={"ann view p": 1})) == {Violation.LOST: 1}


def test_a_wrong_unread_count_is_seen() -> None:
    assert found(judged([], counts={"ann": (2, 1)})) == {Violation.WRONG_COUNT: 1}


def test_a_process_that_has_grown_is_seen() -> None:
    start = Sample(rss=100 << 20, descriptors=20, sockets=10, tasks=10)
    assert judged([], start=start, end=replace(start, rss=150 << 20)).ok
    for grown in ({"rss": 200 << 20}, {"sockets": 30}, {"descriptors": 80}, {"tasks": 30}):
        end = replace(start, **grown)
        assert found(judged([], start=start, end=end)) == {Violation.GROWTH: 1}
    silent = replace(start, tasks=None)
    assert found(judged([], start=start, end=silent)) == {Violation.GROWTH: 1}


def probed(path: str, accepted: float, arrived: float | None) -> Probe:
    return Probe(path, accepted, arrived)


def test_recovery_lasts_until_what_was_accepted_before_and_one_on_each_path_have_arrived() -> None:
    before = [probed(PATHS[0], 1.0, 1.1), probed(PATHS[1], 9.9, 12.0)]
    after = [probed(path, 10.5, 11.0 + number) for number, path in enumerate(PATHS)]
    assert recovery([*before, *after[:2]], 10.0) is None
    assert recovery([*before, *after], 10.0) == 1.0 + len(PATHS) - 1
    assert recovery([*after, *before, probed(PATHS[0], 9.5, 19.0)], 10.0) == 9.0
    assert recovery([*before, *after, probed(PATHS[0], 9.5, None)], 10.0) is None


def test_only_faults_that_were_alone_are_measured_and_what_never_came_is_told() -> None:
    well = [probed(path, 10.5, 11.0) for path in PATHS]
    faults = [
        Injected("kill-gateway", "gateway-1", 10.0, 10.0, alone=True),
        Injected("kill-users", "users", 30.0, 30.0, alone=True),
        Injected("link-cut", "users-mongodb", 10.0, 10.0),
    ]
    found = recoveries(well, faults)
    assert (found[KILLED].count, found[KILLED].max, found[KILLED].never) == (2, 1.0, 1)
    assert (found["kill-gateway"].p50, found["kill-users"].p50) == (1.0, None)
    assert (found[HEALED].count, found[HEALED].p95) == (0, None)


def test_what_never_got_well_is_a_violation() -> None:
    faults = [Injected("kill-users", "users", NOON, NOON, alone=True)]
    assert found(judged([], faults=faults)) == {Violation.NEVER_WELL: 1}
    assert judged([], faults=[replace(faults[0], alone=False)]).ok


def test_a_journal_that_was_written_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for record in (ANN, attempt(), READER, sight("n1", 11, 12), SCHEDULE, mark(True, 20)):
        journal.note(record)
    journal.close()
    again = Journal.load(path)
    assert again.attempts == journal.attempts
    assert again.sights == journal.sights
    assert again.marks == journal.marks


def test_the_report_keeps_the_evidence() -> None:
    verdict = judged([attempt()])
    assert as_json(verdict)["evidence"]["lost"][0]["key"] == "shop 1"
    assert "Violations" in table(verdict)
