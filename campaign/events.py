"""Every accepted event and every recipient that permits it: exactly one notification. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from campaign.clients import NOT_GRAPHQL
from campaign.deeds import RECOMMENDATION, SCHEDULE
from campaign.fires import fire_of
from campaign.found import Found, Row
from campaign.journal import Attempt, Change, Expect, Mark, Outcome, Person, Scheduled, Sight
from campaign.verdict import Finding, Violation
from campaign.wishes import State, Wishes

NO_REASON: Final = ("INTERNAL_SERVER_ERROR", "NONE", NOT_GRAPHQL)
"""Answers from which a client can't tell what to do."""
RIGHT_CLOSES: Final = ("1001", "1012", "1013")
"""Codes with which a gateway closes on a client that makes no mistakes."""
_SUPPRESSED: Final = ("SUPPRESSED", "HELD")
_SLACK: Final = 1.0  # between the services' clocks and this one


@dataclass
class Wanted:
    """All attempts to tell one event."""

    key: str
    users: tuple[str, ...] | None
    type: str
    gist: str
    started: float
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        return any(attempt.outcome is Outcome.OK for attempt in self.attempts)

    @property
    def refused(self) -> bool:
        return all(attempt.outcome is Outcome.REFUSED for attempt in self.attempts)

    @property
    def answered(self) -> list[Attempt]:
        """Those that were decided while their caller waited."""
        return [one for one in self.attempts if one.said and one.outcome is Outcome.OK]

    def evidence(self, user: str, **more: object) -> dict[str, Any]:
        last = self.attempts[-1]
        tries = [(a.via, a.outcome, a.code, a.said, a.started, a.ended) for a in self.attempts]
        return {"key": self.key, "kind": last.kind, "user": user, "attempts": tries[:10]} | more


def wanted(attempts: Sequence[Attempt]) -> Mapping[str, Wanted]:
    """By key; without what had to be refused, and what becomes events whose keys nobody knows."""
    found: dict[str, Wanted] = {}
    for one in attempts:
        if one.expect is Expect.REFUSED or not one.type or one.kind in ("recommend", SCHEDULE):
            continue
        want = found.setdefault(
            one.key, Wanted(one.key, one.users, one.type, one.gist, one.started)
        )
        want.started = min(want.started, one.started)
        want.attempts.append(one)
    return found


