"""What became of a broadcast's recipients, as it is counted: each once, on all channels together.

Sent is who has it on some channel, held for whom it waits on some, and suppressed are the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Final

from services.notifications.deliveries import Delivery
from services.notifications.drafts import Announcement, Draft, Key
from services.notifications.models import Notification
from services.shared.vocabulary import DeliveryState, Outcome

Tally = Counter[str]  # of a broadcast's counters

_BECAME: Final = {
    DeliveryState.HELD: Outcome.HELD,
    DeliveryState.SUPPRESSED: Outcome.SUPPRESSED,
    DeliveryState.SUPERSEDED: Outcome.SUPPRESSED,
    DeliveryState.CANCELLED: Outcome.SUPPRESSED,
}


async def tally_of(drafts: Sequence[Draft], announced: Sequence[Announcement]) -> Tally:
    """Of those who were served before it counts what they have."""
    outcomes = {
        draft.key: {one.decision.outcome, *(other.outcome for other in one.channels.values())}
        for draft, one in zip(drafts, announced, strict=True)
    }
    again = [key for key, there in outcomes.items() if Outcome.DUPLICATE in there]
    for key, there in (await _had(again)).items():
        outcomes[key] |= there
    return _counted(outcomes.values())


async def tally_of_served(keys: Collection[Key]) -> Tally:
    """Of those among them for whom anything is stored."""
    return _counted((await _had(keys)).values())


async def _had(keys: Collection[Key]) -> Mapping[Key, Set[Outcome]]:
    found: dict[Key, set[Outcome]] = defaultdict(set)
    if keys:
        for key in await Notification.of_events([*keys]):
            found[key].add(Outcome.SENT)
        for key, state in await Delivery.states_of(keys):
            found[key].add(_BECAME.get(state, Outcome.SENT))
    return found


def _counted(all_outcomes: Iterable[Set[Outcome]]) -> Tally:
    return Counter(map(_counter, all_outcomes))


def _counter(outcomes: Set[Outcome]) -> str:
    if Outcome.SENT in outcomes:
        return "sent"
    return "held" if Outcome.HELD in outcomes else "suppressed"
