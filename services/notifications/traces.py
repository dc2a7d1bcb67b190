"""Why something went out to a user, or did not: what was asked, and what it was asked about.

What was sent keeps its trace with it. What was not has a row of its own here, once for each event
and user, until TRACE_SECONDS are over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from beanie import Document
from bson import ObjectId
from pymongo import IndexModel, UpdateOne

from services.notifications import channels
from services.notifications.channels import ChannelDecision
from services.notifications.drafts import Draft
from services.notifications.models import Notification
from services.notifications.personalize import Decision, Reason, Rule, Situation
from services.notifications.revisions import Revision
from services.shared.store import Session
from services.shared.vocabulary import Channel, MessageClass, NotificationType, Outcome
from services.users.consent import needs_consent

_MOST_OF_ONE_EVENT: Final = 100
_LONGEST_ID: Final = 300
_KNOWN: Final = frozenset(Rule)  # another version may have asked others


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision as it can be told. `at`: when it was made; `event`: the event's key, or empty;
    `notification_id`: of what was sent; `channels`: the others that are on, besides the app."""

    type: NotificationType
    message_class: MessageClass
    channel: Channel
    outcome: Outcome
    reason: Reason
    until: datetime | None
    asked: tuple[Rule, ...]
    preferences_version: int
    expires_at: datetime | None
    at: datetime
    event: str = ""
    title: str = ""
    notification_id: str | None = None
    channels: Sequence[ChannelDecision] = ()

    @property
    def steps(self) -> Sequence[tuple[Rule, bool, str]]:
        """Each rule that was asked, whether it spoke, and in words for the user."""
        spoke = None if self.reason is Reason.ACCEPTED else self.asked[-1]
        return [(rule, rule is spoke, _WORDS[rule, rule is spoke](self)) for rule in self.asked]


class Trace(Document):
    """Of one event that was not sent to one user."""

    user_id: str
    event: str
    title: str
    type: NotificationType
    expires_at: datetime | None
    decision: dict[str, Any]
    forget_at: datetime

    class Settings:
        name = "traces"
        indexes = (
            IndexModel([("user_id", 1), ("event", 1)], unique=True),
            IndexModel([("user_id", 1), ("_id", -1)]),
            IndexModel([("forget_at", 1)], expireAfterSeconds=0),
        )

    @classmethod
    async def of_user(
        cls, user_id: str, since: datetime, after: ObjectId | None, limit: int
    ) -> Sequence[Self]:
        """The newest first, decided after `since`; `after`: only older than that row."""
        older = {"_id": {"$lt": after}} if after else {}
        found = cls.find({"user_id": user_id, "decision.at": {"$gte": since}, **older})
        return await found.sort("-_id").limit(limit).to_list()

    @classmethod
    async def sent_later(cls, traces: Sequence[Self]) -> Set[str]:
        """The events of those that came after all: asked for again, under the same key."""
        keys = [(trace.user_id, trace.event) for trace in traces]
        came = {*await Notification.of_events(keys), *await Revision.of_events(keys)}
        return {event for _, event in came}

    @property
    def explanation(self) -> Explanation:
        return _explanation(self.decision, self, None)


def trace_row(draft: Draft, decision: Mapping[str, Any], forget_at: datetime) -> dict[str, Any]:
    return {
        "_id": ObjectId(),
        "user_id": draft.user_id,
        "event": draft.event,
        "title": draft.text.title,
        "type": draft.type.value,
        "expires_at": draft.expires_at,
        "decision": dict(decision),
        "forget_at": forget_at,
    }


def stored(situation: Situation, decision: Decision) -> dict[str, Any]:
    """A decision as it is stored; type and end stand in the row around it."""
    return {
        "class": situation.message_class.value,
        "channel": situation.channel.value,
        "outcome": decision.outcome.value,
        "reason": decision.reason.value,
        "until": decision.until,
        "asked": [rule.value for rule in decision.asked],
        "preferences_version": situation.preferences.version,
        "at": situation.at,
    }


def with_others(stored: dict[str, Any], others: Mapping[Channel, Decision]) -> dict[str, Any]:
    """The same, with what was decided on other channels."""
    return stored | channels.stored(others) if others else stored


def explanation_of(row: Notification, since: datetime) -> Explanation | None:
    """Why it was sent; None where that was decided before `since`, or is not known."""
    if row.decision is None or row.decision["at"] < since:
        return None
    return _explanation(row.decision, row, str(row.id))


def explanation_of_none(situation: Situation, decision: Decision) -> Explanation:
    """Of a decision about nothing: a dry run."""
    return Explanation(
        type=situation.type,
        message_class=situation.message_class,
        channel=situation.channel,
        outcome=decision.outcome,
        reason=decision.reason,
        until=decision.until,
        asked=decision.asked,
        preferences_version=situation.preferences.version,
        expires_at=situation.expires_at,
        at=situation.at,
    )


