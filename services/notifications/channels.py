"""What was decided on the channels besides the app, as it is kept with a decision and told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from services.notifications.deliveries import Delivery
from services.notifications.personalize import Decision, Reason
from services.shared.vocabulary import Channel, DeliveryState, Outcome

DELIVERED: Final[Mapping[Outcome, DeliveryState]] = {
    Outcome.SENT: DeliveryState.READY,
    Outcome.HELD: DeliveryState.HELD,
}


@dataclass(frozen=True, slots=True)
class ChannelDecision:
    """`state`: of its delivery; None where there is none."""

    channel: Channel
    outcome: Outcome
    reason: Reason
    until: datetime | None
    state: DeliveryState | None

    @classmethod
    def of(cls, channel: Channel, decision: Decision) -> Self:
        """As it was just made."""
        state = DELIVERED.get(decision.outcome)
        return cls(channel, decision.outcome, decision.reason, decision.until, state)

    @classmethod
    def read(
        cls, channel: str, decision: Mapping[str, Any], state: DeliveryState | None = None
    ) -> Self:
        """As it is stored. No `state`: of its delivery nothing is known any more."""
        outcome = Outcome(decision["outcome"])
        return cls(
            Channel(channel),
            outcome,
            Reason(decision["reason"]),
            decision.get("until"),
            state,
        )


def stored(decisions: Mapping[Channel, Decision]) -> dict[str, Any]:
    """What a decision about the app keeps of them: nothing, where the other channels are off."""
    if not decisions:
        return {}
    return {"channels": {channel.value: _stored(one) for channel, one in decisions.items()}}


def read(decision: Mapping[str, Any]) -> Sequence[ChannelDecision]:
    kept = decision.get("channels", {})
    return [ChannelDecision.read(channel, one) for channel, one in kept.items()]


async def latest(
    user_id: str, events: Iterable[str]
) -> Mapping[str, Mapping[Channel, ChannelDecision]]:
    """What was decided last about the deliveries of these events, and where they stand."""
    found: dict[str, dict[Channel, ChannelDecision]] = defaultdict(dict)
    for row in await Delivery.of_events(user_id, events):
        one = ChannelDecision.read(row["channel"], row["decision"], DeliveryState(row["state"]))
        found[row["event"]][one.channel] = one
    return found


def _stored(decision: Decision) -> dict[str, Any]:
    until = {"until": decision.until} if decision.until else {}
    return {"outcome": decision.outcome.value, "reason": decision.reason.value, **until}
