"""How often something may be tried, counted in the database: by all processes together.

The generic cell rate algorithm: a key's row holds the instant up to which its allowance is spent.
Each attempt moves it on by one interval; one that would move it too far ahead of now is refused,
and costs nothing. So a burst of `count` is allowed, then one an interval, and nobody is ever locked
out for longer than that.

https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from beanie import Document
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from services.shared.clock import Clock
from services.shared.errors import RateLimited


class Allowance(Document):
    """`id` is what is counted. A row of the past says what no row says: nothing is spent."""

    id: str  # type: ignore[assignment] # a document's id is an ObjectId by default
    spent_until: datetime

    class Settings:
        name = "allowances"
        indexes = (IndexModel([("spent_until", 1)], expireAfterSeconds=0),)


MODELS: list[type[Document]] = [Allowance]


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` at once, and as many in each `period` after that."""

    name: str
    count: int
    period: timedelta

    @property
    def interval(self) -> timedelta:
        return self.period / self.count


class Throttle:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def spend(self, rate: Rate, who: str) -> None:
        """Count an attempt before it is made. Raises RateLimited, and then counts nothing."""
        now = self._clock.now()
        latest = now + rate.period - rate.interval
        spent = {"$max": ["$spent_until", now]}
        update = {
            "$cond": [
                {"$gt": [spent, latest]},
                "$spent_until",
                {"$add": [spent, _milliseconds(rate.interval)]},
            ]
        }
        before = await self._update(rate, who, update, upsert=True)
        if before is not None and before > latest:
            raise RateLimited((before - latest).total_seconds())

    async def give_back(self, rate: Rate, who: str) -> None:
        """Undo one attempt: it was none of those that are counted."""
        update = {"$subtract": ["$spent_until", _milliseconds(rate.interval)]}
        await self._update(rate, who, update, upsert=False)

    async def forget(self, rate: Rate, who: str) -> None:
        """Count anew, as if nothing had been tried."""
        await Allowance.get_pymongo_collection().delete_one({"_id": f"{rate.name} {who}"})

    async def _update(self, rate: Rate, who: str, update: Any, *, upsert: bool) -> datetime | None:
        """Until when it was spent before."""
        allowances = Allowance.get_pymongo_collection()
        query, change = {"_id": f"{rate.name} {who}"}, [{"$set": {"spent_until": update}}]
        try:
            row = await allowances.find_one_and_update(query, change, upsert=upsert)
        except DuplicateKeyError:  # another process was the first to write it, just now
            row = await allowances.find_one_and_update(query, change)
        return row["spent_until"] if row else None


def _milliseconds(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)
