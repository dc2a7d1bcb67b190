"""The schedules: when to publish what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from beanie import Document
from bson import ObjectId
from pymongo import IndexModel

from services.shared.store import Session

_SHOWN: Final = ("_id", "name", "cron", "timezone", "event", "next_fire_at")


class Due(NamedTuple):
    """A schedule whose fire has come: thousands are read at once."""

    id: ObjectId
    name: str
    cron: str
    timezone: str
    event: dict[str, Any]
    next_fire_at: datetime


class Schedule(Document):
    """Publish `event` ({"type": …, "data": …}) whenever `cron` fires in `timezone`.

    `next_fire_at` is the fire that comes next, also while it is paused.
    """

    name: str
    cron: str
    timezone: str
    event: dict[str, Any]
    paused: bool = False
    next_fire_at: datetime
    last_fired_at: datetime | None = None

    class Settings:
        name = "schedules"
        indexes = (
            IndexModel([("paused", 1), ("next_fire_at", 1)]),
            IndexModel([("name", 1)], unique=True),
        )

    @classmethod
    async def by_id(cls, schedule_id: str) -> Self | None:
        if not ObjectId.is_valid(schedule_id):
            return None
        return await cls.find_one({"_id": ObjectId(schedule_id)})

    @classmethod
    async def all_by_name(cls) -> Sequence[Self]:
        return await cls.find_all().sort("name").to_list()

    @classmethod
    async def due(cls, now: datetime, limit: int) -> Sequence[Due]:
        """Those whose fire has come, the longest overdue first."""
        query = {"paused": False, "next_fire_at": {"$lte": now}}
        found = cls.get_pymongo_collection().find(
            query,
            dict.fromkeys(_SHOWN, 1),
            sort=[("next_fire_at", 1)],
            limit=limit,
            batch_size=limit,
        )
        rows = await found.to_list()
        return [Due(*(row[name] for name in _SHOWN)) for row in rows]

    @classmethod
    async def still_due(cls, found: Sequence[Due], session: Session) -> set[ObjectId]:
        """The ids of those that still wait for the same fire."""
        fires = {one.id: one.next_fire_at for one in found}
        these = {"_id": {"$in": list(fires)}, "paused": False}
        rows = await (
            cls.get_pymongo_collection()
            .find(these, {"next_fire_at": 1}, session=session, hint="_id_")
            .to_list()
        )
        return {row["_id"] for row in rows if row["next_fire_at"] == fires[row["_id"]]}


MODELS: list[type[Document]] = [Schedule]
