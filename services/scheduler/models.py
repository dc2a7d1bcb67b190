"""The schedules: when to publish what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from beanie import Document
from bson import ObjectId
from pymongo import IndexModel


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
    async def due(cls, now: datetime, limit: int) -> Sequence[Self]:
        """Those whose fire has come, the longest overdue first."""
        query = {"paused": False, "next_fire_at": {"$lte": now}}
        return await cls.find(query).sort("next_fire_at").limit(limit).to_list()


MODELS: list[type[Document]] = [Schedule]
