"""The outbox: events written in the transaction of the change that they tell of, handed on later.

So a change that was committed is always told, and one that was rolled back never is. A relay runs
in every process that writes; rows are claimed for a while, so several relays share the work, and
one that dies leaves its rows to the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from beanie import Document, PydanticObjectId
from pymongo import IndexModel

from services.shared.bus import Bus
from services.shared.clock import Clock
from services.shared.errors import Unavailable
from services.shared.events import Event, Malformed, decode, encode
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Session, is_away
from services.shared.tasks import end_if_cancelled

log = get_logger()
_UNCLAIMED: Final = datetime.fromtimestamp(0, UTC)


class OutboxRow(Document):
    """One event that waits to be handed on, encoded. Claimed until `claimed_until` by `claim`."""

    event: bytes
    claimed_until: datetime = _UNCLAIMED
    claim: PydanticObjectId | None = None

    class Settings:
        name = "outbox"
        indexes = (IndexModel([("claimed_until", 1), ("_id", 1)]),)


MODELS: list[type[Document]] = [OutboxRow]


class Outbox:
    """`put` in a transaction, `relay` in a task beside it."""

    def __init__(self, bus: Bus, clock: Clock, settings: Settings) -> None:
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._written = asyncio.Event()

    async def put(self, events: Sequence[Event], session: Session) -> None:
        """Write the events in the session's transaction. Call `wake` when it is committed."""
        rows = [{"event": encode(event), "claimed_until": _UNCLAIMED} for event in events]
        await OutboxRow.get_pymongo_collection().insert_many(rows, session=session)

    def wake(self) -> None:
        """Tell the relay of this process that there is work."""
        self._written.set()

    async def relay(self) -> None:
        """Hand rows on until cancelled; waits, with growing patience, while something is away."""
        wait = self._settings.outbox_poll_seconds
        while True:
            end_if_cancelled()
            self._written.clear()
            try:
                while await self._hand_on():
                    end_if_cancelled()
            except Exception as error:
                if not (is_away(error) or isinstance(error, Unavailable)):
                    raise
                log.warning("outbox_waits", error=str(error), seconds=wait)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)
                continue
            wait = self._settings.outbox_poll_seconds
            await self._until_written()

    async def backlog(self) -> int:
        """How many rows wait to be handed on."""
        return await OutboxRow.find_all().count()

    async def _until_written(self) -> None:
        try:
            async with asyncio.timeout(self._settings.outbox_poll_seconds):
                await self._written.wait()
        except TimeoutError:
            return

    async def _hand_on(self) -> bool:
        rows = await self._claim()
        if not rows:
            return False
        events = {row.id: event for row in rows if (event := self._read(row))}
        try:
            await self._bus.publish(list(events.values()))
        except Unavailable:
            await self._give_back(rows)
            raise
        await OutboxRow.get_pymongo_collection().delete_many({"_id": {"$in": list(events)}})
        return True

    def _read(self, row: OutboxRow) -> Event | None:
        """The row's event; None, and the row stays, where another version wrote what we can't."""
        try:
            return decode(row.event, received=self._clock.now(), checked=True)
        except Malformed as error:
            log.error("outbox_row_unreadable", row=str(row.id), reason=str(error))
            return None

    async def _claim(self) -> list[OutboxRow]:
        now = self._clock.now()
        collection = OutboxRow.get_pymongo_collection()
        free = {"claimed_until": {"$lte": now}}
        ids = [
            row["_id"]
            async for row in collection.find(free, {"_id": 1})
            .sort([("claimed_until", 1), ("_id", 1)])
            .limit(self._settings.outbox_batch_size)
        ]
        if not ids:
            return []
        claim = PydanticObjectId()
        until = now + timedelta(seconds=self._settings.outbox_lease_seconds)
        mine = {"_id": {"$in": ids}}
        await collection.update_many(
            {**mine, **free}, {"$set": {"claimed_until": until, "claim": claim}}
        )
        return await OutboxRow.find({**mine, "claim": claim}).sort("_id").to_list()

    async def _give_back(self, rows: Sequence[OutboxRow]) -> None:
        await OutboxRow.get_pymongo_collection().update_many(
            {"_id": {"$in": [row.id for row in rows]}}, {"$set": {"claimed_until": _UNCLAIMED}}
        )
