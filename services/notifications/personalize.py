"""Who gets what: the decision about one notification for one user. Pure.

RULES are asked in their order, and the first that speaks decides; when none does, it is sent. What
was asked stays with the decision, so that it can be explained. Reasons are stable upper-case codes:
an API that callers may switch on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Struct

from services.notifications.caps import UNCAPPED, Allowance
from services.notifications.collapse import Rank
from services.shared.vocabulary import (
    Channel,
    MessageClass,
    NotificationType,
    Outcome,
    OverCap,
    QuietAction,
)
from services.users.preferences import ChannelPreference, Choices, Preferences, channels_on

_APP: Final = frozenset({Channel.IN_APP})
_OTHERS: Final = tuple(channel for channel in Channel if channel not in _APP)


class Reason(StrEnum):
    ACCEPTED = "ACCEPTED"
    """Nothing speaks against it."""
    CRITICAL = "CRITICAL"
    """It goes out whatever the user chose."""
    LOCKED_CHANNEL = "LOCKED_CHANNEL"
    """This channel of this type can't be switched off."""
    TYPE_OFF = "TYPE_OFF"
    """The user switched this type off."""
    CHANNEL_OFF = "CHANNEL_OFF"
    """The user switched this channel of this type off."""
    NO_CONSENT = "NO_CONSENT"
    """It is marketing outside the app, and no consent to it is recorded."""
    QUIET_HOURS = "QUIET_HOURS"
    """It falls into quiet hours of the user's on this channel."""
    FREQUENCY_CAP = "FREQUENCY_CAP"
    """It is marketing, of which the user had enough lately on this channel or on all."""
    EXPIRED = "EXPIRED"
    """It was over before it was decided."""
    NEWER_STATE = "NEWER_STATE"
    """A newer state of the same thing was told before; it is answered."""
    TOO_FEW_CANDIDATES = "TOO_FEW_CANDIDATES"
    """Fewer than three products are worth recommending to this user."""
    SAME_DEDUP_KEY = "SAME_DEDUP_KEY"
    """A notification with this dedupKey exists; it is answered."""
    SAME_EVENT = "SAME_EVENT"
    """This event was handled before; its notification is answered."""


class Rule(StrEnum):
    """What is asked. The values are what is stored."""

    EXPIRY = "expiry"
    COLLAPSE = "collapse"
    CRITICAL = "critical"
    LOCK = "lock"
    TYPE = "type"
    CHANNEL = "channel"
    CONSENT = "consent"
    QUIET_HOURS = "quiet_hours"
    FREQUENCY = "frequency"


