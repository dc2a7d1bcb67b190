"""The limit of `broadcast`: the same documents, inserted as fast as the driver does it.

It finds the users, makes each its notification and inserts a thousand at a time with the majority's
word: nothing is decided, worded, deduplicated or told.
Environment: MONGODB_URL, MONGODB_DATABASE (with users, and Tidings' indexes), SIZE.
Prints `ready` when it is connected, and `done <seconds>` when all users have theirs.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import uvloop
from bson import ObjectId
from pymongo import AsyncMongoClient, WriteConcern

from bench.limits.events import like
from bench.limits.ready import say_ready

TITLE: Final = "Summer sale"
BODY: Final = "Twenty per cent off all tents until Sunday evening."
RULES: Final = [
    "expiry",
    "collapse",
    "critical",
    "lock",
    "type",
    "channel",
    "consent",
    "quiet_hours",
    "frequency",
]


async def main() -> None:
    size = int(os.environ.get("SIZE", "1000"))
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(os.environ["MONGODB_URL"])
    database = client[os.environ["MONGODB_DATABASE"]]
    bare = database.get_collection("bare", write_concern=WriteConcern("majority"))
    await like(database["notifications"], bare)
    say_ready()
    began = time.monotonic()
    users = database["users"].find({}, {"_id": 1}, batch_size=size)
    inserting: asyncio.Task[object] | None = None
    while ids := await users.to_list(size):
        rows = [document(str(row["_id"])) for row in ids]
        if inserting is not None:
            await inserting
        inserting = asyncio.ensure_future(bare.insert_many(rows, ordered=False))
    if inserting is not None:
        await inserting
    print(f"done {time.monotonic() - began:.3f}", flush=True)
    await client.close()


def document(user_id: str) -> dict[str, Any]:
    """As Tidings stores it."""
    now = datetime.now(UTC)
    return {
        "_id": ObjectId(),
        "user_id": user_id,
        "event": "urn:tidings broadcast/6a2b8d0e4f1c3a5b7d9e0f12",
        "type": "promotion",
        "title": TITLE,
        "own_title": False,
        "body": BODY,
        "content": {"title": TITLE, "body": BODY},
        "sent_at": now,
        "expires_at": now + timedelta(days=7),
        "read": False,
        "read_at": None,
        "seen": False,
        "archived": False,
        "snoozed_until": None,
        "product_ids": [],
        "decision": {
            "class": "marketing",
            "channel": "in_app",
            "outcome": "sent",
            "reason": "ACCEPTED",
            "until": None,
            "asked": RULES,
            "preferences_version": 0,
            "at": now,
        },
        "revision": 1,
    }


if __name__ == "__main__":
    uvloop.run(main())
