"""The outbox: events written in the transaction of the change that they tell of, handed on later.

So a change that was committed is always told, and one that was rolled back never is. A relay runs
in every process; rows are claimed for a while, so several relays share the work, and one that
dies leaves its rows to the others. Rows of one subject go out in the order of their writing: a
relay hands a row on only when it holds all of that subject that are older.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from beanie import Document, PydanticObjectId
from bson import Timestamp
from pydantic import ConfigDict
from pymongo import IndexModel

from services.shared.bus import Bus, PartlyPublished
from services.shared.clock import Clock
from services.shared.errors import Unavailable
from services.shared.events import Event, Malformed, decode, encode
from services.shared.failpoints import Failpoint, reach
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Session, first_part
from services.shared.worker import when_back

log = get_logger()
_UNCLAIMED: Final = datetime.fromtimestamp(0, UTC)
_STAMPED_BY_THE_DATABASE: Final = Timestamp(0, 0)


class OutboxRow(Document):
    """One event that waits to be handed on, encoded. Claimed until `claimed_until` by `claim`.

    `written` is the database's own stamp, unique and rising: no clock of ours orders the rows.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    event: bytes
    subject: str
    written: Timestamp
    claimed_until: datetime = _UNCLAIMED
    claim: PydanticObjectId | None = None

    class Settings:
        name = "outbox"
        indexes = (
            IndexModel([("written", 1)]),
            IndexModel([("subject", 1), ("written", 1)]),
        )


