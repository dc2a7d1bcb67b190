"""What a client of the shop may do, as values: made from a seed, sent again as often as needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from campaign.journal import Expect
from services.shared.events import (
    Data,
    Event,
    OrderStatusChanged,
    PromotionAnnounced,
    UserActivity,
)
from services.shared.events import encode as _encode_event
from services.shared.vocabulary import ActivityKind

GRAPHQL: Final = "graphql"
EXCHANGE: Final = "exchange"

# Kinds of deeds that the checker looks for. A broadcast's steps have its key, and so has what
# cancels something that was scheduled.
MOVE: Final = "move"  # a status of an order that has others
BROADCAST, PAUSE, RESUME, CANCEL = "broadcast", "pause", "resume", "cancel"
SCHEDULE, UNSCHEDULE = "schedule", "unschedule"

ORDER, PROMOTION, RECOMMENDATION = "order_update", "promotion", "recommendation"

PUBLISH_ORDER: Final = """mutation($input: OrderStatusInput!) {
  publishOrderStatus(input: $input) { eventId } }"""
PUBLISH_PROMOTION: Final = """mutation($input: PromotionInput!) {
  publishPromotion(input: $input) { eventId } }"""
PUBLISH_PRODUCT: Final = """mutation($input: ProductInput!) {
  publishProduct(input: $input) { eventId } }"""
CREATE: Final = """mutation($input: CreateNotificationInput!) {
  answer: createNotification(input: $input) {
    notification { id } decision { outcome reason } } }"""
RECOMMEND: Final = """mutation {
  answer: createRecommendations { notification { id } decision { outcome reason } } }"""
TRACK: Final = """mutation($input: ActivityInput!) { trackActivity(input: $input) }"""
_STOP: Final = "stop "


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing to have done. `again`: whether repeating it is harmless, since it has a key.

    By GraphQL `document` and `variables` with `token`; on the exchange `body` under `routing_key`.
    `due`: when it is to be told, of what is scheduled; see journal.py for the times.
    """

    kind: str
    via: str
    key: str
    users: tuple[str, ...] | None
    type: str = ""
    gist: str = ""
    expect: Expect = Expect.OK
    again: bool = True
    token: str = ""
    document: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""
    routing_key: str = ""
    due: float = 0.0


def gist(content: object) -> str:
    """Equal for what is the same as JSON."""
    return digest(msgspec.json.encode(content, order="sorted"))


def version_in(content: object) -> int:
    """Which status of an order that moves this content tells of; 0: of none."""
    status = str(content.get("status")) if isinstance(content, dict) else ""
    return int(status.removeprefix(_STOP)) if status.startswith(_STOP) else 0


def digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Backend:
    """A shop's backend with an account: what it publishes through GraphQL."""

    id: str
    token: str

    @property
    def source(self) -> str:
        return f"urn:tidings:user:{self.id}"

    def order(self, event_id: str, user: str, status: str, kind: str = "order") -> Deed:
        order = {"orderId": event_id, "userId": user, "status": status, "eventId": event_id}
        return Deed(
            kind=kind,
            via=GRAPHQL,
            key=f"{self.source} {event_id}",
            users=(user,),
            type=ORDER,
            gist=gist({"orderId": event_id, "status": status}),
            token=self.token,
            document=PUBLISH_ORDER,
            variables={"input": order},
        )

    def move(self, order: str, version: int, user: str) -> Deed:
        """A status of an order that has had others."""
        id = f"{order}/{version}"
        given = {"orderId": order, "userId": user, "status": f"{_STOP}{version}"}
        return Deed(
            kind=MOVE,
            via=GRAPHQL,
            key=f"{self.source} {id}",
            users=(user,),
            token=self.token,
            document=PUBLISH_ORDER,
            variables={"input": given | {"version": version, "eventId": id}},
        )

    def promotion(self, event_id: str, users: Sequence[str] | None, text: str) -> Deed:
        promotion = {"title": f"Offer {event_id}", "body": text, "eventId": event_id}
        return Deed(
            kind="promotion" if users else "promotion to all",
            via=GRAPHQL,
            key=f"{self.source} {event_id}",
            users=tuple(users) if users is not None else None,
            type=PROMOTION,
            gist=gist({"title": f"Offer {event_id}", "body": text}),
            token=self.token,
            document=PUBLISH_PROMOTION,
            variables={"input": promotion | ({"userIds": list(users)} if users else {})},
        )

    def product(self, event_id: str, product: str, category: str) -> Deed:
        variables = {
            "productId": product,
            "name": f"Product {product}",
            "category": category,
            "eventId": event_id,
        }
        return Deed(
            kind="product",
            via=GRAPHQL,
            key=product,
            users=(),
            token=self.token,
            document=PUBLISH_PRODUCT,
            variables={"input": variables},
        )

    def notification(
        self,
        tag: str,
        user: str,
        type_: str,
        *,
        dedup: bool,
        size: int = 0,
    ) -> Deed:
        """Without a dedup key the content's `attempt` tells it again, and it can't be repeated."""
        content = {"attempt": tag, "body": "News for you.", "filling": "x" * size}
        variables: dict[str, Any] = {"userId": user, "type": type_.upper(), "content": content}
        if dedup:
            variables["dedupKey"] = tag
        return Deed(
            kind="create",
            via=GRAPHQL,
            key=f"{self.source}/dedup {tag}" if dedup else f"attempt {tag}",
            users=(user,),
            type=type_,
            gist=gist(content),
            again=dedup,
            token=self.token,
            document=CREATE,
            variables={"input": variables},
        )

    def activity(self, user: str, kind: ActivityKind, product: str) -> Deed:
        variables = {"kind": kind.name, "productId": product, "userId": user}
        return Deed(
            kind="track",
            via=GRAPHQL,
            key=f"{user} {kind.value} {product}",
            users=(),
            again=False,
            token=self.token,
            document=TRACK,
            variables={"input": variables},
        )