async def explanations(event_id: str, user_id: str, since: datetime) -> Sequence[Explanation]:
    """What became of an event for a user, whoever its source: one, as a rule. What was refused
    first and sent later, under the same key, was sent."""
    if len(event_id) > _LONGEST_ID or "\x00" in event_id:
        return []
    this = {
        "user_id": user_id,
        "event": {"$regex": rf"^\S+ {re.escape(event_id)}$"},
        "decision.at": {"$gte": since},
    }
    sent = await Notification.find(this).limit(_MOST_OF_ONE_EVENT).to_list()
    revised = await Revision.find(this).limit(_MOST_OF_ONE_EVENT).to_list()
    unsent = await Trace.find(this).limit(_MOST_OF_ONE_EVENT).to_list()
    came = {row.event for row in (*sent, *revised)}
    told = [one for row in sent if (one := explanation_of(row, since)) is not None]
    told += [
        _explanation(row.decision, row, str(row.notification_id)) for row in revised if row.decision
    ]
    return [*told, *(row.explanation for row in unsent if row.event not in came)]


async def as_they_stand(user_id: str, found: Sequence[Explanation]) -> list[Explanation]:
    """With what was decided last on the other channels."""
    latest = await channels.latest(user_id, [one.event for one in found])

    def now(one: Explanation) -> Explanation:
        first = {decided.channel: decided for decided in one.channels}
        return replace(one, channels=[*{**first, **latest.get(one.event, {})}.values()])

    return [now(one) for one in found]


async def keep(rows: Sequence[dict[str, Any]], session: Session) -> None:
    """In the session's transaction; one that is there already stays as it is."""
    if rows:
        writes = [
            UpdateOne(
                {"user_id": row["user_id"], "event": row["event"]},
                {"$setOnInsert": row},
                upsert=True,
            )
            for row in rows
        ]
        await Trace.get_pymongo_collection().bulk_write(writes, session=session)


def since(now: datetime, seconds: float) -> datetime:
    """What was decided before is forgotten."""
    return now - timedelta(seconds=seconds)


def _explanation(
    decision: Mapping[str, Any], row: Notification | Revision | Trace, notification_id: str | None
) -> Explanation:
    return Explanation(
        type=row.type,
        message_class=MessageClass(decision["class"]),
        channel=Channel(decision["channel"]),
        outcome=Outcome(decision["outcome"]),
        reason=Reason(decision["reason"]),
        until=decision["until"],
        asked=tuple(Rule(rule) for rule in decision["asked"] if rule in _KNOWN),
        preferences_version=decision["preferences_version"],
        expires_at=row.expires_at,
        at=decision["at"],
        event=row.event,
        title=row.title,
        notification_id=notification_id,
        channels=channels.read(decision),
    )


_TYPES: Final[Mapping[NotificationType, str]] = {
    NotificationType.ORDER_UPDATE: "updates of orders",
    NotificationType.PROMOTION: "promotions",
    NotificationType.RECOMMENDATION: "recommendations",
}
_CHANNELS: Final[Mapping[Channel, str]] = {
    Channel.IN_APP: "in the app",
    Channel.EMAIL: "by email",
    Channel.WEB_PUSH: "as push messages",
    Channel.WEBHOOK: "by webhook",
}


def _lasts(one: Explanation) -> str:
    return f"It lasts until {_moment(one.expires_at)}." if one.expires_at else "It has no end."


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else ""


_WORDS: Final[Mapping[tuple[Rule, bool], Callable[[Explanation], str]]] = {
    (Rule.EXPIRY, False): _lasts,
    (Rule.EXPIRY, True): lambda one: f"It was over at {_moment(one.expires_at)}.",
    (Rule.COLLAPSE, False): lambda one: "Nothing newer of the same is known.",
    (Rule.COLLAPSE, True): lambda one: "Something newer of the same was told before it.",
    (Rule.CRITICAL, False): lambda one: "It is not critical.",
    (Rule.CRITICAL, True): lambda one: "It is critical, and goes out whatever you chose.",
    (Rule.LOCK, False): lambda one: (
        f"Whether you get {_TYPES[one.type]} {_CHANNELS[one.channel]} is yours to choose."
    ),
    (Rule.LOCK, True): lambda one: (
        f"{_TYPES[one.type].capitalize()} {_CHANNELS[one.channel]} can't be switched off."
    ),
    (Rule.TYPE, False): lambda one: f"You get {_TYPES[one.type]}.",
    (Rule.TYPE, True): lambda one: f"You switched {_TYPES[one.type]} off.",
    (Rule.CHANNEL, False): lambda one: f"You get them {_CHANNELS[one.channel]}.",
    (Rule.CONSENT, False): lambda one: (
        f"You agreed to get {_TYPES[one.type]} {_CHANNELS[one.channel]}."
        if needs_consent(one.type, one.channel)
        else "It needs no consent of yours."
    ),
    (Rule.CONSENT, True): lambda one: (
        f"You have not agreed to get {_TYPES[one.type]} {_CHANNELS[one.channel]}."
    ),
    (Rule.QUIET_HOURS, False): lambda one: "It is no quiet time of yours.",
    (Rule.QUIET_HOURS, True): lambda one: (
        f"You want quiet until {_moment(one.until)}."
        if one.until
        else "It is a quiet time of yours: it is not sent."
    ),
    (Rule.FREQUENCY, False): lambda one: (
        "You did not get too much advertising lately."
        if needs_consent(one.type, one.channel)
        else "It does not count as advertising."
    ),
    (Rule.FREQUENCY, True): lambda one: (
        f"You got enough advertising for now: more may come from {_moment(one.until)} on."
        if one.until
        else "You got enough advertising for now: it is not sent."
    ),
    (Rule.CHANNEL, True): lambda one: (
        f"You don't get {_TYPES[one.type]} {_CHANNELS[one.channel]}: that is switched off."
    ),
}

MODELS: list[type[Document]] = [Trace]
