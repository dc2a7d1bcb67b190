"""The limit of `events`: from RabbitMQ into MongoDB, and nothing between.

It stores the documents that Tidings stores of the same events, with the same indexes, and asks
nobody anything: no event is looked up, no user read, no text worded, no screen told.
Environment: MONGODB_URL, MONGODB_DATABASE (with Tidings' indexes), RABBITMQ_URL, QUEUE, COUNT.
Prints `ready` when it is connected, and `done <seconds>` when COUNT events are stored and acked.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aio_pika
import msgspec
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from bson import ObjectId
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection

from bench.limits.ready import say_ready

BATCH: Final = 500
SECONDS: Final = 0.02
TITLE: Final = "Order 1234567890 is on its way"
BODY: Final = "Your parcel has left our warehouse."
RULES: Final = ["expiry", "collapse", "critical", "lock"]

_decode = msgspec.json.Decoder().decode


async def main() -> None:
    count = int(os.environ["COUNT"])
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(os.environ["MONGODB_URL"])
    database = client[os.environ["MONGODB_DATABASE"]]
    bare = database.get_collection("bare", write_concern=WriteConcern("majority"))
    await like(database["notifications"], bare)
    connection = await aio_pika.connect(os.environ["RABBITMQ_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=4 * BATCH)
    queue = await channel.get_queue(os.environ["QUEUE"], ensure=False)
    say_ready()
    began = time.monotonic()
    await store(queue, bare, count)
    print(f"done {time.monotonic() - began:.3f}", flush=True)
    await connection.close()
    await client.close()


async def like(
    model: AsyncCollection[dict[str, Any]], made: AsyncCollection[dict[str, Any]]
) -> None:
    """An empty collection with the indexes of another one."""
    await made.drop()
    for name, index in (await model.index_information()).items():
        if name != "_id_":
            index.pop("v")
            await made.create_index(index.pop("key"), name=name, **index)


async def store(
    queue: aio_pika.abc.AbstractQueue, into: AsyncCollection[dict[str, Any]], count: int
) -> None:
    waiting: deque[AbstractIncomingMessage] = deque()
    arrived = asyncio.Event()

    async def arrive(message: AbstractIncomingMessage) -> None:
        waiting.append(message)
        arrived.set()

    await queue.consume(arrive)
    storing: asyncio.Task[None] | None = None
    while count:
        arrived.clear()
        if not waiting:
            await arrived.wait()
        if len(waiting) < min(BATCH, count):
            await asyncio.sleep(SECONDS)
        batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
        rows = documents(batch)  # while the former batch is stored
        if storing is not None:
            await storing
        storing = asyncio.create_task(stored(into, rows, batch[-1]))
        count -= len(batch)
    if storing is not None:
        await storing


async def stored(
    into: AsyncCollection[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    last: AbstractIncomingMessage,
) -> None:
    await into.insert_many(rows, ordered=False)
    await last.ack(multiple=True)


def documents(messages: Sequence[AbstractIncomingMessage]) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [document(_decode(message.body), now) for message in messages]


def document(event: dict[str, Any], now: datetime) -> dict[str, Any]:
    """As Tidings stores it."""
    data, key = event["data"], f"{event['source']} {event['id']}"
    user_id = data["userId"]
    return {
        "_id": ObjectId(),
        "user_id": user_id,
        "event": key,
        "type": "order_update",
        "title": TITLE,
        "own_title": False,
        "body": BODY,
        "content": {
            "orderId": data["orderId"],
            "status": data["status"],
            "version": data["version"],
            "details": data["details"],
        },
        "sent_at": now,
        "expires_at": None,
        "read": False,
        "read_at": None,
        "seen": False,
        "archived": False,
        "snoozed_until": None,
        "product_ids": [],
        "decision": {
            "class": "transactional",
            "channel": "in_app",
            "outcome": "sent",
            "reason": "locked_channel",
            "until": None,
            "asked": RULES,
            "preferences_version": 0,
            "at": now,
        },
        "revision": 1,
        "thing": f"{user_id} order_update order:{data['orderId']}",
        "rank": [True, data["version"], now, key],
        "said": b"sixteen bytes so",
    }


if __name__ == "__main__":
    uvloop.run(main())
