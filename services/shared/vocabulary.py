"""The words that services and events share. The values are what MongoDB and events hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


class Scope(StrEnum):
    """What an API key may be allowed; nothing else is ever open to one."""

    PUBLISH_ORDERS = "publish_orders"
    PUBLISH_PROMOTIONS = "publish_promotions"
    PUBLISH_PRODUCTS = "publish_products"
    CREATE_NOTIFICATIONS = "create_notifications"
    TRACK_ACTIVITY = "track_activity"
    READ_USERS = "read_users"
    TAG_USERS = "tag_users"
    MANAGE_CONSENTS = "manage_consents"


class NotificationType(StrEnum):
    ORDER_UPDATE = "order_update"
    PROMOTION = "promotion"
    RECOMMENDATION = "recommendation"


# What advertises; all else comes of what the customer ordered.
MARKETING_TYPES: Final = frozenset({NotificationType.PROMOTION, NotificationType.RECOMMENDATION})


class MessageClass(StrEnum):
    CRITICAL = "critical"
    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"


class Channel(StrEnum):
    IN_APP = "in_app"
    EMAIL = "email"
    WEB_PUSH = "web_push"
    WEBHOOK = "webhook"


class Weekday(StrEnum):
    """In the week's order: `tuple(Weekday)[date.weekday()]`."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class QuietAction(StrEnum):
    """What happens to what falls into quiet hours."""

    DEFER = "defer"
    DROP = "drop"


class ActivityKind(StrEnum):
    VIEW = "view"
    CART = "cart"
    WISHLIST = "wishlist"
    PURCHASE = "purchase"


class ChangeKind(StrEnum):
    READ = "read"
    UNREAD = "unread"
    SEEN = "seen"
    ARCHIVED = "archived"
    UNARCHIVED = "unarchived"
    SNOOZED = "snoozed"
    UNSNOOZED = "unsnoozed"
    REVISED = "revised"
    EXPIRED = "expired"


class ScheduledState(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"


class ScheduleOutcome(StrEnum):
    SCHEDULED = "scheduled"
    DUPLICATE = "duplicate"
    CANCELLED = "cancelled"


class CancelOutcome(StrEnum):
    CANCELLED = "cancelled"
    TOO_LATE = "too_late"


class BroadcastState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


class Outcome(StrEnum):
    SENT = "sent"
    HELD = "held"
    SUPPRESSED = "suppressed"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"


class OverCap(StrEnum):
    """What happens to marketing beyond a frequency cap."""

    DROP = "drop"
    DEFER = "defer"
    DIGEST = "digest"


class DeliveryState(StrEnum):
    """Where something stands that goes out on another channel than the app."""

    HELD = "held"
    READY = "ready"
    SUPPRESSED = "suppressed"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DIGESTED = "digested"
