"""The vocabulary as GraphQL enums. Import them from here, so that they are described before use."""

import strawberry

from services.shared.vocabulary import (
    ActivityKind,
    ChangeKind,
    Channel,
    NotificationType,
    Outcome,
    QuietAction,
    Role,
    Scope,
    Weekday,
)

__all__ = [
    "ActivityKind",
    "ChangeKind",
    "Channel",
    "NotificationType",
    "Outcome",
    "QuietAction",
    "Role",
    "Scope",
    "Weekday",
]

strawberry.enum(Role, description="What somebody may do.")
strawberry.enum(Scope, description="What an API key may do.")
strawberry.enum(NotificationType, description="What a notification is about; users choose by it.")
strawberry.enum(Channel, description="A way to a user. Delivery is in-app today.")
strawberry.enum(ActivityKind, description="What a user did with a product.")
strawberry.enum(ChangeKind, description="What happened to a notification.")
strawberry.enum(Outcome, description="What was decided about a notification.")
strawberry.enum(Weekday, description="A day of the week, on the user's own calendar.")
strawberry.enum(
    QuietAction,
    description="What happens to what falls into quiet hours. DEFER: at their end it is decided "
    "anew. DROP: it is not sent on that channel.",
)
