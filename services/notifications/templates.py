"""The words of a notification: title and body from what happened. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.notifications.recommend import Recommendation
from services.shared.content import composed
from services.shared.events import OrderStatusChanged, PromotionAnnounced, UserRegistered
from services.shared.vocabulary import NotificationType

LONGEST_TITLE: Final = 500
LONGEST_BODY: Final = 5000


@dataclass(frozen=True, slots=True)
class Text:
    title: str
    body: str


_ORDER_TEXTS: Final[Mapping[str, Text]] = {
    "placed": Text("Order {order} received", "Thank you! We have your order and check it now."),
    "paid": Text("Order {order} is paid", "Your payment arrived. We start packing."),
    "packed": Text("Order {order} is packed", "Your parcel waits for the carrier."),
    "shipped": Text("Order {order} is on its way", "Your parcel has left our warehouse."),
    "delivered": Text("Order {order} was delivered", "Enjoy! Something wrong? We take it back."),
    "cancelled": Text("Order {order} was cancelled", "Nothing will be charged."),
    "refunded": Text("Order {order} was refunded", "Your money is on its way back to you."),
    "payment_failed": Text("Payment of order {order} failed", "Please choose another way to pay."),
}
_ANY_ORDER: Final = Text("News of order {order}", "Its status is now: {status}.")
_TITLES: Final[Mapping[NotificationType, str]] = {
    NotificationType.ORDER_UPDATE: "News of your order",
    NotificationType.PROMOTION: "An offer for you",
    NotificationType.RECOMMENDATION: "Picked for you",
}


def order_text(order: OrderStatusChanged) -> Text:
    status = composed(order.status)
    template = _ORDER_TEXTS.get(status.lower(), _ANY_ORDER)
    return Text(template.title.format(order=order.order_id), template.body.format(status=status))


def promotion_text(promotion: PromotionAnnounced) -> Text:
    return Text(composed(promotion.title), composed(promotion.body))


def welcome_text(user: UserRegistered) -> Text:
    return Text(
        f"Welcome, {user.name}!",
        "This is where you hear of your orders, of offers, and of things you may like.",
    )


def recommendation_text(recommendations: Sequence[Recommendation]) -> Text:
    *most, last = [recommendation.name for recommendation in recommendations]
    names = f"{', '.join(most)} and {last}" if most else last
    return Text("Picked for you", f"{names}. {recommendations[0].reason}.")


def content_text(type_: NotificationType, content: Any, title: str | None) -> Text:
    """Title and body as given, else as the content's own `title` and `body`, else the type's."""
    if isinstance(content, str):
        return _clipped(title or _TITLES[type_], content)
    return _clipped(
        title or _text_at(content, "title") or _TITLES[type_], _text_at(content, "body") or ""
    )


def _text_at(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    return value if isinstance(value, str) else None


def _clipped(title: str, body: str) -> Text:
    return Text(title[:LONGEST_TITLE], body[:LONGEST_BODY])
