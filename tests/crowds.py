"""Many users at once, put into the collection as registration would leave them; and broadcasts to
them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from beanie import PydanticObjectId

from services.host import MODELS, Runtime, open_runtime
from services.notifications.audience import read
from services.notifications.broadcasting import Wish
from services.notifications.broadcasts import Broadcast, Chunk
from services.notifications.models import Notification
from services.shared.clock import Clock
from services.shared.vocabulary import BroadcastState
from services.users.models import Activity, User
from tests.kit import quick_settings

AN_HOUR = timedelta(hours=1)


@asynccontextmanager
async def resting(mongodb_url: str, clock: Clock, **settings: Any) -> AsyncIterator[Runtime]:
    """A runtime in which nothing happens by itself."""
    async with open_runtime(quick_settings(mongodb_url, **settings), clock) as runtime:
        yield runtime
        await runtime.store.drop()


def person(clock: Clock, **fields: Any) -> User:
    """Somebody who registered an hour ago."""
    email = f"{uuid4().hex}@shop.example"
    values: dict[str, Any] = {
        "id": PydanticObjectId(),
        "name": "Some Body",
        "email": email,
        "email_key": email,
        "password_hash": b"",
        "locale": "en",
        "created_at": clock.now() - AN_HOUR,
    }
    return User(**(values | fields))


async def emptied(runtime: Runtime) -> Runtime:
    """The same, with nothing stored in it."""
    for model in MODELS:
        await model.get_pymongo_collection().delete_many({})
    return runtime


async def crowd(clock: Clock, count: int, **fields: Any) -> list[str]:
    """So many of them; their ids."""
    people = [person(clock, **fields) for _ in range(count)]
    await User.insert_many(people)
    return [str(one.id) for one in people]


async def did(user_id: str, kind: str, product_id: str, at: Any) -> None:
    """Something that a user did in the shop."""
    row = {"user_id": user_id, "kind": kind, "product_id": product_id, "at": at}
    await Activity.get_pymongo_collection().insert_one(row | {"event": uuid4().hex})


async def start(shop: Runtime, audience: Mapping[str, Any] | None = None, **wish: Any) -> Broadcast:
    """A broadcast to everybody in the audience, or to everybody."""
    values = {"title": "Sale", "body": "All of it"} | wish
    wanted = Wish(audience=read(audience or {}, "input.audience"), **values)
    return await shop.broadcasting.create(wanted, "urn:test")


async def found(shop: Runtime, **wish: Any) -> Broadcast:
    """One whose recipients are all found."""
    broadcast = await start(shop, **wish)
    while await shop.recipients.find():
        pass
    return broadcast


async def run(shop: Runtime) -> None:
    """Do all that is to be done now."""
    while await shop.recipients.find() + await shop.fan_out.send():
        pass


async def now(broadcast: Broadcast) -> Broadcast:
    row = await Broadcast.get(broadcast.id or PydanticObjectId())
    assert row is not None
    return row


async def counters(broadcast: Broadcast) -> tuple[BroadcastState, int | None, dict[str, int]]:
    """Its state, its recipients, and what became of them."""
    row = await now(broadcast)
    counts = {
        "sent": row.sent,
        "held": row.held,
        "suppressed": row.suppressed,
        "failed": row.failed,
    }
    return row.state, row.recipients, {name: count for name, count in counts.items() if count}


async def have(broadcast: Broadcast) -> list[str]:
    """Who has its notification, once for each that is stored."""
    event = {"event": f"urn:tidings broadcast/{broadcast.id}"}
    return sorted([one.user_id async for one in Notification.find(event)])


async def assert_all_served_once(broadcast: Broadcast, ids: Sequence[str]) -> None:
    assert await have(broadcast) == sorted(ids)
    assert await counters(broadcast) == (BroadcastState.DONE, len(ids), {"sent": len(ids)})
    assert await Chunk.find_all().count() == 0
