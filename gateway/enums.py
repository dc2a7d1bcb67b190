"""The vocabulary as GraphQL enums. Import them from here, so that they are described before use."""

import strawberry

from services.notifications.personalize import Rule as DecisionRule
from services.shared.vocabulary import (
    ActivityKind,
    BroadcastState,
    CancelOutcome,
    ChangeKind,
    Channel,
    DeliveryState,
    MessageClass,
    NotificationType,
    Outcome,
    QuietAction,
    Role,
    ScheduledState,
    ScheduleOutcome,
    Scope,
    Weekday,
)

__all__ = [
    "ActivityKind",
    "BroadcastState",
    "CancelOutcome",
    "ChangeKind",
    "Channel",
    "DecisionRule",
    "DeliveryState",
    "MessageClass",
    "NotificationType",
    "Outcome",
    "QuietAction",
    "Role",
    "ScheduleOutcome",
    "ScheduledState",
    "Scope",
    "Weekday",
]

strawberry.enum(Role, description="What somebody may do.")
strawberry.enum(Scope, description="What an API key may do.")
strawberry.enum(NotificationType, description="What a notification is about; users choose by it.")
strawberry.enum(Channel, description="A way to a user. Delivery is in-app today.")
strawberry.enum(ActivityKind, description="What a user did with a product.")
strawberry.enum(ChangeKind, description="What happened to a notification.")
strawberry.enum(MessageClass, description="How much the user's choices count for it.")
strawberry.enum(DecisionRule, name="DecisionRule", description="What is asked in a decision.")
strawberry.enum(
    DeliveryState,
    description="Where something stands that goes out on another channel than the app. HELD: it is "
    "decided anew later. READY: decided, and to be sent. DIGESTED: it goes out in one with others.",
)
strawberry.enum(Outcome, description="What was decided about a notification.")
strawberry.enum(ScheduledState, description="Where a scheduled notification stands.")
strawberry.enum(ScheduleOutcome, description="What became of a notification to be scheduled.")
strawberry.enum(CancelOutcome, description="Whether a cancel came before the sending.")
strawberry.enum(
    BroadcastState,
    description="Where a broadcast stands. CANCELLED: what went out before stays out. DONE: every "
    "recipient is counted.",
)
strawberry.enum(Weekday, description="A day of the week, on the user's own calendar.")
strawberry.enum(
    QuietAction,
    description="What happens to what falls into quiet hours. DEFER: at their end it is decided "
    "anew. DROP: it is not sent on that channel.",
)
