"""What notifications said before they were revised: the last few states of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Self

from beanie import Document, PydanticObjectId
from bson import ObjectId
from pymongo import DeleteMany, IndexModel, InsertOne

from services.notifications.drafts import Key
from services.shared.store import Row, Session
from services.shared.vocabulary import NotificationType

_KEPT: Final = (
    "user_id",
    "event",
    "revision",
    "type",
    "title",
    "own_title",
    "body",
    "content",
    "sent_at",
    "expires_at",
    "decision",
)


class Revision(Document):
    """One former state of a notification; the fields are the notification's as they were."""

    notification_id: PydanticObjectId
    user_id: str
    event: str
    revision: int
    type: NotificationType
    title: str
    own_title: bool | None = None
    body: str
    content: Any
    sent_at: datetime
    expires_at: datetime | None = None
    decision: dict[str, Any]

    class Settings:
        name = "revisions"
        indexes = (
            IndexModel([("user_id", 1), ("event", 1)]),
            IndexModel([("user_id", 1), ("notification_id", 1), ("revision", -1)]),
        )

    @classmethod
    async def of_events(
        cls, keys: Sequence[Key], session: Session | None = None
    ) -> Mapping[Key, PydanticObjectId]:
        """The notifications that said once what these events told, by (user id, event key)."""
        if not keys:
            return {}
        query = {
            "user_id": {"$in": list({user_id for user_id, _ in keys})},
            "event": {"$in": list({event for _, event in keys})},
        }
        rows = cls.get_pymongo_collection().find(
            query, {"user_id": 1, "event": 1, "notification_id": 1}, session=session
        )
        return {(row["user_id"], row["event"]): row["notification_id"] async for row in rows}

    @classmethod
    async def of_event(cls, key: Key) -> Self | None:
        user_id, event = key
        return await cls.find_one({"user_id": user_id, "event": event})

    @classmethod
    async def of(cls, user_id: str, notification_id: ObjectId) -> Sequence[Self]:
        """The newest first."""
        those = cls.find({"user_id": user_id, "notification_id": notification_id})
        return await those.sort("-revision").to_list()


async def keep(former: Iterable[Row], kept: int, session: Session) -> None:
    """Keep what these notifications said, and of each no more than the last `kept` states."""
    writes: list[InsertOne[Row] | DeleteMany] = []
    for row in former:
        said = {name: row.get(name) for name in _KEPT}
        writes.append(InsertOne({"_id": ObjectId(), "notification_id": row["_id"], **said}))
        if (too_old := row["revision"] - kept) > 0:
            of_it = {"user_id": row["user_id"], "notification_id": row["_id"]}
            writes.append(DeleteMany(of_it | {"revision": {"$lte": too_old}}))
    if writes:
        await Revision.get_pymongo_collection().bulk_write(writes, session=session)


MODELS: list[type[Document]] = [Revision]
