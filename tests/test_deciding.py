"""Who is in the same situation is decided together, and nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.notifications.collapse import Collapse, Rank
from services.notifications.deciding import Deciding
from services.notifications.dispatch import Wanted
from services.notifications.drafts import Draft
from services.notifications.personalize import Reason
from services.notifications.policy import class_of
from services.notifications.templates import Text
from services.shared.vocabulary import Channel, NotificationType, Outcome, QuietAction, Weekday
from services.users.preferences import Preferences, TypeChoice, resolve
from services.users.quiet_hours import QuietHours, QuietWindow

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DEFAULT = resolve({}, 0)
NONE = resolve({NotificationType.PROMOTION: TypeChoice(enabled=False)}, 1)
SIESTA = resolve(
    {},
    1,
    quiet_hours={
        Channel.IN_APP: QuietHours(
            action=QuietAction.DEFER,
            windows=(QuietWindow(days=tuple(Weekday), start="12:00", end="14:00"),),
        )
    },
)


def wanted(
    user_id: str,
    preferences: Preferences = DEFAULT,
    timezone: str | None = None,
    type_: NotificationType = NotificationType.PROMOTION,
    **fields: Any,
) -> Wanted:
    draft = Draft(user_id, "urn:shop 1", type_, Text("Sale", "All"), {}, **fields)
    return Wanted(draft, preferences, timezone, class_of(type_, draft.status), ())


def test_what_was_decided_is_told_to_all_who_are_alike() -> None:
    deciding = Deciding(NOW, "UTC")
    first = deciding.about(wanted("ann"))
    assert first.decision.outcome is Outcome.SENT
    assert deciding.about(wanted("bob")) is first
    assert deciding.about(wanted("cem", timezone="UTC")) is first


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        (wanted("bob", NONE), Outcome.SUPPRESSED),
        (wanted("bob", expires_at=NOW - timedelta(seconds=1)), Outcome.SUPPRESSED),
    ],
    ids=["preferences", "end"],
)
def test_who_differs_is_decided_alone(other: Wanted, outcome: Outcome) -> None:
    deciding = Deciding(NOW, "UTC")
    deciding.about(wanted("ann"))
    assert deciding.about(other).decision.outcome is outcome


def test_so_is_who_lives_elsewhere() -> None:
    deciding = Deciding(NOW, "UTC")
    assert deciding.about(wanted("ann", SIESTA)).decision.reason is Reason.QUIET_HOURS
    tokyo = deciding.about(wanted("bob", SIESTA, "Asia/Tokyo"))
    assert tokyo.decision.outcome is Outcome.SENT


def test_so_is_another_type_and_class() -> None:
    deciding = Deciding(NOW, "UTC")
    assert deciding.about(wanted("ann", NONE)).decision.outcome is Outcome.SUPPRESSED
    tips = deciding.about(wanted("ann", NONE, type_=NotificationType.RECOMMENDATION))
    assert tips.decision.outcome is Outcome.SENT
    orders = NotificationType.ORDER_UPDATE
    paid = deciding.about(wanted("ann", type_=orders, status="paid"))
    failed = deciding.about(wanted("ann", type_=orders, status="payment_failed"))
    assert paid.decision.reason is Reason.LOCKED_CHANNEL
    assert failed.decision.reason is Reason.CRITICAL


def test_so_is_a_state_of_what_is_told_already() -> None:
    deciding = Deciding(NOW, "UTC")
    first, second = (
        wanted("ann", collapse=Collapse(thing, Rank.of(1, NOW, "urn:shop 1"))) for thing in "ab"
    )
    new = deciding.about(first)
    assert new.decision.outcome is Outcome.SENT
    assert deciding.about(second) is new
    told = Rank.of(2, NOW, "urn:shop 2")
    assert deciding.about(first, told).decision.outcome is Outcome.SUPERSEDED
    assert deciding.about(second, Rank.of(0, NOW, "urn:shop 0")).decision.outcome is Outcome.SENT