def recommendations(user: str, token: str) -> Deed:
    return Deed(
        kind="recommend",
        via=GRAPHQL,
        key=f"recommend {user}",
        users=(user,),
        type=RECOMMENDATION,
        again=False,
        token=token,
        document=RECOMMEND,
    )


@dataclass(frozen=True, slots=True)
class Producer:
    """A shop's backend that publishes straight to the exchange, under a source of its own."""

    source: str

    def order(
        self, event_id: str, user: str, status: str, now: datetime, kind: str = "order"
    ) -> Deed:
        data = OrderStatusChanged(order_id=event_id, user_id=user, status=status)
        content = gist({"orderId": event_id, "status": status})
        return self._deed(kind, data, event_id, now, (user,), ORDER, content)

    def move(self, order: str, version: int, user: str, at: datetime, *, says: bool) -> Deed:
        """`says`: whether its version, or else `at` alone tells which status is newer."""
        data = OrderStatusChanged(
            order_id=order,
            user_id=user,
            status=f"{_STOP}{version}",
            version=version if says else None,
        )
        return self._deed(MOVE, data, f"{order}/{version}", at, (user,))

    def promotion(self, event_id: str, users: Sequence[str], text: str, now: datetime) -> Deed:
        data = PromotionAnnounced(title=f"Offer {event_id}", body=text, user_ids=tuple(users))
        content = gist({"title": f"Offer {event_id}", "body": text})
        return self._deed("promotion", data, event_id, now, tuple(users), PROMOTION, content)

    def activity(
        self, event_id: str, user: str, kind: ActivityKind, product: str, now: datetime
    ) -> Deed:
        data = UserActivity(user_id=user, kind=kind, product_id=product)
        return self._deed("activity", data, event_id, now, ())

    def _deed(
        self,
        kind: str,
        data: Data,
        event_id: str,
        now: datetime,
        users: tuple[str, ...],
        type_: str = "",
        content: str = "",
    ) -> Deed:
        event = Event.of(data, time=now, id=event_id, source=self.source)
        return Deed(
            kind=kind,
            via=EXCHANGE,
            key=event.key,
            users=users,
            type=type_,
            gist=content,
            body=_encode_event(event),
            routing_key=data.type,
        )


POISONS: Final = ("not JSON", "no CloudEvent", "unknown type", "wrong data", "nobody")


def poison(which: str, tag: str, user: str) -> Deed:
    """An event that nobody can handle, of one of the kinds of POISONS."""
    envelope: dict[str, Any] = {
        "specversion": "1.0",
        "id": tag,
        "source": "urn:campaign:poison",
        "type": OrderStatusChanged.type,
        "data": {"orderId": tag, "userId": user, "status": "paid"},
    }
    routing_key = OrderStatusChanged.type
    if which == "no CloudEvent":
        envelope = {"hello": tag}
    elif which == "unknown type":
        routing_key = envelope["type"] = "campaign.unheard_of"
    elif which == "wrong data":
        envelope["data"] = {"orderId": tag, "userId": [user]}
    elif which == "nobody":
        envelope["data"] |= {"userId": "ffffffffffffffffffffffff"}
    body = msgspec.json.encode(envelope)
    return poisonous(b"{not JSON " + tag.encode() if which == "not JSON" else body, routing_key)


def poisonous(body: bytes, routing_key: str) -> Deed:
    """Something for the exchange that has to end among the dead letters."""
    return Deed(
        kind="poison",
        via=EXCHANGE,
        key=digest(body),
        users=(),
        expect=Expect.REFUSED,
        body=body,
        routing_key=routing_key,
    )
