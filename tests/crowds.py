"""Many users at once, put into the collection as registration would leave them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from beanie import PydanticObjectId

from services.host import Runtime, open_runtime
from services.shared.clock import Clock
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


async def crowd(clock: Clock, count: int, **fields: Any) -> list[str]:
    """So many of them; their ids."""
    people = [person(clock, **fields) for _ in range(count)]
    await User.insert_many(people)
    return [str(one.id) for one in people]


async def did(user_id: str, kind: str, product_id: str, at: Any) -> None:
    """Something that a user did in the shop."""
    row = {"user_id": user_id, "kind": kind, "product_id": product_id, "at": at}
    await Activity.get_pymongo_collection().insert_one(row | {"event": uuid4().hex})