def check_events(
    attempts: Sequence[Attempt],
    rows: Sequence[Row],
    people: Sequence[Person],
    schedules: Sequence[Scheduled],
    wishes: Wishes,
    end: float,
) -> Iterator[Finding]:
    """`end`: when all was quiet."""
    wants = wanted(attempts)
    by_key: defaultdict[str, defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    strangers = []
    for row in rows:
        key = row.event if row.event in wants else f"attempt {row.tag}"
        if key in wants:
            by_key[key][row.user].append(row)
        else:
            strangers.append(row)
    audience = [person.id for person in people if person.role != "service"]
    for want in wants.values():
        yield from _check_one(want, by_key[want.key], audience, wishes, end)
    yield from _check_strangers(strangers, attempts, people, schedules)
    yield from _check_recommended(strangers, attempts, wishes)


def _check_one(
    want: Wanted,
    stored: Mapping[str, Sequence[Row]],
    audience: Sequence[str],
    wishes: Wishes,
    end: float,
) -> Iterator[Finding]:
    recipients = audience if want.users is None else want.users
    plausible = [
        row.sent
        for rows in stored.values()
        for row in rows
        if want.started - _SLACK <= row.sent <= end + _SLACK
    ]
    decided = max(plausible, default=end) + _SLACK
    for user in recipients:
        rows = stored.get(user, ())
        if len(rows) > 1:
            ids = [row.id for row in rows]
            yield Finding(Violation.DUPLICATED, want.evidence(user, notifications=ids))
        if rows:
            yield from _check_sent(want, rows[0], wishes)
        elif want.accepted and _must_be_there(want, user, wishes, decided):
            yield Finding(Violation.LOST, want.evidence(user))
    for user, rows in stored.items():
        for row in rows:
            if user not in recipients or want.refused:
                yield Finding(Violation.MISDIRECTED, want.evidence(user, notification=row.id))
            elif want.gist and row.gist != want.gist:
                yield Finding(Violation.ALTERED, want.evidence(user, notification=row.id))


def _check_sent(want: Wanted, row: Row, wishes: Wishes) -> Iterator[Finding]:
    if wishes.over(row.user, want.type, want.started, row.sent) is State.OFF:
        evidence = want.evidence(row.user, notification=row.id, sent=row.sent)
        yield Finding(Violation.REFUSED_BUT_SENT, evidence)


def _must_be_there(want: Wanted, user: str, wishes: Wishes, decided: float) -> bool:
    if answers := want.answered:
        if any(one.said not in _SUPPRESSED for one in answers):
            return True
        return any(
            wishes.over(user, want.type, one.started, one.ended) is State.ON for one in answers
        )
    return wishes.over(user, want.type, want.started, decided) is State.ON


def _check_strangers(
    rows: Sequence[Row],
    attempts: Sequence[Attempt],
    people: Sequence[Person],
    schedules: Sequence[Scheduled],
) -> Iterator[Finding]:
    """What no event's key explains: welcomes, recommendations, fires; the rest nobody asked for."""
    fires = {f"urn:tidings {schedule.id}/": schedule.user for schedule in schedules}
    recommended = [one for one in attempts if one.kind == "recommend"]
    answered = {one.id for one in recommended if one.id}
    unknown = Counter(
        one.users[0] for one in recommended if one.users and one.outcome is Outcome.INDETERMINATE
    )
    welcomed: set[str] = set()
    stored = {row.id for row in rows}
    for row in rows:
        own = f"urn:tidings:user:{row.user} "
        if row.event[: len("urn:tidings ") + 25] in fires:
            if fires[row.event[: len("urn:tidings ") + 25]] != row.user:
                yield _nobody_asked(row)
        elif row.event.startswith("urn:tidings ") and row.type == "promotion":
            if row.user in welcomed:
                yield Finding(Violation.DUPLICATED, {"welcome": row.id, "user": row.user})
            welcomed.add(row.user)
        elif row.id in answered:
            continue
        elif row.type == "recommendation" and row.event.startswith(own) and unknown[row.user]:
            unknown[row.user] -= 1
        else:
            yield _nobody_asked(row)
    for person in people:
        refuses = "promotion" in person.refuses
        if not refuses and person.id not in welcomed:
            yield Finding(Violation.LOST, {"welcome": person.id})
        if refuses and person.id in welcomed:
            yield Finding(Violation.REFUSED_BUT_SENT, {"welcome": person.id})
    for one in recommended:
        if one.id and one.id not in stored:
            evidence = {"recommendation": one.id, "users": one.users, "at": one.ended}
            yield Finding(Violation.LOST, evidence)


def _check_recommended(
    rows: Sequence[Row], attempts: Sequence[Attempt], wishes: Wishes
) -> Iterator[Finding]:
    """None to who refused it all the while; an attempt that nobody answered may come late."""
    own: defaultdict[str, list[Attempt]] = defaultdict(list)
    for one in attempts:
        if one.kind == "recommend" and one.users and one.outcome is not Outcome.REFUSED:
            own[one.users[0]].append(one)
    for row in rows:
        if row.type != RECOMMENDATION:
            continue
        asked = [
            one
            for one in own[row.user]
            if one.id in ("", row.id) and one.started - _SLACK <= row.sent
        ]
        told = [one for one in asked if one.id] or asked
        if told and all(
            wishes.over(row.user, RECOMMENDATION, one.started, row.sent) is State.OFF
            for one in told
        ):
            evidence = {"recommendation": row.id, "user": row.user, "sent": row.sent}
            yield Finding(Violation.REFUSED_BUT_SENT, evidence)


def _nobody_asked(row: Row) -> Finding:
    evidence = {"notification": row.id, "user": row.user, "event": row.event, "sent": row.sent}
    return Finding(Violation.MISDIRECTED, evidence)


def check_stamps(
    attempts: Sequence[Attempt],
    rows: Sequence[Row],
    sights: Sequence[Sight],
    *,
    offset: float,
    end: float,
) -> Iterator[Finding]:
    """What a wrong clock would stamp: sent before it was asked for, after it was seen, or later."""
    wants = wanted(attempts)
    seen: dict[str, float] = {}
    for sight in sights:
        seen[sight.id] = min(sight.at, seen.get(sight.id, sight.at))
    for row in rows:
        want = wants.get(row.event) or wants.get(f"attempt {row.tag}")
        fire = fire_of(row.event)
        asked = want.started if want else fire - offset if fire else row.sent
        latest = min(seen.get(row.id, end), end)
        if not asked - _SLACK <= row.sent <= latest + _SLACK:
            evidence = {"notification": row.id, "asked": asked, "sent": row.sent, "seen": latest}
            yield Finding(Violation.MISSTAMPED, evidence)


def check_reasons(
    answers: Sequence[Attempt | Mark | Change], ends: Iterable[str]
) -> Iterator[Finding]:
    """Who is refused is told why. `ends`: why subscriptions and the pages before them failed."""
    for one in answers:
        if one.code in NO_REASON:
            evidence = {"asked": type(one).__name__, "code": one.code, "at": one.ended}
            yield Finding(Violation.NO_REASON, evidence)
    for why in ends:
        if why.removeprefix("page ") in NO_REASON or (why.isdecimal() and why not in RIGHT_CLOSES):
            yield Finding(Violation.NO_REASON, {"asked": "subscription", "code": why})


def check_answers(attempts: Sequence[Attempt]) -> Iterator[Finding]:
    """Right attempts are not refused for good, and wrong ones are not accepted."""
    for one in attempts:
        evidence = {"key": one.key, "kind": one.kind, "code": one.code, "at": one.ended}
        if one.expect is Expect.OK and one.outcome is Outcome.REFUSED:
            yield Finding(Violation.WRONGLY_REFUSED, evidence)
        if one.kind == "conflict" and one.outcome is Outcome.OK:
            yield Finding(Violation.WRONGLY_ACCEPTED, evidence)


def check_facts(attempts: Sequence[Attempt], found: Found) -> Iterator[Finding]:
    """Products, activities, and poison: each is kept where it belongs."""
    tracked: Counter[str] = Counter()
    perhaps: Counter[str] = Counter()
    keyed: dict[str, bool] = {}
    for one in attempts:
        accepted, evidence = one.outcome is Outcome.OK, {"key": one.key, "at": one.ended}
        if one.kind == "product" and accepted and one.key not in found.products:
            yield Finding(Violation.LOST, evidence)
        elif one.kind == "poison" and accepted and one.key not in found.dead:
            yield Finding(Violation.POISON_LOST, evidence)
        elif one.kind == "activity":
            keyed[one.key] = keyed.get(one.key, False) or accepted
        elif one.kind == "track":
            tracked[one.key] += accepted
            perhaps[one.key] += one.outcome is Outcome.INDETERMINATE
    for key, accepted in keyed.items():
        if accepted and not found.activities.get(key):
            yield Finding(Violation.LOST, {"activity": key})
        if found.activities.get(key, 0) > 1:
            yield Finding(Violation.DUPLICATED, {"activity": key})
    for key, least in tracked.items():
        kept = found.activities.get(key, 0)
        if kept < least or kept > least + perhaps[key]:
            lost = kept < least
            evidence = {"activity": key, "accepted": least, "kept": kept, "perhaps": perhaps[key]}
            yield Finding(Violation.LOST if lost else Violation.DUPLICATED, evidence)
    if found.unexplained:
        yield Finding(Violation.POISON_LOST, {"letters that don't say why": found.unexplained})
    for body in found.innocents:
        yield Finding(Violation.INNOCENT_DEAD, {"body": body})
    for place, count in found.leftovers.items():
        yield Finding(Violation.LEFTOVER, {"where": place, "count": count})
