"""The embedded bus is for one process a database: a second is told, a dead one is no obstacle."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient

from services.shared.clock import SystemClock
from services.shared.embedded import MODELS, EmbeddedBus
from services.shared.errors import CannotStart
from services.shared.events import NOTIFICATIONS, USERS
from services.shared.store import open_store
from tests.kit import quick_settings
from tests.outages import away
from tests.processes import elsewhere, tidings
from tests.servers import PrivateMongod, until


@asynccontextmanager
async def owner_of(url: str, database: str) -> AsyncIterator[Any]:
    """The collection with the lease in it."""
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        yield client[database].embedded_lease


async def test_a_second_process_on_the_embedded_bus_is_refused_and_the_first_goes_on(
    mongod: PrivateMongod, tmp_path: Path
) -> None:
    settings = elsewhere(mongod.url) | {"MONGODB_DATABASE": f"test_{uuid4().hex[:12]}"}
    async with tidings("serve", folder=tmp_path / "first", **settings) as first:
        await first.ready()
        async with tidings("serve", folder=tmp_path / "second", **settings) as second:
            sentence = await second.refused()
            assert "RABBITMQ_URL" in sentence
            assert "stop" in sentence
        await first.ready()


async def test_a_process_that_was_killed_leaves_its_lease_at_once(
    mongod: PrivateMongod, tmp_path: Path
) -> None:
    database = f"test_{uuid4().hex[:12]}"
    settings = elsewhere(mongod.url) | {"MONGODB_DATABASE": database}
    async with owner_of(mongod.url, database) as leases:

        async def held_by(pid: int) -> bool:
            lease = await leases.find_one()
            return lease is not None and f"|{pid}|" in lease["owner"]

        async with tidings("serve", folder=tmp_path / "first", **settings) as first:
            await until(lambda: held_by(first.process.pid))
            first.send(signal.SIGKILL)
            await first.ended()
        async with tidings("serve", folder=tmp_path / "second", **settings) as second:
            await second.ready()
            await until(lambda: held_by(second.process.pid), timeout=2)


async def test_the_lease_is_held_until_the_last_of_a_process_leaves(
    mongod: PrivateMongod,
) -> None:
    settings = quick_settings(mongod.url)
    async with (
        open_store(mongod.url, settings.mongodb_database, MODELS, timeout=2, patience=5) as store,
        owner_of(mongod.url, settings.mongodb_database) as leases,
    ):
        bus = EmbeddedBus(store, SystemClock(), settings)
        async with bus.subscribe(USERS):
            async with bus.subscribe(NOTIFICATIONS):
                pass
            assert await leases.count_documents({}) == 1
        assert await leases.count_documents({}) == 0
        await store.drop()


async def test_a_lease_that_a_hanging_database_does_not_take_back_is_left_to_run_out(
    mongod: PrivateMongod,
) -> None:
    settings = quick_settings(mongod.url)
    loop = asyncio.get_running_loop()
    async with open_store(
        mongod.url, settings.mongodb_database, MODELS, timeout=3, patience=5
    ) as store:
        async with AsyncExitStack() as leaving:
            async with EmbeddedBus(store, SystemClock(), settings).subscribe(USERS):
                await leaving.enter_async_context(away(mongod, "hanging"))
                began = loop.time()
            assert loop.time() - began < 2  # not the 3 s that a question may take
        await store.drop()


# PyMongo leaves the socket of a connection that is cancelled while it is made to its end of life.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_a_lease_of_another_machine_is_waited_for_and_one_that_is_lost_ends_the_consumer(
    mongod: PrivateMongod,
) -> None:
    settings = quick_settings(mongod.url)
    loop = asyncio.get_running_loop()
    elsewhere_ = {"owner": "elsewhere|1|1", "until": datetime.now(UTC) + timedelta(seconds=1)}
    async with (
        open_store(mongod.url, settings.mongodb_database, MODELS, timeout=2, patience=5) as store,
        owner_of(mongod.url, settings.mongodb_database) as leases,
    ):
        await leases.insert_one({"_id": "embedded bus"} | elsewhere_)
        bus = EmbeddedBus(store, SystemClock(), settings)
        began = loop.time()
        with pytest.RaisesGroup(CannotStart, flatten_subgroups=True):
            async with bus.subscribe(USERS), bus.subscribe(NOTIFICATIONS):
                assert 0.5 < loop.time() - began < 3
                late = {"until": datetime.now(UTC) + timedelta(minutes=1)}
                await leases.update_one({}, {"$set": elsewhere_ | late})
                await asyncio.Event().wait()
        await store.drop()
