"""What clients ask."""

from __future__ import annotations

from typing import Final

_NODE: Final = (
    "id userId type title body content sentAt read readAt seen archived snoozedUntil expiresAt"
    " revision"
)
PAGE: Final = (
    "query Page($first: Int!) { notifications(first: $first) { edges { cursor node { "
    f"{_NODE}"
    " } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } unreadCount }"
)
MARK_READ: Final = f"mutation Mark($id: ID!) {{ markNotificationRead(id: $id) {{ {_NODE} }} }}"
ADDED: Final = f"subscription {{ notificationAdded {{ cursor node {{ {_NODE} }} }} }}"
