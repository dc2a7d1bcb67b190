"""The events that services share: CloudEvents 1.0 in structured JSON, and nothing else crosses.

Anyone may publish one to the exchange `tidings.events` with the event's type as routing key.
Data is read tolerantly (unknown fields are ignored), so that producers and consumers may be of
different versions. `asyncapi.yaml` is exported from this page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, TypeVar
from uuid import uuid4

import msgspec
from msgspec import Meta, Struct

from services.shared.content import ContentRefused, check_content
from services.shared.vocabulary import ActivityKind, ChangeKind, NotificationType

SOURCE: Final = "urn:tidings"
CONTENT_TYPE: Final = "application/cloudevents+json"
BATCH_CONTENT_TYPE: Final = "application/cloudevents-batch+json"

Id = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(min_length=1, max_length=500)]
LongText = Annotated[str, Meta(min_length=1, max_length=5000)]
Instant = Annotated[datetime, Meta(tz=True)]
SourceId = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^\S+$")]
UserIds = Annotated[tuple[Id, ...], Meta(min_length=1, max_length=10_000)]


class Data(Struct, frozen=True, kw_only=True, rename="camel"):
    """What an event says. `type` names it; `subject` is what it is about."""

    type: ClassVar[str]
    live: ClassVar[bool] = False

    @property
    def subject(self) -> str:
        raise NotImplementedError


D = TypeVar("D", bound=Data)
_Kind = type[D]


class UserRegistered(Data, frozen=True, kw_only=True, rename="camel"):
    """Somebody became a customer: they are welcomed."""

    type = "user.registered"
    user_id: Id
    name: Text

    @property
    def subject(self) -> str:
        return self.user_id


class PreferencesChanged(Data, frozen=True, kw_only=True, rename="camel"):
    """A user changed what they want to hear."""

    type = "user.preferences_changed"
    user_id: Id
    version: int

    @property
    def subject(self) -> str:
        return self.user_id


class PasswordResetRequested(Data, frozen=True, kw_only=True, rename="camel"):
    """A user wants another password: mail `token` to `email`; `resetPassword` takes it once."""

    type = "user.password_reset_requested"
    user_id: Id
    email: Text
    token: Text
    expires_at: Instant

    @property
    def subject(self) -> str:
        return self.user_id


class UserActivity(Data, frozen=True, kw_only=True, rename="camel"):
    """A user viewed, wished for, put in the cart or bought a product, at the event's time."""

    type = "user.activity"
    user_id: Id
    kind: ActivityKind
    product_id: Id

    @property
    def subject(self) -> str:
        return self.user_id


class ProductChanged(Data, frozen=True, kw_only=True, rename="camel"):
    """A product is new in the shop's catalogue, or has another name or category."""

    type = "product.changed"
    product_id: Id
    name: Text
    category: Text

    @property
    def subject(self) -> str:
        return self.product_id


class OrderStatusChanged(Data, frozen=True, kw_only=True, rename="camel"):
    """An order moved: placed, paid, shipped, delivered, or any status of the shop's own. Shown is
    the one of the highest `version`; without versions, of the latest `time`: give either."""

    type = "order.status_changed"
    order_id: Id
    user_id: Id
    status: Id
    version: int | None = None
    details: Any = None

    @property
    def subject(self) -> str:
        return self.order_id


class PromotionAnnounced(Data, frozen=True, kw_only=True, rename="camel"):
    """A promotion starts. Without `userIds` it is for everyone who accepts promotions."""

    type = "promotion.announced"
    title: Text
    body: LongText
    user_ids: UserIds | None = None
    expires_at: Instant | None = None

    @property
    def subject(self) -> str:
        return self.title


class RecommendationsRequested(Data, frozen=True, kw_only=True, rename="camel"):
    """Recommend to these users; without `userIds`, to all active within so many days."""

    type = "recommendations.requested"
    user_ids: UserIds | None = None
    active_within_days: Annotated[int, Meta(ge=1, le=365)] = 30

    @property
    def subject(self) -> str:
        return "recommendations"


class NotificationCreated(Data, frozen=True, kw_only=True, rename="camel"):
    """A notification was stored, or revised. A hint for open screens: the database is the truth."""

    type = "notification.created"
    live = True
    id: Id
    user_id: Id
    kind: NotificationType
    title: str
    body: str
    content: Any
    sent_at: Instant
    expires_at: Instant | None = None
    revision: int = 1
    read_at: Instant | None = None
    seen: bool = False
    archived: bool = False
    snoozed_until: Instant | None = None

    @property
    def subject(self) -> str:
        return self.user_id


class Recipient(Struct, frozen=True, kw_only=True, rename="camel"):
    """Whose notification it is, and its id."""

    id: Id
    user_id: Id


class NotificationsCreated(Data, frozen=True, kw_only=True, rename="camel"):
    """The same was stored for many users at the same time, as a broadcast is."""

    type = "notifications.created"
    live = True
    kind: NotificationType
    title: str
    body: str
    content: Any
    sent_at: Instant
    expires_at: Instant | None = None
    recipients: Annotated[tuple[Recipient, ...], Meta(min_length=1)]

    @property
    def subject(self) -> str:
        return self.title


class NotificationChanged(Data, frozen=True, kw_only=True, rename="camel"):
    """Some notifications of one user were read, archived and so on."""

    type = "notification.changed"
    live = True
    user_id: Id
    kind: ChangeKind
    notification_ids: tuple[Id, ...]

    @property
    def subject(self) -> str:
        return self.user_id


