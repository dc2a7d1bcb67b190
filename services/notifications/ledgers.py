"""What marketing users got lately on channels that are capped: one ledger for each.

Who sends reads the user's ledger and writes it in one transaction, together with what is sent. Two
that do so at once both change the same row, so one of them begins anew and sees what the other has
spent.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import datetime, timedelta
from typing import Any, Self

from beanie import Document
from pymongo import IndexModel, UpdateOne

from services.notifications.caps import Allowance, Spent
from services.shared.store import Session
from services.shared.vocabulary import Channel

Unit = tuple[str, Channel]  # of what is spent: the event's key, and on which channel it went out


class CapLedger(Document):
    """The id is the user's. `spent` holds what still counts, which the caps themselves bound."""

    id: str  # type: ignore[assignment]
    spent: list[dict[str, Any]]
    forget_at: datetime

    class Settings:
        name = "cap_ledgers"
        indexes = (IndexModel([("forget_at", 1)], expireAfterSeconds=0),)


class Ledgers:
    """Of some users, in one transaction."""

    def __init__(self, spent: dict[str, list[Spent]]) -> None:
        self._spent = spent
        self._changed: set[str] = set()

    @classmethod
    async def of(cls, user_ids: Iterable[str], session: Session | None = None) -> Self:
        if not (ids := list(set(user_ids))):
            return cls({})
        rows = CapLedger.get_pymongo_collection().find({"_id": {"$in": ids}}, session=session)
        return cls({row["_id"]: [_spent(one) for one in row["spent"]] async for row in rows})

    def spent(self, user_id: str, besides: Container[Unit] = ()) -> tuple[Spent, ...]:
        return tuple(
            one for one in self._spent.get(user_id, ()) if (one.event, one.channel) not in besides
        )

    def spend(self, user_id: str, one: Spent) -> None:
        """Once for an event and a channel, however often."""
        entries = self._spent.setdefault(user_id, [])
        if (one.event, one.channel) not in {(other.event, other.channel) for other in entries}:
            entries.append(one)
            self._changed.add(user_id)

    def give_back(self, user_id: str, unit: Unit) -> None:
        """If it was spent."""
        left = list(self.spent(user_id, {unit}))
        if len(left) < len(self._spent.get(user_id, ())):
            self._spent[user_id] = left
            self._changed.add(user_id)

    async def write(self, allowance: Allowance, now: datetime, session: Session) -> None:
        """What was spent and given back; what no longer counts is forgotten."""
        longest = max((cap.window for cap in allowance.caps), default=timedelta())
        writes = []
        for user_id in sorted(self._changed):
            counting = [one for one in self._spent[user_id] if allowance.counts(one, now)]
            kept = {"spent": [one._asdict() for one in counting], "forget_at": now + 2 * longest}
            writes.append(UpdateOne({"_id": user_id}, {"$set": kept}, upsert=True))
        if writes:
            await CapLedger.get_pymongo_collection().bulk_write(writes, session=session)


def _spent(row: dict[str, Any]) -> Spent:
    return Spent(row["event"], Channel(row["channel"]), row["at"])


MODELS: list[type[Document]] = [CapLedger]
