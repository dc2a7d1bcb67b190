"""What notifications said before they were revised.

Of each the last few states are kept as they were. Of older ones only that they were told, and what
they said in short: an event or a dedupKey that comes again is known for as long as others are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Self

from beanie import Document, PydanticObjectId
from bson import ObjectId
from pymongo import IndexModel, InsertOne, UpdateMany

from services.notifications.drafts import Key
from services.shared.store import Row, Session
from services.shared.vocabulary import NotificationType

_ALWAYS: Final = ("user_id", "event", "revision", "type", "said", "sent_at", "expires_at")
_WHILE_KEPT: Final = ("title", "body", "content", "decision")
_KEPT: Final = {"body": {"$exists": True}}


class Revision(Document):
    """One former state of a notification; the fields are the notification's as they were.

    `body` and what stands below it are there while it is one of the last few.
    """

    notification_id: PydanticObjectId
    user_id: str
    event: str
    revision: int
    type: NotificationType
    said: bytes
    sent_at: datetime
    expires_at: datetime | None = None
    body: str = ""
    title: str = ""
    content: Any = None
    decision: dict[str, Any] | None = None

    class Settings:
        name = "revisions"
        indexes = (
            IndexModel([("user_id", 1), ("event", 1)]),
            IndexModel(
                [("user_id", 1), ("notification_id", 1), ("revision", -1)],
                partialFilterExpression=_KEPT,
            ),
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
    async def of(cls, user_id: str, notification_id: ObjectId, limit: int) -> Sequence[Self]:
        """Those that are kept, the newest first."""
        those = {"user_id": user_id, "notification_id": notification_id, **_KEPT}
        return await cls.find(those).sort("-revision").limit(limit).to_list()


async def keep(former: Iterable[Row], kept: int, session: Session) -> None:
    """Keep what these notifications said, and of each no more than the last `kept` states."""
    writes: list[InsertOne[Row] | UpdateMany] = []
    for row in former:
        said = {name: row[name] for name in (*_ALWAYS, *_WHILE_KEPT)}
        writes.append(InsertOne({"_id": ObjectId(), "notification_id": row["_id"], **said}))
        if (too_old := row["revision"] - kept) > 0:
            of_it = {"user_id": row["user_id"], "notification_id": row["_id"], **_KEPT}
            forgotten = {"$unset": dict.fromkeys(_WHILE_KEPT, 1)}
            writes.append(UpdateMany(of_it | {"revision": {"$lte": too_old}}, forgotten))
    if writes:
        # All of one kind is one question, and what is added comes first.
        await Revision.get_pymongo_collection().bulk_write(writes, ordered=False, session=session)


MODELS: list[type[Document]] = [Revision]
