"""The notifications that one transaction adds and revises, as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from bson import ObjectId
from pymongo import InsertOne, UpdateOne

from services.notifications import revisions
from services.notifications.collapse import Rank, Thing
from services.notifications.drafts import Draft, Key
from services.notifications.models import Notification, size_of
from services.notifications.revisions import Revision
from services.shared.store import Row, Session


class Shelf:
    """Several states of one thing in a batch are one write, of the newest; the others are kept as
    its former states."""

    def __init__(
        self, shown: Mapping[Thing, Row], told_before: Mapping[Key, ObjectId], now: datetime
    ) -> None:
        self._shown = dict(shown)
        self._told_before = told_before
        self._now = now
        self._there = {row["_id"] for row in shown.values()}
        self._put: dict[Key, Row] = {}
        self._written: dict[ObjectId, Row] = {}
        self._former: list[Row] = []

    @classmethod
    async def of(cls, drafts: Sequence[Draft], now: datetime, session: Session) -> Self:
        """With what is shown of the things that these are states of. What was not revised told
        nothing before."""
        shown = await Notification.collapsed([d.thing for d in drafts if d.thing], session)
        revised = {thing for thing, row in shown.items() if row.get("revision", 1) > 1}
        again = [draft.key for draft in drafts if draft.thing in revised]
        return cls(shown, await Revision.of_events(again, session), now)

    @property
    def size(self) -> int:
        """Bytes of what is shown, nearly."""
        return sum(map(size_of, self._shown.values()))

    def shown(self, draft: Draft) -> Row | None:
        """What is shown of the same thing."""
        return self._shown.get(draft.thing) if draft.thing else None

    def told_rank(self, draft: Draft) -> Rank | None:
        row = self.shown(draft)
        return Rank(*row["rank"]) if row else None

    def has_told(self, draft: Draft) -> bool:
        """Whether its event is told, or was before another state was."""
        row = self.shown(draft)
        return draft.key in self._told_before or (row is not None and row["event"] == draft.event)

    def put(self, draft: Draft, decision: dict[str, Any]) -> None:
        """Have it stored as new, or instead of what is shown of the same thing."""
        current = self.shown(draft)
        if current is None:
            row = draft.row(self._now, decision)
        else:
            row = draft.revision_of(current, self._now, decision)
            self._former.append(current)
        if draft.thing:
            self._shown[draft.thing] = row
        self._put[draft.key] = self._written[row["_id"]] = row

    def row(self, draft: Draft) -> Row | None:
        """What it has become, or what is shown of the same thing."""
        return self.shown(draft) if draft.thing else self._put.get(draft.key)

    async def write(self, session: Session, kept: int) -> None:
        """Write what was put. `kept`: how many former states of each notification are."""
        writes = [
            UpdateOne({"_id": id, "user_id": row["user_id"]}, {"$set": row})
            if id in self._there
            else InsertOne(row)
            for id, row in self._written.items()
        ]
        if writes:
            await Notification.get_pymongo_collection().bulk_write(
                writes, ordered=False, session=session
            )
            await revisions.keep(self._former, kept, session)
