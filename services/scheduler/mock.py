"""Mock shop traffic for the demo: what a schedule's mock event is at one fire. Pure.

The same fire gives the same event, whichever scheduler makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.shared.events import Data, OrderStatusChanged, PromotionAnnounced

ORDER: Final = "mock.order"
PROMOTION: Final = "mock.promotion"
TYPES: Final = (ORDER, PROMOTION)

_STATUSES: Final = ("placed", "paid", "packed", "shipped", "delivered")
_OFFERS: Final = (
    ("Rain is coming", "All waterproof jackets are 20 % off until Sunday."),
    ("Run further", "Two pairs of trail socks for the price of one."),
    ("Sleep under stars", "Free delivery on every tent this week."),
    ("Good morning, mountains", "Breakfast for two: stove and pot as a set, 15 % off."),
    ("Last pieces", "End of season: climbing shoes from 59 euros."),
)


def mock_event(type_: str, fire: datetime, customers: Sequence[str]) -> Data | None:
    """Each customer's orders go through all statuses, a step a minute. None without customers."""
    if type_ == PROMOTION:
        title, body = _OFFERS[int(fire.timestamp()) // 5 % len(_OFFERS)]
        return PromotionAnnounced(title=title, body=body)
    turn = int(fire.timestamp()) // 60
    if not customers:
        return None
    step, customer = divmod(turn, len(customers))
    order, status = divmod(step, len(_STATUSES))
    return OrderStatusChanged(
        order_id=f"{1000 + order % 9000}{customer + 1}",
        user_id=customers[customer],
        status=_STATUSES[status],
        version=status + 1,
    )
