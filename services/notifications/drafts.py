"""A notification before it is stored, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from bson import ObjectId

from services.notifications.models import Notification
from services.notifications.personalize import Decision
from services.notifications.recommend import Recommendation
from services.notifications.templates import Text, recommendation_text
from services.shared.content import json_size
from services.shared.vocabulary import NotificationType

Lives = Mapping[NotificationType, timedelta]  # of types whose notifications expire by themselves
Key = tuple[str, str]  # of a notification: its user's id, its event's key


@dataclass(frozen=True, slots=True)
class Draft:
    """A notification that is wanted for a user, before it is decided. `event`: the event's key.
    `expires_at`: None for what its type has."""

    user_id: str
    event: str
    type: NotificationType
    text: Text
    content: Any
    expires_at: datetime | None = None
    product_ids: list[str] = field(default_factory=list)
    status: str | None = None  # of the order that it tells of

    @property
    def key(self) -> Key:
        return self.user_id, self.event

    @property
    def size(self) -> int:
        """Bytes, nearly."""
        return json_size((self.text.title, self.text.body, self.content))

    def row(self, now: datetime, lives: Lives, decision: dict[str, Any]) -> dict[str, Any]:
        """As it is stored. `decision`: see traces.py."""
        expires_at = self.expires_at
        if expires_at is None and self.type in lives:
            expires_at = now + lives[self.type]
        return {
            "_id": ObjectId(),
            "user_id": self.user_id,
            "event": self.event,
            "type": self.type.value,
            "title": self.text.title,
            "body": self.text.body,
            "content": self.content,
            "sent_at": now,
            "expires_at": expires_at,
            "read": False,
            "read_at": None,
            "archived": False,
            "product_ids": self.product_ids,
            "decision": decision,
        }

    def is_told_by(self, stored: Notification) -> bool:
        """Whether that says the same."""
        return _gist(self.type, self.text.title, self.content) == _gist(
            stored.type, stored.title, stored.content
        )


@dataclass(frozen=True, slots=True)
class Announcement:
    """What became of a draft. No notification when it was suppressed."""

    notification: Notification | None
    decision: Decision


def recommendation_draft(user_id: str, event: str, found: Sequence[Recommendation]) -> Draft:
    products = [
        {"productId": one.product_id, "name": one.name, "score": one.score, "reason": one.reason}
        for one in found
    ]
    return Draft(
        user_id=user_id,
        event=event,
        type=NotificationType.RECOMMENDATION,
        text=recommendation_text(found),
        content={"products": products},
        product_ids=[one.product_id for one in found],
    )


def _gist(*parts: object) -> bytes:
    """Equal for what is the same as JSON: 1 is not true, and the order of keys says nothing."""
    return msgspec.json.encode(parts, order="sorted")
