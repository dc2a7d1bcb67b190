"""Which texts there are, and what each is given: with these, a template is previewed and checked.

A `Known` object has all the names that its texts may use. `order.details` is what the shop sends
with the order, so there any name is allowed, and what is missing is nil.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.notifications.scope import Known

ORDER_STATUSES: Final = (
    "placed",
    "paid",
    "packed",
    "shipped",
    "delivered",
    "cancelled",
    "refunded",
    "payment_failed",
)
OTHER_STATUS: Final = "other"
TIMEZONE: Final = "Europe/Vienna"
_USER: Final = Known(name="Ada Berger")
_DETAILS: Final = {
    "total": "1249.90",
    "currency": "EUR",
    "carrier": "DHL",
    "trackingUrl": "https://carrier.example/00340434161094000000",
    "deliveryDate": "2026-11-27",
    "expectedAt": "2026-11-27T14:30:00Z",
    "items": [
        {"name": "Tent", "quantity": 1, "price": "999.90"},
        {"name": "Sleeping bag", "quantity": 2, "price": "125.00"},
    ],
}
_PRODUCTS: Final = [
    Known(name=name, reason=reason, why=why, other=other)
    for name, reason, why, other in (
        ("Tent", "Bought together with Boots", "bought together", "Boots"),
        ("Sleeping bag", "Because you like Camping", "liked", "Camping"),
        ("Stove", "Popular right now", "popular", ""),
    )
]


def _order(status: str) -> Mapping[str, Any]:
    order = Known(id="A-1042", status=status, version=3, details=_DETAILS)
    return {"user": _USER, "order": order}


SAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    **{f"order.{status}": _order(status) for status in ORDER_STATUSES},
    f"order.{OTHER_STATUS}": _order("at customs"),
    "promotion": {
        "user": _USER,
        "promotion": Known(title="Summer sale", body="20 % off all tents until Sunday."),
    },
    "recommendation": {"user": _USER, "products": _PRODUCTS},
    "welcome": {"user": _USER},
    "digest": {
        "user": _USER,
        "notifications": [Known(title=title) for title in ("Summer sale", "Picked for you")],
    },
    "created.order_update": {"user": _USER},
    "created.promotion": {"user": _USER},
    "created.recommendation": {"user": _USER},
}