MODELS: list[type[Document]] = [OutboxRow]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be handed on. `rows`: after a crash of the database a few more or less than
    there are. `age`: how long the oldest row has waited, whole seconds."""

    rows: int
    age: timedelta


class Outbox:
    """`put` in a transaction, `relay` in a task beside it."""

    def __init__(self, bus: Bus, clock: Clock, settings: Settings) -> None:
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._written = asyncio.Event()
        self._rows = 0
        self._batch_size = settings.outbox_batch_size

    async def put(
        self, events: Sequence[Event], session: Session, *, whatever_waits: bool = False
    ) -> None:
        """Write the events in the session's transaction. Call `wake` when it is committed.

        Raises Unavailable while more than OUTBOX_LIMIT rows wait for the broker, unless it is to be
        written whatever waits: that somebody is shut out, say.
        """
        if not whatever_waits and self._rows >= self._settings.outbox_limit:
            raise Unavailable("Too many events wait for the broker: try again in a moment.")
        rows = [
            {
                "event": encode(event),
                "subject": event.subject,
                "written": _STAMPED_BY_THE_DATABASE,
                "claimed_until": _UNCLAIMED,
            }
            for event in events
        ]
        collection = OutboxRow.get_pymongo_collection()
        if len(rows) == 1:  # as most are; it takes the driver half as long
            await collection.insert_one(rows[0], session=session)
        else:
            await collection.insert_many(rows, session=session)

    def wake(self) -> None:
        """Tell the relay of this process that there is work."""
        self._written.set()

    async def relay(self) -> None:
        """Hand rows on until cancelled; waits, with growing patience, while something is away."""
        while True:
            self._written.clear()
            if not await when_back(self._hand_on, "the outbox"):
                await self._until_written()

    async def backlog(self) -> Backlog:
        """What waits to be handed on, in all processes."""
        collection = OutboxRow.get_pymongo_collection()
        oldest = await collection.find_one({}, {"written": 1}, sort=[("written", 1)])
        if oldest is None:
            return Backlog(0, timedelta())
        age = self._clock.now() - oldest["written"].as_datetime()
        rows = await collection.estimated_document_count()  # of thousands it would read each
        return Backlog(max(rows, 1), max(age, timedelta()))

    async def _until_written(self) -> None:
        try:
            async with asyncio.timeout(self._settings.outbox_poll_seconds):
                await self._written.wait()
        except TimeoutError:
            return

    async def _hand_on(self) -> int:
        """Hand on what is free; how many rows that were."""
        self._rows = await OutboxRow.get_pymongo_collection().estimated_document_count()
        rows = await self._claim()
        late = await self._behind_others(rows)
        if late:
            soon = self._clock.now() + timedelta(seconds=self._settings.outbox_poll_seconds)
            await self._give_back(late, soon)
        behind = {row.id for row in late}
        events = {
            row.id: event for row in rows if row.id not in behind and (event := self._read(row))
        }
        if not events:
            return 0
        try:
            await self._bus.publish(list(events.values()))
        except Unavailable as error:
            # Half as many next time: a slow broker confirms a few in time where it can't all.
            self._batch_size = max(1, self._batch_size // 2)
            if isinstance(error, PartlyPublished):
                await self._forget(_done(events, error.confirmed))
            await self._give_back(rows, _UNCLAIMED)
            raise
        self._batch_size = min(self._batch_size * 2, self._settings.outbox_batch_size)
        reach(Failpoint.BEFORE_ROW_IS_DONE)
        await self._forget(events)
        return len(events)

    def _read(self, row: OutboxRow) -> Event | None:
        """The row's event; None, and the row stays, where another version wrote what we can't."""
        try:
            return decode(row.event, received=self._clock.now(), checked=True)
        except Malformed as error:
            log.error(
                "outbox_row_unreadable", row=str(row.id), reason=str(error).partition(": ")[0]
            )
            return None

    async def _claim(self) -> list[OutboxRow]:
        """Rows that nobody else hands on for OUTBOX_LEASE_SECONDS, in the order of writing.

        At least one, and no more than it takes for PART_BYTES.
        """
        now = self._clock.now()
        collection = OutboxRow.get_pymongo_collection()
        free = {"claimed_until": {"$lte": now}}
        ids = [
            row["_id"]
            async for row in collection.find(free, {"_id": 1})
            .sort("written")
            .limit(self._batch_size)
        ]
        if not ids:
            return []
        claim = PydanticObjectId()
        until = now + timedelta(seconds=self._settings.outbox_lease_seconds)
        mine = {"_id": {"$in": ids}}
        await collection.update_many(
            {**mine, **free}, {"$set": {"claimed_until": until, "claim": claim}}
        )
        claimed = OutboxRow.find({**mine, "claim": claim}).sort("written")
        rows, _ = await first_part(claimed, lambda row: len(row.event))
        if rows and len(rows) < len(ids):
            others = {"_id": {"$in": ids, "$nin": [row.id for row in rows]}, "claim": claim}
            await collection.update_many(others, {"$set": {"claimed_until": _UNCLAIMED}})
        return rows

    async def _behind_others(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        """Those of `rows` that have an older row of their subject before them, not among them."""
        if not rows:
            return []
        query = {
            "subject": {"$in": list({row.subject for row in rows})},
            "written": {"$lt": rows[-1].written},
            "_id": {"$nin": [row.id for row in rows]},
        }
        others = OutboxRow.get_pymongo_collection().find(query, {"subject": 1, "written": 1})
        oldest: dict[str, Any] = {}
        async for other in others:
            subject, written = other["subject"], other["written"]
            oldest[subject] = min(written, oldest.get(subject, written))
        return [row for row in rows if row.subject in oldest and row.written > oldest[row.subject]]

    async def _give_back(self, rows: Sequence[OutboxRow], until: datetime) -> None:
        """Let others have them from then on, unless one has taken them meanwhile."""
        mine = {"_id": {"$in": [row.id for row in rows]}, "claim": rows[0].claim}
        await OutboxRow.get_pymongo_collection().update_many(
            mine, {"$set": {"claimed_until": until}}
        )

    async def _forget(self, ids: Iterable[PydanticObjectId | None]) -> None:
        await OutboxRow.get_pymongo_collection().delete_many({"_id": {"$in": list(ids)}})


def _done(
    events: Mapping[PydanticObjectId | None, Event], confirmed: Container[int]
) -> list[PydanticObjectId | None]:
    """The rows that were confirmed and have none before them, of their subject, that was not."""
    done: list[PydanticObjectId | None] = []
    stuck: set[str] = set()
    for position, (id, event) in enumerate(events.items()):
        if position in confirmed and event.subject not in stuck:
            done.append(id)
        else:
            stuck.add(event.subject)
    return done
