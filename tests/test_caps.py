"""Frequency caps: how much in which window, and when more may come; without a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.notifications.caps import Allowance, Cap, Spent
from services.notifications.personalize import (
    Decision,
    Reason,
    Situation,
    decide,
    other_channels,
)
from services.notifications.policy import class_of
from services.shared.settings import Settings
from services.shared.vocabulary import (
    Channel,
    MessageClass,
    NotificationType,
    Outcome,
    OverCap,
    QuietAction,
    Weekday,
)
from services.users.consent import Consent
from services.users.preferences import (
    Choices,
    Preferences,
    TypeChoice,
    channels_on,
    resolve,
)
from services.users.quiet_hours import QuietHours, QuietWindow

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, DAY, INSTANT = timedelta(hours=1), timedelta(days=1), timedelta(milliseconds=1)
ORDER, PROMOTION, PICKS = NotificationType
PUSH, EMAIL, WEBHOOK, IN_APP = Channel.WEB_PUSH, Channel.EMAIL, Channel.WEBHOOK, Channel.IN_APP
DEFAULTS = Allowance.of(Settings(_env_file=None))
ALWAYS = QuietHours(
    action=QuietAction.DEFER,
    windows=(QuietWindow(days=tuple(Weekday), start="00:00", end="23:59"),),
)


def spent(*ago: timedelta, channel: Channel = PUSH) -> tuple[Spent, ...]:
    return tuple(Spent(f"{channel} {n}", channel, NOW - past) for n, past in enumerate(ago))


@pytest.mark.parametrize(
    ("before", "channel", "free_at"),
    [
        ((), PUSH, None),
        (spent(HOUR), PUSH, None),
        (spent(HOUR, 2 * HOUR), PUSH, NOW + 22 * HOUR),
        (spent(HOUR, 2 * HOUR), EMAIL, None),
        (spent(HOUR, DAY), PUSH, None),
        (spent(HOUR, DAY - INSTANT), PUSH, NOW + INSTANT),
        (spent(HOUR, -INSTANT), PUSH, NOW + 23 * HOUR),
        (spent(HOUR, 2 * HOUR, 3 * HOUR), PUSH, NOW + 22 * HOUR),
        (spent(DAY, 2 * DAY, 3 * DAY, channel=EMAIL), EMAIL, NOW + 4 * DAY),
        (spent(DAY, 2 * DAY, 7 * DAY, channel=EMAIL), EMAIL, None),
        (spent(*[HOUR] * 4, channel=WEBHOOK), WEBHOOK, NOW + 23 * HOUR),
        (spent(*[HOUR] * 4, channel=WEBHOOK), EMAIL, NOW + 23 * HOUR),
        (spent(*[HOUR] * 4, channel=WEBHOOK), IN_APP, None),
        (
            spent(HOUR, 2 * HOUR) + spent(3 * HOUR, 4 * HOUR, channel=EMAIL),
            PUSH,
            NOW + 22 * HOUR,
        ),
    ],
)
def test_how_much_is_enough_and_until_when(
    before: tuple[Spent, ...], channel: Channel, free_at: datetime | None
) -> None:
    assert Allowance(DEFAULTS.caps, OverCap.DEFER, before).free_at(channel, NOW) == free_at


channels = st.sampled_from([PUSH, EMAIL, WEBHOOK])
minutes = st.integers(-30, 30)
moments = st.builds(lambda number: NOW + number * timedelta(minutes=1), minutes)
windows = st.builds(lambda number: number * timedelta(minutes=1), st.integers(1, 30))
caps = st.builds(Cap, st.frozensets(channels, min_size=1), st.integers(1, 4), windows)
entries = st.lists(st.builds(Spent, st.just("e"), channels, moments), max_size=12)


def crowd(cap: Cap, entries: Sequence[Spent], ends: datetime) -> int:
    """How many are in the window that ends then."""
    return sum(ends - cap.window < one.at <= ends for one in entries if one.channel in cap.channels)


@given(caps, entries)
def test_it_is_free_at_the_first_instant_with_room(cap: Cap, before: list[Spent]) -> None:
    """Minute for minute: an entry that lies ahead is in no window yet, and counts nevertheless."""

    def has_room(at: datetime) -> bool:
        counted = [one for one in before if one.channel in cap.channels]
        return sum(one.at > at - cap.window for one in counted) < cap.most

    moment = NOW
    while not has_room(moment):
        moment += timedelta(minutes=1)
    assert (cap.free_at(before, NOW) or NOW) == moment


@given(st.lists(caps, min_size=1, max_size=3), st.lists(st.tuples(channels, moments), max_size=40))
def test_whatever_clocks_say_no_window_has_more_than_is_allowed(
    caps: list[Cap], wishes: list[tuple[Channel, datetime]]
) -> None:
    allowance, written = Allowance(tuple(caps)), list[Spent]()
    for number, (channel, now) in enumerate(wishes):
        so_far = Allowance(allowance.caps, OverCap.DEFER, tuple(written))
        if so_far.free_at(channel, now) is None:
            written.append(Spent(f"{number}", channel, now))
    for cap in caps:
        assert all(crowd(cap, written, one.at) <= cap.most for one in written)


@given(st.lists(caps, min_size=1, max_size=3), entries, moments, st.integers(0, 59_000))
@example([Cap(frozenset({PUSH}), 1, DAY)], [Spent("e", PUSH, NOW - DAY)], NOW, 1)
def test_what_is_forgotten_counts_by_nobodys_clock(
    caps: list[Cap], before: list[Spent], now: datetime, behind: int
) -> None:
    """Also for a worker whose clock is nearly a minute behind the one who forgot."""
    allowance = Allowance(tuple(caps), OverCap.DEFER, tuple(before))
    kept = tuple(one for one in before if allowance.counts(one, now))
    later = Allowance(allowance.caps, OverCap.DEFER, kept)
    theirs = now - timedelta(milliseconds=behind)
    for channel in (PUSH, EMAIL, WEBHOOK):
        assert later.free_at(channel, theirs) == allowance.free_at(channel, theirs)


def marketing_on(*on: Channel, quiet: Channel | None = None) -> Preferences:
    """What somebody wants who has these on, and perhaps one of them quiet."""
    choice = TypeChoice(channels=dict.fromkeys(on, True))
    quiet_hours = {quiet: ALWAYS} if quiet else {}
    given_ = dict.fromkeys(on, Consent(given=True, at=NOW, source="test"))
    consents = dict.fromkeys(NotificationType, given_)
    return resolve(dict.fromkeys(NotificationType, choice), 1, "UTC", quiet_hours, consents)


def situation(
    type_: NotificationType,
    channel: Channel,
    over: OverCap = OverCap.DEFER,
    preferences: Preferences | None = None,
    status: str | None = None,
) -> Situation:
    """Of somebody who has had enough."""
    return Situation(
        type_,
        class_of(type_, status),
        preferences or marketing_on(PUSH, EMAIL, WEBHOOK),
        NOW,
        channel=channel,
        allowance=Allowance(DEFAULTS.caps, over, spent(*[HOUR] * 4)),
    )


SENT = Decision(Outcome.SENT, Reason.ACCEPTED)
FREE_AT = NOW + 23 * HOUR


@pytest.mark.parametrize(
    ("asked", "decision"),
    [
        (situation(PROMOTION, PUSH), Decision(Outcome.HELD, Reason.FREQUENCY_CAP, FREE_AT)),
        (situation(PICKS, WEBHOOK), Decision(Outcome.HELD, Reason.FREQUENCY_CAP, FREE_AT)),
        (
            situation(PROMOTION, PUSH, OverCap.DIGEST),
            Decision(Outcome.HELD, Reason.FREQUENCY_CAP, FREE_AT),
        ),
        (
            situation(PROMOTION, PUSH, OverCap.DROP),
            Decision(Outcome.SUPPRESSED, Reason.FREQUENCY_CAP),
        ),
        (situation(PROMOTION, IN_APP, OverCap.DROP), SENT),
        (situation(ORDER, PUSH), SENT),
        (
            situation(ORDER, PUSH, status="payment_failed"),
            Decision(Outcome.SENT, Reason.CRITICAL),
        ),
        (
            situation(PROMOTION, PUSH, preferences=marketing_on(PUSH, quiet=PUSH)),
            Decision(Outcome.HELD, Reason.QUIET_HOURS, NOW.replace(hour=23, minute=59)),
        ),
        (
            situation(PROMOTION, PUSH, preferences=marketing_on(EMAIL)),
            Decision(Outcome.SUPPRESSED, Reason.CHANNEL_OFF),
        ),
    ],
)
def test_who_had_enough_gets_no_more_advertising(asked: Situation, decision: Decision) -> None:
    assert decide(asked) == decision


def test_other_channels_are_those_that_are_on_and_for_what_is_critical_those_in_use() -> None:
    choices = {
        ORDER: TypeChoice(channels={EMAIL: False, PUSH: False}),
        PROMOTION: TypeChoice(channels={EMAIL: True}),
        PICKS: TypeChoice(enabled=False, channels={WEBHOOK: True}),
    }
    for type_, expected in ((PROMOTION, (EMAIL,)), (PICKS, ()), (ORDER, ())):
        assert other_channels(choices, type_, class_of(type_)) == expected
    assert other_channels(choices, ORDER, MessageClass.CRITICAL) == (EMAIL,)
    assert other_channels({}, PROMOTION, MessageClass.MARKETING) == ()


choices: st.SearchStrategy[Choices] = st.dictionaries(
    st.sampled_from(NotificationType),
    st.builds(
        TypeChoice,
        enabled=st.none() | st.booleans(),
        channels=st.dictionaries(st.sampled_from(Channel), st.booleans()),
    ),
)


@given(choices, st.sampled_from(NotificationType))
def test_what_is_on_is_so_in_the_full_matrix(chosen: Choices, type_: NotificationType) -> None:
    entry = resolve(chosen, version=1).of(type_)
    on = {one.channel for one in entry.channels if one.enabled and entry.enabled}
    assert channels_on(chosen, type_) == on