class SessionsEnded(Data, frozen=True, kw_only=True, rename="camel"):
    """Sessions of one user count no more: gateways close their websockets."""

    type = "user.sessions_ended"
    live = True
    user_id: Id
    session_ids: tuple[Id, ...]

    @property
    def subject(self) -> str:
        return self.user_id


CATALOGUE: Final[Mapping[str, type[Data]]] = {
    data.type: data
    for data in (
        UserRegistered,
        PreferencesChanged,
        PasswordResetRequested,
        UserActivity,
        ProductChanged,
        OrderStatusChanged,
        PromotionAnnounced,
        RecommendationsRequested,
        NotificationCreated,
        NotificationsCreated,
        NotificationChanged,
        SessionsEnded,
    )
}

# Which queue hears of which events. Every process declares all of it, so that an event published
# before its consumer was ever started waits for it. Types that stand nowhere here, or are in
# nobody's catalogue, reach NOTIFICATIONS too, which dead-letters what it does not know.
USERS: Final = "users"
NOTIFICATIONS: Final = "notifications"
QUEUES: Final[Mapping[str, tuple[type[Data], ...]]] = {
    USERS: (UserActivity,),
    NOTIFICATIONS: (
        UserRegistered,
        ProductChanged,
        OrderStatusChanged,
        PromotionAnnounced,
        RecommendationsRequested,
    ),
}


class Malformed(Exception):
    """These bytes are not an event that Tidings knows; the message says what to change."""


class Event(Struct, frozen=True, kw_only=True):
    """One CloudEvent. `key` names it worldwide: an event seen twice has the same key."""

    id: Id
    source: Id
    subject: str
    time: datetime
    data: Data

    @classmethod
    def of(
        cls, data: Data, *, time: datetime, id: str | None = None, source: str = SOURCE
    ) -> Event:
        return cls(id=id or uuid4().hex, source=source, subject=data.subject, time=time, data=data)

    @property
    def type(self) -> str:
        return self.data.type

    def read(self, kind: _Kind[D]) -> D:
        """The data, known to be of this kind. Raises TypeError."""
        if not isinstance(self.data, kind):
            raise TypeError(f"{self.type} is not {kind.type}")
        return self.data

    @property
    def key(self) -> str:
        return f"{self.source} {self.id}"


class _Envelope(Struct, kw_only=True, omit_defaults=True):
    specversion: str
    id: Id
    source: SourceId
    type: Id
    subject: str | None = None
    time: datetime | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_data = {name: msgspec.json.Decoder(data).decode for name, data in CATALOGUE.items()}


def encode(event: Event) -> bytes:
    return msgspec.json.encode(
        _Envelope(
            specversion="1.0",
            id=event.id,
            source=event.source,
            type=event.type,
            subject=event.subject,
            time=event.time,
            datacontenttype="application/json",
            data=msgspec.Raw(msgspec.json.encode(event.data)),
        )
    )


def decode(body: bytes | msgspec.Raw, *, received: datetime, checked: bool = False) -> Event:
    """The event in these bytes; `received` stands in for a `time` that is not given.

    `checked`: we wrote it ourselves, so what it holds was checked before. Raises Malformed for
    anything but a CloudEvent 1.0 of a known type with right data.
    """
    try:
        envelope = _decode_envelope(body)
    except msgspec.ValidationError as error:
        raise Malformed(f"Not a CloudEvent 1.0 in structured JSON: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"Not JSON: {error}") from error
    if envelope.specversion != "1.0":
        raise Malformed(f"specversion must be 1.0, not {envelope.specversion!r}")
    if envelope.type not in CATALOGUE:
        raise Malformed(
            f"Unknown event type {envelope.type!r}; known are {', '.join(sorted(CATALOGUE))}"
        )
    return Event(
        id=envelope.id,
        source=envelope.source,
        subject=envelope.subject or "",
        time=_in_utc(envelope.time, received),
        data=parse_data(envelope.type, envelope.data, checked=checked),
    )


def encode_batch(encoded: Sequence[bytes]) -> bytes:
    """Several events in CloudEvents' JSON batch format, in order."""
    return b"[" + b",".join(encoded) + b"]"


def split_batch(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    """The events of a batch, each as it was encoded; anything else is taken for a single one."""
    if not body.startswith(b"["):
        return [body]
    try:
        return _decode_batch(body)
    except (msgspec.DecodeError, RecursionError):
        return [body]


def parse_data(type_: str, data: bytes | msgspec.Raw, *, checked: bool = False) -> Data:
    """The data of an event of this type, a key of CATALOGUE. Raises Malformed."""
    try:
        parsed: Data = _decode_data[type_](data)
        if not checked:
            check_content(msgspec.to_builtins(parsed))
            _check_instants(parsed)
    except (msgspec.MsgspecError, ContentRefused, UnicodeError, RecursionError) as error:
        raise Malformed(f"Wrong data for {type_}: {error}") from error
    return parsed


def _check_instants(data: Data) -> None:
    for name in data.__struct_fields__:
        value = getattr(data, name)
        if isinstance(value, datetime):
            _in_utc(value, value)


def _in_utc(time: datetime | None, received: datetime) -> datetime:
    if time is None:
        return received
    if time.tzinfo is None:
        raise Malformed("time must have a zone: 2026-01-31T12:00:00Z")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise Malformed(f"{time} lies beyond the calendar") from error
