"""Who gets what, and in which words: both decided without a database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifications import templates
from services.notifications.drafts import Offer
from services.notifications.personalize import RULES, Decision, Reason, Situation, decide
from services.notifications.policy import class_of
from services.notifications.recommend import Recommendation
from services.notifications.templates import LONGEST_BODY, LONGEST_TITLE, Text
from services.shared.events import OrderStatusChanged, PromotionAnnounced, UserRegistered
from services.shared.vocabulary import Channel, NotificationType, Outcome
from services.users.consent import Consent, Consents
from services.users.preferences import LOCKED, Choices, Preferences, TypeChoice, resolve

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOON, JUST_NOW = NOW + timedelta(milliseconds=1), NOW - timedelta(milliseconds=1)
ORDER, PROMOTION, PICKS = NotificationType


def wishes(
    type_: NotificationType, enabled: bool | None = None, channels: Mapping[Channel, bool] = {}
) -> Preferences:
    """What somebody wants who chose only this."""
    return resolve({type_: TypeChoice(enabled=enabled, channels=dict(channels))}, version=1)


def situation(
    type_: NotificationType,
    preferences: Preferences,
    channel: Channel = Channel.IN_APP,
    expires_at: datetime | None = None,
    status: str | None = None,
) -> Situation:
    return Situation(type_, class_of(type_, status), preferences, NOW, expires_at, channel)


def promotions_by_mail(given: bool | None) -> Preferences:
    """They are switched on; `given`: what was last said of consent, None: never anything."""
    choices: Choices = {PROMOTION: TypeChoice(channels={Channel.EMAIL: True})}
    said = {} if given is None else {Channel.EMAIL: Consent(given=given, at=NOW, source="here")}
    return resolve(choices, version=1, consents={PROMOTION: said})


NOTHING_CHOSEN = resolve({}, version=0)
NO_PROMOTIONS = wishes(PROMOTION, enabled=False)
NO_PROMOTIONS_HERE = wishes(PROMOTION, channels={Channel.IN_APP: False})
ORDERS_NOT_BY_MAIL = wishes(ORDER, channels={Channel.EMAIL: False})
PROMOTIONS_BY_MAIL = promotions_by_mail(given=True)
NOTHING_AT_ALL = resolve(
    {type_: TypeChoice(enabled=False) for type_ in NotificationType}, version=1
)
SENT, SUPPRESSED = Outcome.SENT, Outcome.SUPPRESSED


@pytest.mark.parametrize(
    ("type_", "preferences", "expires_at", "channel", "decision"),
    [
        (PROMOTION, NOTHING_CHOSEN, None, Channel.IN_APP, Decision(SENT, Reason.ACCEPTED)),
        (PICKS, NOTHING_CHOSEN, None, Channel.IN_APP, Decision(SENT, Reason.ACCEPTED)),
        (ORDER, NOTHING_CHOSEN, None, Channel.IN_APP, Decision(SENT, Reason.LOCKED_CHANNEL)),
        (ORDER, NOTHING_AT_ALL, None, Channel.IN_APP, Decision(SENT, Reason.LOCKED_CHANNEL)),
        (ORDER, NOTHING_AT_ALL, None, Channel.EMAIL, Decision(SUPPRESSED, Reason.TYPE_OFF)),
        (ORDER, NOTHING_CHOSEN, None, Channel.EMAIL, Decision(SENT, Reason.ACCEPTED)),
        (ORDER, NOTHING_CHOSEN, None, Channel.WEB_PUSH, Decision(SENT, Reason.ACCEPTED)),
        (ORDER, NOTHING_CHOSEN, None, Channel.WEBHOOK, Decision(SUPPRESSED, Reason.CHANNEL_OFF)),
        (ORDER, ORDERS_NOT_BY_MAIL, None, Channel.EMAIL, Decision(SUPPRESSED, Reason.CHANNEL_OFF)),
        (PROMOTION, NOTHING_CHOSEN, None, Channel.EMAIL, Decision(SUPPRESSED, Reason.CHANNEL_OFF)),
        (PICKS, NOTHING_CHOSEN, None, Channel.WEB_PUSH, Decision(SUPPRESSED, Reason.CHANNEL_OFF)),
        (PROMOTION, NO_PROMOTIONS, None, Channel.IN_APP, Decision(SUPPRESSED, Reason.TYPE_OFF)),
        (PICKS, NO_PROMOTIONS, None, Channel.IN_APP, Decision(SENT, Reason.ACCEPTED)),
        (
            PROMOTION,
            NO_PROMOTIONS_HERE,
            None,
            Channel.IN_APP,
            Decision(SUPPRESSED, Reason.CHANNEL_OFF),
        ),
        (PROMOTION, PROMOTIONS_BY_MAIL, None, Channel.EMAIL, Decision(SENT, Reason.ACCEPTED)),
        (PROMOTION, PROMOTIONS_BY_MAIL, None, Channel.IN_APP, Decision(SENT, Reason.ACCEPTED)),
        (
            PROMOTION,
            promotions_by_mail(given=None),
            None,
            Channel.EMAIL,
            Decision(SUPPRESSED, Reason.NO_CONSENT),
        ),
        (
            PROMOTION,
            promotions_by_mail(given=False),
            None,
            Channel.EMAIL,
            Decision(SUPPRESSED, Reason.NO_CONSENT),
        ),
        (
            PICKS,
            wishes(PICKS, channels={Channel.WEBHOOK: True}),
            None,
            Channel.WEBHOOK,
            Decision(SUPPRESSED, Reason.NO_CONSENT),
        ),
        (PROMOTION, NOTHING_CHOSEN, SOON, Channel.IN_APP, Decision(SENT, Reason.ACCEPTED)),
        (PROMOTION, NOTHING_CHOSEN, NOW, Channel.IN_APP, Decision(SUPPRESSED, Reason.EXPIRED)),
        (PROMOTION, NO_PROMOTIONS, JUST_NOW, Channel.IN_APP, Decision(SUPPRESSED, Reason.EXPIRED)),
        (ORDER, NOTHING_CHOSEN, JUST_NOW, Channel.IN_APP, Decision(SUPPRESSED, Reason.EXPIRED)),
    ],
)
def test_the_first_rule_that_speaks_decides(
    type_: NotificationType,
    preferences: Preferences,
    expires_at: datetime | None,
    channel: Channel,
    decision: Decision,
) -> None:
    assert decide(situation(type_, preferences, channel, expires_at)) == decision


choices: st.SearchStrategy[Choices] = st.dictionaries(
    st.sampled_from(NotificationType),
    st.builds(
        TypeChoice,
        enabled=st.none() | st.booleans(),
        channels=st.dictionaries(st.sampled_from(Channel), st.booleans()),
    ),
)


consents: st.SearchStrategy[Consents] = st.dictionaries(
    st.sampled_from(NotificationType),
    st.dictionaries(
        st.sampled_from(Channel),
        st.builds(Consent, given=st.booleans(), at=st.just(NOW), source=st.just("here")),
    ),
)


@given(choices, consents, st.sampled_from(NotificationType), st.sampled_from(Channel))
def test_nothing_goes_to_who_refuses_it_and_all_else_goes(
    chosen: Choices, said: Consents, type_: NotificationType, channel: Channel
) -> None:
    preferences = resolve(chosen, version=1, consents=said)
    entry = preferences.of(type_)
    on = {one.channel: one.enabled for one in entry.channels}[channel]
    last_word = said.get(type_, {}).get(channel)
    agreed = last_word is not None and last_word.given
    needless = type_ is ORDER or channel is Channel.IN_APP
    wanted = (type_, channel) in LOCKED or (entry.enabled and on and (agreed or needless))
    decision = decide(situation(type_, preferences, channel))
    assert (decision.outcome is Outcome.SENT) == wanted


@given(choices, st.sampled_from(NotificationType), st.sampled_from(Channel))
def test_what_is_critical_goes_out_whatever_was_chosen(
    chosen: Choices, type_: NotificationType, channel: Channel
) -> None:
    preferences = resolve(chosen, version=1)
    for status in ("payment_failed", "PAYMENT_FAILED"):
        decision = decide(situation(type_, preferences, channel, status=status))
        assert decision == Decision(SENT, Reason.CRITICAL)


@given(choices, st.sampled_from(NotificationType), st.sampled_from(Channel))
def test_a_decision_names_the_rules_that_were_asked_in_their_order(
    chosen: Choices, type_: NotificationType, channel: Channel
) -> None:
    decision = decide(situation(type_, resolve(chosen, version=1), channel))
    rules = list(RULES)
    assert list(decision.asked) == rules[: len(decision.asked)]
    assert (len(decision.asked) == len(rules)) or decision.reason is not Reason.ACCEPTED


def order(status: str) -> OrderStatusChanged:
    return OrderStatusChanged(order_id="A-1", user_id="u", status=status)


@pytest.mark.parametrize(
    ("status", "title", "body"),
    [
        ("placed", "Order A-1 received", "Thank you! We have your order and check it now."),
        ("paid", "Order A-1 is paid", "Your payment arrived. We start packing."),
        ("packed", "Order A-1 is packed", "Your parcel waits for the carrier."),
        ("shipped", "Order A-1 is on its way", "Your parcel has left our warehouse."),
        ("delivered", "Order A-1 was delivered", "Enjoy! Something wrong? We take it back."),
        ("cancelled", "Order A-1 was cancelled", "Nothing will be charged."),
        ("refunded", "Order A-1 was refunded", "Your money is on its way back to you."),
        ("payment_failed", "Payment of order A-1 failed", "Please choose another way to pay."),
        ("SHIPPED", "Order A-1 is on its way", "Your parcel has left our warehouse."),
        ("at customs", "News of order A-1", "Its status is now: at customs."),
        ("{order}", "News of order A-1", "Its status is now: {order}."),
    ],
)
def test_an_order_speaks_of_its_status(status: str, title: str, body: str) -> None:
    assert templates.order_text(order(status)) == Text(title, body)


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_whatever_order_and_status_are_called_they_are_named_as_they_are(
    order_id: str, status: str
) -> None:
    text = templates.order_text(OrderStatusChanged(order_id=order_id, user_id="u", status=status))
    assert order_id in text.title
    assert 1 <= len(text.title) <= LONGEST_TITLE


CONTENT_TEXTS: list[tuple[NotificationType, Any, str | None, Text]] = [
    (ORDER, "Hello", None, Text("News of your order", "Hello")),
    (PROMOTION, "Hello", None, Text("An offer for you", "Hello")),
    (PICKS, "Hello", None, Text("Picked for you", "Hello")),
    (PROMOTION, "Hello", "Sale", Text("Sale", "Hello")),
    (PROMOTION, "", "Sale", Text("Sale", "")),
    (PROMOTION, {}, None, Text("An offer for you", "")),
    (PROMOTION, {"title": "Sale", "body": "Now"}, None, Text("Sale", "Now")),
    (PROMOTION, {"title": "Sale", "body": "Now"}, "Mine", Text("Mine", "Now")),
    (PROMOTION, {"title": 7, "body": ["Now"]}, None, Text("An offer for you", "")),
    (PROMOTION, {"title": "", "body": ""}, None, Text("An offer for you", "")),
    (PROMOTION, {"Title": "Sale"}, None, Text("An offer for you", "")),
    (PROMOTION, {"title": "t" * 501}, None, Text("t" * 500, "")),
    (PROMOTION, "b" * 5001, None, Text("An offer for you", "b" * 5000)),
]


@pytest.mark.parametrize(("type_", "content", "title", "text"), CONTENT_TEXTS)
def test_title_and_body_are_as_given_else_the_contents_else_the_types(
    type_: NotificationType, content: Any, title: str | None, text: Text
) -> None:
    assert templates.content_text(type_, content, title) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.sampled_from(NotificationType),
    st.text() | st.dictionaries(st.sampled_from(["title", "body", "other"]), json_values),
)
def test_any_content_has_a_title_and_a_body_of_bounded_length(
    type_: NotificationType, content: Any
) -> None:
    text = templates.content_text(type_, content, None)
    assert 1 <= len(text.title) <= LONGEST_TITLE
    assert len(text.body) <= LONGEST_BODY


def test_a_promotion_is_told_in_its_own_words() -> None:
    promotion = PromotionAnnounced(title="{Sale}", body="Half of all")
    assert Offer("", promotion).draft("", templates.ENGLISH).text == Text("{Sale}", "Half of all")


def test_a_newcomer_is_welcomed_by_name() -> None:
    text = templates.welcome_text(UserRegistered(user_id="u", name="{Ada}"))
    assert text.title == "Welcome, {Ada}!"


@pytest.mark.parametrize(
    ("names", "body"),
    [
        (["Tent"], "Tent. Because of Tent."),
        (["Tent", "Mat"], "Tent and Mat. Because of Tent."),
        (["Tent", "Mat", "Stove"], "Tent, Mat and Stove. Because of Tent."),
    ],
)
def test_recommendations_are_listed_with_the_best_ones_reason(names: list[str], body: str) -> None:
    found = [Recommendation(name.lower(), name, 0.5, f"Because of {name}") for name in names]
    assert templates.recommendation_text(found) == Text("Picked for you", body)
