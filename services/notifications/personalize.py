"""Who gets what: the decision about one notification for one user. Pure.

Reasons are stable upper-case codes: an API that callers may switch on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.shared.vocabulary import Channel, NotificationType, Outcome
from services.users.preferences import Preferences


class Reason(StrEnum):
    ACCEPTED = "ACCEPTED"
    """Nothing speaks against it."""
    LOCKED_CHANNEL = "LOCKED_CHANNEL"
    """This channel of this type can't be switched off."""
    TYPE_OFF = "TYPE_OFF"
    """The user switched this type off."""
    CHANNEL_OFF = "CHANNEL_OFF"
    """The user switched this channel of this type off."""
    EXPIRED = "EXPIRED"
    """It was over before it was decided."""
    TOO_FEW_CANDIDATES = "TOO_FEW_CANDIDATES"
    """Fewer than three products are worth recommending to this user."""
    SAME_DEDUP_KEY = "SAME_DEDUP_KEY"
    """A notification with this dedupKey exists; it is answered."""
    SAME_EVENT = "SAME_EVENT"
    """This event was handled before; its notification is answered."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`until`: when a HELD one is decided anew."""

    outcome: Outcome
    reason: Reason
    until: datetime | None = None


def decide(
    type_: NotificationType,
    preferences: Preferences,
    *,
    expires_at: datetime | None,
    now: datetime,
    channel: Channel = Channel.IN_APP,
) -> Decision:
    """Whether to send on this channel at this instant, and why. The first rule that speaks wins."""
    if expires_at is not None and expires_at <= now:
        return Decision(Outcome.SUPPRESSED, Reason.EXPIRED)
    wish = preferences.of(type_)
    on_channel = next(entry for entry in wish.channels if entry.channel is channel)
    if on_channel.locked:
        return Decision(Outcome.SENT, Reason.LOCKED_CHANNEL)
    if not wish.enabled:
        return Decision(Outcome.SUPPRESSED, Reason.TYPE_OFF)
    if not on_channel.enabled:
        return Decision(Outcome.SUPPRESSED, Reason.CHANNEL_OFF)
    return Decision(Outcome.SENT, Reason.ACCEPTED)
