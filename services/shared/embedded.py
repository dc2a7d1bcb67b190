"""The embedded bus: queues that are collections of the database, for one process.

Nothing to install, and durable as the database is. A message is a row that goes when it is done;
a queue has one consumer, in this process, and so needs no locks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from beanie import Document
from pymongo import IndexModel, UpdateOne

from services.shared.bus import Ack, Dead, DeadLetter, Delivery, LiveFeed, Retry, Verdict
from services.shared.clock import Clock
from services.shared.events import QUEUES, Event, encode
from services.shared.settings import Settings
from services.shared.store import Store
from services.shared.tasks import end_if_cancelled
from services.shared.worker import when_back


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
    """A message that was given up."""

    queue: str
    body: bytes
    reason: str
    first_seen: datetime

    class Settings:
        name = "embedded_dead_letters"


MODELS: list[type[Document]] = [QueuedMessage, BuriedMessage]


class EmbeddedBus:
    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._listeners: set[Callable[[Event], None]] = set()

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
        yield _EmbeddedSubscription(
            self._store, queue, self._arrivals[queue], self._clock, self._settings
        )

    @asynccontextmanager
    async def live(
        self, on_event: Callable[[Event], None], on_gap: Callable[[], None]
    ) -> AsyncIterator[LiveFeed]:
        self._listeners.add(on_event)
        try:
            yield _EverybodysFeed()
        finally:
            self._listeners.discard(on_event)

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        buried = await BuriedMessage.find_all().sort("_id").limit(limit).to_list()
        return [DeadLetter(one.queue, one.body, one.reason, one.first_seen) for one in buried]

    async def ping(self) -> None:
        await self._store.ping()

    async def _enqueue(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            await QueuedMessage.get_pymongo_collection().insert_many(rows)
        for row in rows:
            self._arrivals[row["queue"]].set()


class _EverybodysFeed:
    """In one process every live event is at hand: dispatching picks those that are looked at."""

    async def watch(self, user_id: str) -> None:
        return

    async def unwatch(self, user_id: str) -> None:
        return


class _EmbeddedSubscription:
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
        due = {"queue": self._queue, "due_at": {"$lte": self._clock.now()}}
        found = QueuedMessage.find(due).sort("due_at", "_id").limit(self._settings.batch_size)
        return await found.to_list()

    async def _settle(self, settled: Sequence[tuple[Delivery, Verdict]]) -> None:
        done: list[object] = []
        delayed: list[UpdateOne] = []
        buried: list[dict[str, Any]] = []
        now = self._clock.now()
        for delivery, verdict in settled:
            message = delivery.receipt
            assert isinstance(message, QueuedMessage)
            match verdict:
                case Ack():
                    done.append(message.id)
                case Retry(wait, _):
                    later = {
                        "due_at": now + timedelta(seconds=wait),
                        "failures": message.failures + 1,
                    }
                    delayed.append(UpdateOne({"_id": message.id}, {"$set": later}))
                case Dead(reason):
                    done.append(message.id)
                    buried.append(
                        {
                            "_id": message.id,
                            "queue": message.queue,
                            "body": message.body,
                            "reason": reason,
                            "first_seen": message.first_seen,
                        }
                    )
        queued = QueuedMessage.get_pymongo_collection()
        if buried:
            await BuriedMessage.get_pymongo_collection().bulk_write(
                [UpdateOne({"_id": row["_id"]}, {"$set": row}, upsert=True) for row in buried]
            )
        if delayed:
            await queued.bulk_write(delayed)
        if done:
            await queued.delete_many({"_id": {"$in": done}})

    async def _until_arrival(self) -> None:
        try:
            async with asyncio.timeout(self._settings.outbox_poll_seconds):
                await self._arrival.wait()
        except TimeoutError:
            return