class Situation(Struct, frozen=True):
    """What a decision is made from. `at`: the instant for which it is made; `timezone`: the
    user's, an IANA zone; `rank`: of the state that it tells of, `told_rank`: of the one that is
    told already (about the app both are None where none is); `allowance`: of marketing, on other
    channels than the app."""

    type: NotificationType
    message_class: MessageClass
    preferences: Preferences
    at: datetime
    expires_at: datetime | None = None
    channel: Channel = Channel.IN_APP
    timezone: str = "UTC"
    rank: Rank | None = None
    told_rank: Rank | None = None
    allowance: Allowance = UNCAPPED

    @property
    def choice(self) -> ChannelPreference:
        """The user's, for this channel of this type."""
        return self.preferences.of(self.type).on(self.channel)

    def on(
        self, channel: Channel, rank: Rank | None, told_rank: Rank | None, allowance: Allowance
    ) -> Situation:
        """The same on another channel, with what is told there; quicker than `replace`."""
        return Situation(
            self.type,
            self.message_class,
            self.preferences,
            self.at,
            self.expires_at,
            channel,
            self.timezone,
            rank,
            told_rank,
            allowance,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """`until`: when a HELD one is decided anew. `asked`: the rules that were, in their order; the
    last one has spoken, unless the reason is ACCEPTED."""

    outcome: Outcome
    reason: Reason
    until: datetime | None = None
    asked: tuple[Rule, ...] = field(default=(), compare=False)


SAME_EVENT: Final = Decision(Outcome.DUPLICATE, Reason.SAME_EVENT)


def other_channels(
    choices: Choices, type_: NotificationType, message_class: MessageClass
) -> tuple[Channel, ...]:
    """Those besides the app on which it is decided: they are on for its type.

    What is critical is decided, and so goes out, on each that is on for any type, whatever was
    chosen for its own. A channel that is on for none is not the user's.
    """
    on = channels_on(choices, type_)
    if message_class is MessageClass.CRITICAL:
        on = on.union(*(channels_on(choices, other) for other in NotificationType))
    return tuple(channel for channel in _OTHERS if channel in on) if on - _APP else ()


def decide(situation: Situation) -> Decision:
    """Whether to send on this channel at this instant, and why."""
    asked: list[Rule] = []
    for rule, speaks in RULES.items():
        asked.append(rule)
        if said := speaks(situation):
            if said.until and situation.expires_at and said.until >= situation.expires_at:
                said = Said(Outcome.SUPPRESSED, said.reason)  # it would be over by then
            return Decision(said.outcome, said.reason, said.until, tuple(asked))
    return Decision(Outcome.SENT, Reason.ACCEPTED, asked=tuple(asked))


class Said(NamedTuple):
    outcome: Outcome
    reason: Reason
    until: datetime | None = None


def _expiry(situation: Situation) -> Said | None:
    ends = situation.expires_at
    if ends is not None and ends <= situation.at:
        return Said(Outcome.SUPPRESSED, Reason.EXPIRED)
    return None


def _collapse(situation: Situation) -> Said | None:
    rank, told = situation.rank, situation.told_rank
    if rank is not None and told is not None and rank < told:
        return Said(Outcome.SUPERSEDED, Reason.NEWER_STATE)
    return None


def _critical(situation: Situation) -> Said | None:
    if situation.message_class is MessageClass.CRITICAL:
        return Said(Outcome.SENT, Reason.CRITICAL)
    return None


def _lock(situation: Situation) -> Said | None:
    return Said(Outcome.SENT, Reason.LOCKED_CHANNEL) if situation.choice.locked else None


def _type(situation: Situation) -> Said | None:
    if not situation.preferences.of(situation.type).enabled:
        return Said(Outcome.SUPPRESSED, Reason.TYPE_OFF)
    return None


def _channel(situation: Situation) -> Said | None:
    return None if situation.choice.enabled else Said(Outcome.SUPPRESSED, Reason.CHANNEL_OFF)


def _consent(situation: Situation) -> Said | None:
    return Said(Outcome.SUPPRESSED, Reason.NO_CONSENT) if situation.choice.lacks_consent else None


def _quiet_hours(situation: Situation) -> Said | None:
    hours = situation.preferences.quiet_hours.get(situation.channel)
    if hours is None or situation.message_class is not MessageClass.MARKETING:
        return None
    until = hours.quiet_until(situation.at, ZoneInfo(situation.timezone))
    if until is None:
        return None
    if hours.action is QuietAction.DROP:
        return Said(Outcome.SUPPRESSED, Reason.QUIET_HOURS)
    return Said(Outcome.HELD, Reason.QUIET_HOURS, until)


def _frequency(situation: Situation) -> Said | None:
    if situation.message_class is not MessageClass.MARKETING:
        return None
    free_at = situation.allowance.free_at(situation.channel, situation.at)
    if free_at is None:
        return None
    if situation.allowance.over is OverCap.DROP:
        return Said(Outcome.SUPPRESSED, Reason.FREQUENCY_CAP)
    return Said(Outcome.HELD, Reason.FREQUENCY_CAP, free_at)


RULES: Final[Mapping[Rule, Callable[[Situation], Said | None]]] = {
    Rule.EXPIRY: _expiry,
    Rule.COLLAPSE: _collapse,
    Rule.CRITICAL: _critical,
    Rule.LOCK: _lock,
    Rule.TYPE: _type,
    Rule.CHANNEL: _channel,
    Rule.CONSENT: _consent,
    Rule.QUIET_HOURS: _quiet_hours,
    Rule.FREQUENCY: _frequency,
}
