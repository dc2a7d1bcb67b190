"""The checker is not blind to what goes out to many, later, or elsewhere: broadcasts, what was
scheduled, deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace as replaced

from campaign.deeds import BROADCAST, CANCEL, PAUSE, RESUME, SCHEDULE, UNSCHEDULE, version_in
from campaign.faults import MONGOD, Injected
from campaign.found import Broadcast, Delivery, Later, Row
from campaign.journal import Attempt, Outcome, Person, Record
from campaign.verdict import Verdict, Violation
from tests.judging import ANN, END, NOON, attempt, change, found, judged, row

BOTH = Broadcast("b1", "many", "done", None, total=2, sent=1, suppressed=1)  # ann has it, ben not
TO_ANN = row(event="urn:tidings broadcast/b1", type="promotion")
WANTED = change(True, 1)  # by ann


def step(kind: str, at: float, said: str, **changes: Any) -> Attempt:
    given: dict[str, Any] = {"kind": kind, "key": "many", "type": "", "said": said, "id": "b1"}
    return attempt(at, **(given | changes))


ASKED = step(BROADCAST, 10, "RUNNING", users=None)


def of_broadcast(
    *steps: Attempt,
    stored: Sequence[Broadcast] = (BOTH,),
    rows: Sequence[Row] = (TO_ANN,),
    faults: Sequence[Injected] = (),
) -> Verdict:
    return judged([WANTED, ASKED, *steps], rows, faults, broadcasts=stored)


def test_a_broadcast_that_reached_everybody_is_right() -> None:
    assert of_broadcast().ok


def test_a_broadcast_that_left_a_member_out_or_came_twice_is_seen() -> None:
    nobody = replace(BOTH, sent=0, suppressed=2)
    assert found(of_broadcast(stored=[nobody], rows=[])) == {Violation.LOST: 1}
    again = [TO_ANN, replace(TO_ANN, id="n2")]
    assert found(of_broadcast(rows=again)) == {Violation.DUPLICATED: 1}


def test_a_broadcast_to_somebody_else_or_to_who_refuses_is_seen() -> None:
    to_ben = replace(TO_ANN, id="n2", user="ben")
    both = replace(BOTH, sent=2, suppressed=0)
    verdict = of_broadcast(stored=[both], rows=[TO_ANN, to_ben])
    assert found(verdict) == {Violation.REFUSED_BUT_SENT: 1}
    to_ann = replaced(ASKED, users=("ann",))
    one = replace(BOTH, total=1, suppressed=0)
    assert judged([WANTED, to_ann], [TO_ANN], broadcasts=[one]).ok
    verdict = judged([WANTED, to_ann], [TO_ANN, to_ben], broadcasts=[one])
    assert found(verdict)[Violation.MISDIRECTED] == 1


def test_a_broadcast_in_other_words_or_before_it_was_asked_for_is_seen() -> None:
    assert found(of_broadcast(rows=[replace(TO_ANN, gist="h")])) == {Violation.ALTERED: 1}
    assert found(of_broadcast(rows=[replace(TO_ANN, sent=NOON + 8)])) == {Violation.MISSTAMPED: 1}


def test_a_broadcast_that_is_not_there_or_there_twice_is_seen() -> None:
    assert found(of_broadcast(stored=[], rows=[])) == {Violation.LOST: 1}
    assert Violation.DUPLICATED in found(of_broadcast(stored=[BOTH, replace(BOTH, id="b2")]))
    assert found(of_broadcast(stored=[BOTH, replace(BOTH, id="b2", key="")])) == {
        Violation.MISDIRECTED: 1
    }
    two = step(BROADCAST, 12, "RUNNING", id="b2", users=None)
    assert found(of_broadcast(two)) == {Violation.DUPLICATED: 1}
    nobodys = replace(TO_ANN, id="n2", event="urn:tidings broadcast/b9")
    assert found(of_broadcast(rows=[TO_ANN, nobodys])) == {Violation.MISDIRECTED: 1}


def test_an_indeterminate_broadcast_may_be_there_or_not() -> None:
    perhaps = replaced(ASKED, outcome=Outcome.INDETERMINATE, id="", said="")
    assert judged([WANTED, perhaps]).ok
    assert judged([WANTED, perhaps], [TO_ANN], broadcasts=[BOTH]).ok


@pytest.mark.parametrize(
    "counters",
    [
        {"total": 3, "suppressed": 2},  # more than there are members
        {"total": 1, "suppressed": 0},
        {"suppressed": 0},  # one is not counted
        {"sent": 2, "suppressed": 0},  # more than have it
        {"sent": 0, "suppressed": 2},  # fewer, and nobody changed their mind
        {"failed": 1, "suppressed": 0},
    ],
)
def test_counters_that_are_wrong_are_seen(counters: dict[str, int]) -> None:
    wrong = replace(BOTH, **counters)  # type: ignore[arg-type]
    assert found(of_broadcast(stored=[wrong])) == {Violation.WRONG_COUNT: 1}


def test_who_changed_their_mind_meanwhile_may_be_counted_as_suppressed() -> None:
    off = change(False, 12)
    less = replace(BOTH, sent=0, suppressed=2)
    assert judged([WANTED, ASKED, off], [TO_ANN], broadcasts=[less]).ok


@pytest.mark.parametrize(
    ("said", "outcome", "right"),
    [
        ("CANCELLED", Outcome.OK, {"cancelled"}),
        ("DONE", Outcome.OK, {"done"}),
        ("", Outcome.INDETERMINATE, {"cancelled", "done"}),
        ("", Outcome.REFUSED, {"done"}),
    ],
)
def test_a_broadcast_ends_as_was_answered(said: str, outcome: Outcome, right: set[str]) -> None:
    cancel = step(CANCEL, 15, said, outcome=outcome)
    for state in ("running", "paused", "cancelled", "done"):
        verdict = of_broadcast(cancel, stored=[replace(BOTH, state=state)])
        seen = found(verdict)
        seen.pop(Violation.WRONGLY_REFUSED, None)
        assert seen == ({} if state in right else {Violation.ACKNOWLEDGED_MISSING: 1})


def test_a_broadcast_that_stands_still_is_seen() -> None:
    paused, resumed = step(PAUSE, 11, "PAUSED"), step(RESUME, 14, "RUNNING")
    assert of_broadcast(paused, resumed).ok
    still = of_broadcast(paused, resumed, stored=[replace(BOTH, state="paused")])
    assert found(still) == {Violation.ACKNOWLEDGED_MISSING: 1}


def test_a_broadcast_that_goes_on_behind_a_stop_is_seen() -> None:
    members = [
        Person(id=f"m{n}", role="user", token="", refuses=("recommendation",)) for n in range(40)
    ]
    welcomes = [
        row(f"w{n}", user=f"m{n}", event=f"urn:tidings w{n}", type="promotion") for n in range(40)
    ]
    asked = replaced(ASKED, users=tuple(person.id for person in members))

    def sent_late(count: int, *steps: Attempt, late: float, faults: Sequence[Injected]) -> Verdict:
        rows = [
            replace(TO_ANN, id=f"n{n}", user=f"m{n}", sent=NOON + (late if n < count else 10.5))
            for n in range(40)
        ]
        state = "cancelled" if steps[0].kind == CANCEL else "done"
        stored = Broadcast("b1", "many", state, None, total=40, sent=40)
        records: list[Record] = [*members, asked, *steps]
        return judged(records, [*welcomes, *rows], faults, broadcasts=[stored])

    worker = [Injected("kill-notifications", "notifications-1", NOON + 10.5, NOON + 10.5)]
    database = [Injected("kill-mongod", MONGOD, NOON + 10.5, NOON + 10.5)]
    other = [Injected("kill-gateway", "gateway-1", NOON + 10.5, NOON + 10.5)]
    paused, resumed = step(PAUSE, 11, "PAUSED"), step(RESUME, 15, "RUNNING")
    for steps in ([step(CANCEL, 11, "CANCELLED")], [paused, resumed]):
        assert sent_late(10, *steps, late=13, faults=other).ok
        verdict = sent_late(11, *steps, late=13, faults=other)
        assert found(verdict) == {Violation.STOPPED_BUT_SENT: 1}
        for harmful in (worker, database):
            assert sent_late(20, *steps, late=13, faults=harmful).ok
            assert not sent_late(21, *steps, late=13, faults=harmful).ok
    assert sent_late(40, paused, resumed, late=16, faults=[]).ok


PLANNED = attempt(kind=SCHEDULE, key="later", id="s1", said="SCHEDULED", due=NOON + 20)
SENT = Later("s1", "later", "ann", "sent")
AT_ITS_TIME = row(event="urn:tidings scheduled/s1", sent=NOON + 20.3)


def unscheduled(said: str, **changes: Any) -> Attempt:
    given: dict[str, Any] = {"kind": UNSCHEDULE, "key": "later", "type": "", "said": said}
    return attempt(20, **(given | changes))


def test_what_was_scheduled_is_sent_once() -> None:
    assert judged([PLANNED], [AT_ITS_TIME], later=[SENT]).ok
    for state in ("sent", "suppressed", "waiting", "cancelled"):
        lost = judged([PLANNED], later=[replace(SENT, state=state)])
        assert found(lost) == {Violation.LOST: 1}
    assert found(judged([PLANNED])) == {Violation.LOST: 1}
    twice = [AT_ITS_TIME, replace(AT_ITS_TIME, id="n2")]
    assert found(judged([PLANNED], twice, later=[SENT])) == {Violation.DUPLICATED: 1}
    strangers = [SENT, replace(SENT, id="s9", key="another")]
    assert found(judged([PLANNED], [AT_ITS_TIME], later=strangers)) == {Violation.MISDIRECTED: 1}


@pytest.mark.parametrize(
    ("changes", "violation"),
    [
        ({"sent": NOON + 18}, Violation.MISSTAMPED),
        ({"gist": "h"}, Violation.ALTERED),
        ({"type": "promotion"}, Violation.ALTERED),
        ({"user": "ben"}, Violation.MISDIRECTED),
    ],
)
def test_what_was_scheduled_and_is_sent_otherwise_is_seen(
    changes: dict[str, Any], violation: Violation
) -> None:
    wrong = judged([PLANNED], [replace(AT_ITS_TIME, **changes)], later=[SENT])
    assert found(wrong) == {violation: 1}


def test_what_was_scheduled_and_is_not_wanted_at_its_time_is_not_sent() -> None:
    offer = replaced(PLANNED, type="promotion")
    sent = replace(AT_ITS_TIME, type="promotion")
    assert judged([offer], later=[replace(SENT, state="suppressed")]).ok
    assert found(judged([offer], [sent], later=[SENT])) == {Violation.REFUSED_BUT_SENT: 1}
    assert judged([offer, change(True, 18)], [sent], later=[SENT]).ok
    suppressed = judged([offer, change(True, 18)], later=[replace(SENT, state="suppressed")])
    assert found(suppressed) == {Violation.LOST: 1}


def test_a_cancel_that_was_answered_is_kept() -> None:
    cancelled, none = unscheduled("CANCELLED"), replace(SENT, state="cancelled")
    assert judged([PLANNED, cancelled], later=[none]).ok
    for state in ("cancelled", "sent"):
        stored = [replace(SENT, state=state)]
        sent = judged([PLANNED, cancelled], [AT_ITS_TIME], later=stored)
        assert found(sent) == {Violation.STOPPED_BUT_SENT: 1}
    waiting = judged([PLANNED, cancelled], later=[replace(SENT, state="waiting")])
    assert found(waiting) == {Violation.ACKNOWLEDGED_MISSING: 1}


def test_a_cancel_that_came_too_late_was_too_late() -> None:
    late = unscheduled("TOO_LATE")
    assert judged([PLANNED, late], [AT_ITS_TIME], later=[SENT]).ok
    early = judged([PLANNED, late], later=[replace(SENT, state="cancelled")])
    assert found(early) == {Violation.ACKNOWLEDGED_MISSING: 1}


def test_a_cancel_that_nobody_answered_may_be_one_or_not() -> None:
    perhaps = unscheduled("", outcome=Outcome.INDETERMINATE)
    assert judged([PLANNED, perhaps], [AT_ITS_TIME], later=[SENT]).ok
    assert judged([PLANNED, perhaps], later=[replace(SENT, state="cancelled")]).ok


CYD = Person(
    id="cyd", role="user", token="", refuses=("promotion",), channels=("email", "web_push")
)
LONG_AGO = datetime.fromtimestamp(END, UTC) - timedelta(days=16)


def tip(number: int) -> Row:
    event = f"shop tip{number}"
    return row(f"t{number}", user="cyd", event=event, type="recommendation")


def delivery(number: int, channel: str, hours: float, **changes: Any) -> Delivery:
    """Of the tip with that number, decided so many hours after long ago."""
    at = LONG_AGO + timedelta(hours=hours)
    event, id = f"shop tip{number}", f"{channel} {number}"
    made = Delivery(id, "cyd", event, channel, "recommendation", "ready", at)
    return replace(made, **changes)


def of_cyd(deliveries: Sequence[Delivery], tips: int = 4, **more: Any) -> Verdict:
    """`tips`: so many were told to Cyd in the app."""
    asked = [
        attempt(
            kind="create", key=f"shop tip{number}", users=("cyd",), type="recommendation", at=10
        )
        for number in range(tips)
    ]
    return judged([CYD, *asked], [tip(n) for n in range(tips)], deliveries=deliveries, **more)


def both(number: int, hours: float) -> list[Delivery]:
    return [delivery(number, channel, hours) for channel in CYD.channels]


def held(number: int, channel: str) -> Delivery:
    due = datetime.fromtimestamp(END, UTC) + timedelta(hours=1)
    return delivery(number, channel, 0, state="held", due=due)


def test_deliveries_within_the_caps_are_right() -> None:
    assert of_cyd([*both(0, 0), *both(1, 12), *both(2, 36)], tips=3).ok


@pytest.mark.parametrize(
    ("hours", "pushes", "is_right"),
    [
        ((0, 1, 24), True, True),
        ((0, 1, 23.99), True, False),  # 2 pushes in a day
        ((0, 24, 48, 168), False, True),
        ((0, 24, 48, 167.9), False, False),  # 3 mails in a week
    ],
)
def test_more_than_a_cap_in_any_window_is_seen(
    hours: Sequence[float], pushes: bool, is_right: bool
) -> None:
    one, other = ("web_push", "email") if pushes else ("email", "web_push")
    sent = [delivery(number, one, at) for number, at in enumerate(hours)]
    waiting = [held(number, other) for number in range(len(hours))]
    verdict = of_cyd([*sent, *waiting], tips=len(hours))
    assert found(verdict) == ({} if is_right else {Violation.OVER_CAP: 1})
    gone = [replace(one, state="superseded") for one in sent]
    assert of_cyd([*gone, *waiting], tips=len(hours)).ok


def test_more_than_the_cap_of_all_channels_together_is_seen() -> None:
    sent = [*both(0, 0), *both(1, 1), delivery(2, "email", 23)]
    verdict = of_cyd([*sent, held(2, "web_push")], tips=3)
    assert found(verdict) == {Violation.OVER_CAP: 1}


def test_what_waits_for_too_long_is_seen() -> None:
    late = datetime.fromtimestamp(END - 11, UTC)
    waiting = [held(0, "email"), replace(held(0, "web_push"), due=late)]
    assert found(of_cyd(waiting, tips=1)) == {Violation.LEFTOVER: 1}


def test_deliveries_that_are_missing_or_twice_or_of_nothing_are_seen() -> None:
    assert found(of_cyd(both(0, 0)[:1], tips=1)) == {Violation.LOST: 1}
    again = [*both(0, 0), replace(both(0, 0)[0], id="another", state="cancelled")]
    assert found(of_cyd(again, tips=1)) == {Violation.DUPLICATED: 1}
    assert found(of_cyd(both(0, 0)[:1], tips=0)) == {Violation.MISDIRECTED: 1}


def test_marketing_to_who_has_not_consented_is_seen() -> None:
    told = row(type="recommendation")
    to_ann = replace(delivery(0, "email", 0), user=ANN.id, event=told.event)
    verdict = judged([attempt(type="recommendation")], [told], deliveries=[to_ann])
    assert found(verdict) == {Violation.REFUSED_BUT_SENT: 1}
    order = replace(to_ann, type="order_update")
    assert judged([attempt()], [row()], deliveries=[order]).ok


def test_a_digest_holds_what_went_out_in_it() -> None:
    pushes = [delivery(number, "web_push", 0, state="digested", digest="d") for number in (0, 1)]
    mails = [held(number, "email") for number in (0, 1)]
    digest = replace(delivery(9, "web_push", 0), id="d", event="urn:tidings digest/d", holds=2)
    assert of_cyd([*pushes, *mails, digest], tips=2).ok
    for wrong in ([], [replace(digest, holds=3)], [replace(digest, channel="email")]):
        assert Violation.WRONG_COUNT in found(of_cyd([*pushes, *mails, *wrong], tips=2))


def test_a_ledger_that_does_not_agree_with_what_went_out_is_seen() -> None:
    lately = 16 * 24 - 1.0  # an hour ago
    sent = both(0, lately)
    spent = [(one.event, one.channel, one.at) for one in sent]
    assert of_cyd(sent, tips=1, ledgers={"cyd": spent}).ok
    for wrong in (spent[:1], [*spent, ("shop tip5", "email", sent[0].at)]):
        verdict = of_cyd(sent, tips=1, ledgers={"cyd": wrong})
        assert found(verdict) == {Violation.WRONG_COUNT: 1}
    assert of_cyd(both(0, 0), tips=1, ledgers={"cyd": []}).ok  # it no longer counts


def test_a_status_of_an_order_that_moves_is_told_by_its_words() -> None:
    assert version_in({"orderId": "parcel-1", "status": "stop 12"}) == 12
    for other in ({"status": "paid"}, {"status": 5}, {}, "stop 12", None):
        assert version_in(other) == 0
