"""Broadcasts: one promotion for everybody in an audience; and the questions one may ask of them.

A broadcast has two stages that overlap. Its recipients are found, part by part, up to a checkpoint;
what is found waits in chunks, and `total` counts it. Chunks are handed to workers, and counted when
they are done. So a crash anywhere costs one part or one chunk, which is done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Self

from beanie import Document, PydanticObjectId
from bson import ObjectId
from pymongo import IndexModel

from services.notifications.drafts import Offer, gist
from services.shared.events import SOURCE, PromotionAnnounced
from services.shared.store import Row, Session
from services.shared.vocabulary import BroadcastState
from services.users.models import object_id

OPEN: Final = {"is_open": True}
_IN_HAND: Final = {"in_hand": True}
UNTOUCHED: Final = {"in_hand": False, "begun": {"$ne": True}}
GOES_ON: Final = (BroadcastState.RUNNING.value, BroadcastState.PAUSED.value)


class Broadcast(Document):
    """What goes out to whom. `source` names who asked: dedupKey is its own.

    `started_at`: who had registered then is meant, and what they had done. `checkpoint`: the last
    user of whom is known whether they are; `plan_at`: when a worker looks at the next ones, None
    when all are found; `plan_size`: among how many users, where that is not FAN_OUT_SIZE.
    `send_at`: when the next chunk may be handed out, and `handed_out` how many were. `is_open`:
    there is something left to do, if only to put chunks away.
    """

    source: str
    title: str
    body: str
    audience: dict[str, Any]
    started_at: datetime
    per_second: int | None = None
    expires_at: datetime | None = None
    dedup_key: str | None = None
    state: BroadcastState = BroadcastState.RUNNING
    is_open: bool = True
    checkpoint: str | None = None
    plan_at: datetime | None = None
    plan_size: int | None = None
    send_at: datetime
    handed_out: int = 0
    total: int = 0
    sent: int = 0
    held: int = 0
    suppressed: int = 0
    failed: int = 0
    forget_at: datetime | None = None

    class Settings:
        name = "broadcasts"
        indexes = (
            IndexModel([("is_open", 1), ("state", 1)], partialFilterExpression=OPEN),
            IndexModel(
                [("source", 1), ("dedup_key", 1)],
                unique=True,
                partialFilterExpression={"dedup_key": {"$exists": True}},
            ),
            IndexModel([("forget_at", 1)], expireAfterSeconds=0),
        )

    @property
    def promotion(self) -> PromotionAnnounced:
        return PromotionAnnounced(title=self.title, body=self.body, expires_at=self.expires_at)

    @property
    def recipients(self) -> int | None:
        """How many it has; None while they are being found."""
        return self.total if self.plan_at is None else None

    @property
    def progress(self) -> tuple[object, ...]:
        """What a reader sees change."""
        return (self.state, self.recipients, self.sent, self.held, self.suppressed, self.failed)

    @property
    def offer(self) -> Offer:
        """What it says, to be drafted for each of its recipients."""
        return Offer(event_of(self.id), self.promotion)

    def row(self) -> Row:
        """As it is stored: without what is not given, which partial indexes leave out."""
        given: Row = self.model_dump(exclude_none=True, exclude={"id", "revision_id"})
        return {"_id": self.id} | given

    def says_the_same(self, other: Self) -> bool:
        """Whether both were asked for in the same words."""

        def said(one: Self) -> bytes:
            return gist(one.title, one.body, one.audience, one.per_second, one.expires_at)

        return said(self) == said(other)

    @classmethod
    async def by_id(cls, id: str) -> Self | None:
        key = object_id(id)
        return await cls.get(key) if key else None

    @classmethod
    async def by_dedup_key(cls, source: str, key: str) -> Self | None:
        return await cls.find_one({"source": source, "dedup_key": key})

    @classmethod
    async def page(cls, after: ObjectId | None, limit: int) -> Sequence[Self]:
        """The newest first; `after`: only older than that one."""
        older = {"_id": {"$lt": after}} if after else {}
        return await cls.find(older).sort("-_id").limit(limit).to_list() if limit else []

    @classmethod
    async def count_going_on(cls) -> int:
        return await cls.find({**OPEN, "state": {"$in": GOES_ON}}).count()

    @classmethod
    async def to_plan(cls, now: datetime) -> Sequence[Row]:
        """Those whose next recipients nobody is looking for."""
        there = {**OPEN, "state": {"$in": GOES_ON}, "plan_at": {"$lte": now}}
        return await cls.get_pymongo_collection().find(there).to_list()

    @classmethod
    async def to_send(cls, now: datetime) -> Sequence[Row]:
        """Those of which a chunk may be handed out, those with a rate first."""
        there = {**OPEN, "state": BroadcastState.RUNNING.value, "send_at": {"$lte": now}}
        return await cls.get_pymongo_collection().find(there).sort("per_second", -1).to_list()

    @classmethod
    async def to_put_away(cls) -> Sequence[PydanticObjectId]:
        """The ids of those that were cancelled and may have chunks left."""
        there = {**OPEN, "state": BroadcastState.CANCELLED.value}
        rows = cls.get_pymongo_collection().find(there, {"_id": 1})
        return [PydanticObjectId(row["_id"]) async for row in rows]


class Chunk(Document):
    """Some recipients of a broadcast who are not yet counted as served.

    `due_at`: when a worker may take it, which is later while one has it in hand. `begun`: one had,
    so some may have been served. `tries`: how often it was tried to serve them.
    """

    broadcast_id: PydanticObjectId
    user_ids: list[str]
    due_at: datetime
    in_hand: bool = False
    begun: bool = False
    tries: int = 0

    class Settings:
        name = "broadcast_chunks"
        indexes = (
            IndexModel([("broadcast_id", 1), ("in_hand", 1), ("due_at", 1)]),
            IndexModel([("due_at", 1)], partialFilterExpression=_IN_HAND),
        )

    @classmethod
    async def next_of(
        cls, broadcast_id: PydanticObjectId | None, now: datetime, session: Session
    ) -> Row | None:
        """The one of this broadcast that has waited for longest, of those that nobody has."""
        due = {"broadcast_id": broadcast_id, "in_hand": False, "due_at": {"$lte": now}}
        found: Row | None = await cls.get_pymongo_collection().find_one(
            due, session=session, sort=[("due_at", 1)]
        )
        return found

    @classmethod
    async def untouched(cls, broadcast_id: PydanticObjectId, limit: int) -> list[ObjectId]:
        """The ids of some that nobody ever had in hand."""
        there = {"broadcast_id": broadcast_id, **UNTOUCHED}
        rows = cls.get_pymongo_collection().find(there, {"_id": 1}).limit(limit)
        return [row["_id"] async for row in rows]

    @classmethod
    async def begun_of(cls, broadcast_id: PydanticObjectId, now: datetime) -> Row | None:
        """One that somebody had in hand, and that nobody has now."""
        left = {"$or": [{"in_hand": False}, {"due_at": {"$lte": now}}]}
        there = {"broadcast_id": broadcast_id, "begun": True, **left}
        found: Row | None = await cls.get_pymongo_collection().find_one(there)
        return found

    @classmethod
    async def any_of(cls, broadcast_id: PydanticObjectId | None) -> bool:
        return await cls.find_one({"broadcast_id": broadcast_id}) is not None


def event_of(id: PydanticObjectId | None) -> str:
    """The key of what its notifications are of."""
    return f"{SOURCE} broadcast/{id}"


MODELS: list[type[Document]] = [Broadcast, Chunk]
