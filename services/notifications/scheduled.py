"""Notifications that wait for their time, and the questions one may ask of them.

A row is WAITING until one of two has turned it: the time (it is SENT, or SUPPRESSED, as is decided
then), or a cancel. Each turns it only if it still waits, so of the two one comes first, and what
they answer is true.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from beanie import Document, PydanticObjectId
from pymongo import IndexModel

from services.notifications.drafts import Asked, Draft, gist
from services.notifications.templates import Words
from services.shared.content import composed
from services.shared.events import SOURCE, OrderStatusChanged
from services.shared.store import Row, Session
from services.shared.vocabulary import NotificationType, ScheduledState

_WAITING: Final = {"state": ScheduledState.WAITING.value}


@dataclass(frozen=True, slots=True)
class CancelOn:
    """What the recipient may do that makes it needless: any of what is given.

    An order of theirs gets `order_status`, as `folded` says it; only the order `order_id`, if that
    is given. They buy `product_id`.
    """

    order_status: str | None = None
    order_id: str | None = None
    product_id: str | None = None

    def is_met_by(self, order: OrderStatusChanged) -> bool:
        """Whether the recipient's order has come to that."""
        same_status = self.order_status == folded(order.status)
        return same_status and self.order_id in (None, order.order_id)


class ScheduledNotification(Document):
    """What goes out `at` its time. `source` names who asked: cancelKey and dedupKey are its own.

    `due_at`: when a worker looks at it, which is `at`, or later while one has it in hand under
    `claim`. `forget_at`: of one that has ended.
    """

    user_id: str
    source: str
    type: NotificationType
    content: Any
    title: str | None = None
    expires_at: datetime | None = None
    at: datetime
    created_at: datetime
    state: ScheduledState
    due_at: datetime
    claim: PydanticObjectId | None = None
    dedup_key: str | None = None
    cancel_key: str | None = None
    cancel_on: CancelOn | None = None
    forget_at: datetime | None = None

    class Settings:
        name = "scheduled_notifications"
        indexes = (
            IndexModel([("due_at", 1)], partialFilterExpression=_WAITING),
            IndexModel([("user_id", 1), ("at", 1)], partialFilterExpression=_WAITING),
            IndexModel(
                [("source", 1), ("cancel_key", 1), ("state", 1)],
                partialFilterExpression={"cancel_key": {"$exists": True}},
            ),
            IndexModel(
                [("source", 1), ("user_id", 1), ("dedup_key", 1)],
                unique=True,
                partialFilterExpression={"dedup_key": {"$exists": True}},
            ),
            IndexModel([("forget_at", 1)], expireAfterSeconds=0),
        )

    def draft(self, words: Words) -> Draft:
        """The notification that it becomes; of this row there is only one."""
        asked = Asked(self.user_id, self.type, self.content, self.title, self.expires_at)
        return asked.draft(f"{SOURCE} scheduled/{self.id}", words)

    def row(self) -> Row:
        """As it is stored: without what is not given, which partial indexes leave out."""
        given: Row = self.model_dump(exclude_none=True, exclude={"id", "revision_id", "content"})
        return {"_id": self.id, "content": self.content} | given

    def says_the_same(self, other: Self) -> bool:
        """Whether both were asked for in the same words."""

        def said(one: Self) -> bytes:
            when = (one.at, one.expires_at)
            return gist(one.type, one.content, one.title, when, one.cancel_key, one.cancel_on)

        return said(self) == said(other)

    @classmethod
    async def by_dedup_key(cls, source: str, user_id: str, key: str) -> Self | None:
        return await cls.find_one({"source": source, "user_id": user_id, "dedup_key": key})

    @classmethod
    def due(cls, now: datetime, limit: int) -> AsyncIterable[Row]:
        """Those whose time has come and that nobody has in hand, the longest overdue first."""
        found = cls.get_pymongo_collection().find({"due_at": {"$lte": now}, **_WAITING})
        return found.sort("due_at").limit(limit)

    @classmethod
    async def waiting_for(cls, user_id: str, limit: int) -> Sequence[Self]:
        """The next ones that wait for this user, the soonest first."""
        waiting = cls.find({"user_id": user_id, **_WAITING}).sort("at").limit(limit)
        return await waiting.to_list() if limit else []

    @classmethod
    async def count_of_user(cls, user_id: str, most: int) -> int:
        """How many wait for this user, counted up to `most`."""
        waiting = {"user_id": user_id, **_WAITING}
        return await cls.get_pymongo_collection().count_documents(waiting, limit=most)

    @classmethod
    async def count_of_key(cls, source: str, key: str, most: int, session: Session) -> int:
        """How many wait under this cancelKey, counted up to `most`."""
        waiting = {"source": source, "cancel_key": key, **_WAITING}
        return await cls.get_pymongo_collection().count_documents(
            waiting, limit=most, session=session
        )


class CancelKey(Document):
    """A caller's cancelKey that is in use, and until when it is cancelled; the id names both.

    Who schedules under a key and who cancels it both write its row in their transactions, so that
    one of two that meet begins anew, and sees what the other did. They count their `writes`, since
    a write that changes nothing meets nobody.
    """

    id: str  # type: ignore[assignment]
    writes: int
    cancelled_until: datetime | None = None
    forget_at: datetime

    class Settings:
        name = "cancel_keys"
        indexes = (IndexModel([("forget_at", 1)], expireAfterSeconds=0),)


MODELS: list[type[Document]] = [ScheduledNotification, CancelKey]


def folded(status: str) -> str:
    """An order's status as it is compared."""
    text: str = composed(status)
    return text.lower()
