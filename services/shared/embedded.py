"""The embedded bus: queues that are collections of the database, for one process.

Nothing to install, and durable as the database is. A message is a row that goes when it is done;
a queue has one consumer, in the process that holds the lease, and so needs no locks.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar
from uuid import uuid4

from beanie import Document
from pymongo import IndexModel, UpdateOne

from services.shared.bus import (
    Ack,
    Dead,
    DeadLetter,
    Delivery,
    Depths,
    LiveFeed,
    PassOn,
    QueueDepth,
    Retry,
    Verdict,
    shortened,
)
from services.shared.clock import Clock
from services.shared.events import QUEUES, Event, encode
from services.shared.lease import Hold, Lease
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store, first_part, parts
from services.shared.tasks import end_if_cancelled
from services.shared.worker import when_back

T = TypeVar("T")
_BODIES_AT_ONCE: Final = 5


class QueuedMessage(Document):
    """A message that waits in `queue` until `due_at`."""

    queue: str
    body: bytes
    failures: int = 0
    first_seen: datetime
    due_at: datetime

    class Settings:
        name = "embedded_queue"
        indexes = (IndexModel([("queue", 1), ("due_at", 1), ("_id", 1)]),)


class BuriedMessage(Document):
    """A message that was given up; `letter` is the id that operators call it by."""

    letter: str
    queue: str
    body: bytes
    reason: str
    failures: int
    first_seen: datetime
    died_at: datetime

    class Settings:
        name = "embedded_dead_letters"
        indexes = (IndexModel("letter", unique=True),)

    def as_letter(self) -> DeadLetter:
        return DeadLetter(
            id=self.letter,
            queue=self.queue,
            body=self.body,
            reason=self.reason,
            failures=self.failures,
            first_seen=self.first_seen,
            died_at=self.died_at,
        )


MODELS: list[type[Document]] = [QueuedMessage, BuriedMessage, Lease]


class EmbeddedBus:
    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._listeners: set[Callable[[Event], None]] = set()
        self._consumers: Counter[str] = Counter()
        self._hold = Hold()

    async def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.data.live:
                for listener in self._listeners:
                    listener(event)
        now = self._clock.now()
        rows = [
            {
                "queue": queue,
                "body": encode(event),
                "failures": 0,
                "first_seen": now,
                "due_at": now,
            }
            for event in events
            for queue, types in QUEUES.items()
            if isinstance(event.data, types)
        ]
        await self._enqueue(rows)

    @asynccontextmanager
    async def subscribe(self, queue: str) -> AsyncIterator[_EmbeddedSubscription]:
        """Raises CannotStart where another process consumes on this database."""
        async with self._hold.held():
            self._consumers[queue] += 1
            try:
                yield _EmbeddedSubscription(
                    self._store, queue, self._arrivals[queue], self._clock, self._settings
                )
            finally:
                self._consumers[queue] -= 1

    @asynccontextmanager
    async def live(
        self, on_event: Callable[[Event], None], on_gap: Callable[[], None]
    ) -> AsyncIterator[LiveFeed]:
        self._listeners.add(on_event)
        try:
            yield _EverybodysFeed()
        finally:
            self._listeners.discard(on_event)

    async def dead_letters(self, limit: int, prefix: str = "") -> Sequence[DeadLetter]:
        named = {"letter": {"$regex": f"^{re.escape(prefix)}"}}
        buried = BuriedMessage.find(named).sort("_id").limit(limit)
        return [one.as_letter() async for one in buried]

    async def dead_letters_as(self, keep: Callable[[DeadLetter], T], limit: int) -> Sequence[T]:
        buried = BuriedMessage.find(batch_size=_BODIES_AT_ONCE).sort("_id").limit(limit)
        return [keep(one.as_letter()) async for one in buried]

    async def replay(self, id: str | None = None) -> int:
        """The process that consumes the queue looks for what is due, so it may be another."""
        ids = [id] if id is not None else [letter.id for letter in await self.dead_letters(limit=0)]
        replayed = 0
        for letter in ids:
            replayed += await self._store.transact(partial(_exhume, letter, self._clock.now()))
        return replayed

    async def discard(self, id: str | None = None) -> int:
        deleted = await BuriedMessage.get_pymongo_collection().delete_many(
            {"letter": id} if id is not None else {}
        )
        return deleted.deleted_count

    async def depths(self) -> Depths:
        now = self._clock.now()
        queued = QueuedMessage.get_pymongo_collection()

        async def depth(queue: str) -> QueueDepth:
            waiting = await queued.count_documents({"queue": queue, "due_at": {"$lte": now}})
            retrying = await queued.count_documents({"queue": queue, "due_at": {"$gt": now}})
            return QueueDepth(queue, waiting, retrying, self._consumers[queue])

        letters = await BuriedMessage.get_pymongo_collection().count_documents({})
        return Depths([await depth(queue) for queue in QUEUES], letters)

    async def ping(self) -> None:
        await self._store.ping()

    async def _enqueue(self, rows: Sequence[Row]) -> None:
        for part in parts(rows, lambda row: len(row["body"])):
            await QueuedMessage.get_pymongo_collection().insert_many(part)
            for row in part:
                self._arrivals[row["queue"]].set()


class _EverybodysFeed:
    """In one process every live event is at hand: dispatching picks those that are looked at."""

    async def watch(self, user_id: str) -> None:
        return

    def unwatch(self, user_id: str) -> None:
        return

    hears = True


class _EmbeddedSubscription:
    at_once = 1  # what is not settled is due

    def __init__(
        self, store: Store, queue: str, arrival: asyncio.Event, clock: Clock, settings: Settings
    ) -> None:
        self._store = store
        self._queue = queue
        self._arrival = arrival
        self._clock = clock
        self._settings = settings

    async def batches(self) -> AsyncIterator[Sequence[Delivery]]:
        while True:
            end_if_cancelled()
            self._arrival.clear()
            messages = await when_back(self._due, f"the queue {self._queue}")
            if messages:
                yield [
                    Delivery(message.body, message.failures, message.first_seen, message)
                    for message in messages
                ]
            else:
                await self._until_arrival()

    async def settle(self, settled: Sequence[tuple[Delivery, Verdict]]) -> None:
        await when_back(lambda: self._settle(settled), f"the queue {self._queue}")

    async def _due(self) -> list[QueuedMessage]:
        ours = {"queue": self._queue, "due_at": {"$lte": self._clock.now()}}
        messages = QueuedMessage.find(ours).sort("due_at", "_id").limit(self._settings.batch_size)
        due, _ = await first_part(messages, lambda message: len(message.body))
        return due

    async def _settle(self, settled: Sequence[tuple[Delivery, Verdict]]) -> None:
        done: list[object] = []
        kept: list[UpdateOne] = []
        buried: dict[object, UpdateOne] = {}
        now = self._clock.now()
        for delivery, verdict in settled:
            message = delivery.receipt
            assert isinstance(message, QueuedMessage)
            match verdict:
                case Ack():
                    done.append(message.id)
                case Retry(wait, _):
                    wait = shortened(wait, self._settings.retry_jitter)
                    later = {
                        "due_at": now + timedelta(seconds=wait),
                        "failures": message.failures + 1,
                    }
                    kept.append(UpdateOne({"_id": message.id}, {"$set": later}))
                case PassOn(queue):
                    kept.append(UpdateOne({"_id": message.id}, {"$set": {"queue": queue}}))
                case Dead(reason):
                    buried[message.id] = _burial(message, reason, now)
        queued = QueuedMessage.get_pymongo_collection()
        if buried:
            await self._store.transact(partial(_bury, buried))
        if kept:
            await queued.bulk_write(kept)
        if done:
            await queued.delete_many({"_id": {"$in": done}})

    async def _until_arrival(self) -> None:
        try:
            async with asyncio.timeout(self._settings.outbox_poll_seconds):
                await self._arrival.wait()
        except TimeoutError:
            return


async def _bury(burials: Mapping[object, UpdateOne], session: Session) -> None:
    """In one: a letter that is replayed between the two would be deleted with its message."""
    letters = BuriedMessage.get_pymongo_collection()
    await letters.bulk_write(list(burials.values()), session=session)
    queued = QueuedMessage.get_pymongo_collection()
    await queued.delete_many({"_id": {"$in": list(burials)}}, session=session)


def _burial(message: QueuedMessage, reason: str, now: datetime) -> UpdateOne:
    """Said twice it is one letter: the process may die before the message leaves its queue."""
    row = {
        "queue": message.queue,
        "body": message.body,
        "reason": reason,
        "failures": message.failures + 1,
        "first_seen": message.first_seen,
        "died_at": now,
    }
    named = {"$set": row, "$setOnInsert": {"letter": uuid4().hex}}
    return UpdateOne({"_id": message.id}, named, upsert=True)


async def _exhume(letter: str, now: datetime, session: Session) -> int:
    buried = BuriedMessage.get_pymongo_collection()
    found = await buried.find_one_and_delete({"letter": letter}, session=session)
    if found is None:
        return 0
    row = {
        "queue": found["queue"],
        "body": found["body"],
        "failures": 0,
        "first_seen": found["first_seen"],
        "due_at": now,
    }
    await QueuedMessage.get_pymongo_collection().update_one(
        {"_id": found["_id"]}, {"$set": row}, upsert=True, session=session
    )
    return 1
