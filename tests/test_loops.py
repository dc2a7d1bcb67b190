"""A loop that dies takes its process down, and the log names it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient
from structlog.testing import capture_logs

from gateway import app
from services import host
from services.host import Runtime
from services.shared.tasks import vital
from tests.kit import House
from tests.notices import ago
from tests.processes import elsewhere, tidings
from tests.servers import PrivateMongod, until


class Broken:
    """Stands for the part of a runtime that a loop stands on; whatever is asked of it, fails."""

    def __init__(self, queue: str = "") -> None:
        self._queue = queue

    def subscribe(self, queue: str) -> Any:
        return self._queue_of() if queue == self._queue else _silent()

    async def relay(self) -> None:
        raise ValueError("broken")

    keep_ticking = relay

    @asynccontextmanager
    async def _queue_of(self) -> AsyncIterator[Any]:
        await self.relay()
        yield

    @asynccontextmanager
    async def live(self, *_: object) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.relay())
            yield


@asynccontextmanager
async def _silent() -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield


BREAKS: dict[str, Callable[[Runtime], Runtime]] = {
    "outbox": lambda runtime: replace(runtime, outbox=Broken()),  # type: ignore[arg-type]
    "users": lambda runtime: replace(runtime, bus=Broken("users")),  # type: ignore[arg-type]
    "notifications": lambda runtime: replace(
        runtime,
        bus=Broken("notifications"),  # type: ignore[arg-type]
    ),
    "scheduler": lambda runtime: replace(runtime, schedules=Broken()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("loop", BREAKS)
async def test_each_loop_that_dies_ends_all_and_is_named(house: House, loop: str) -> None:
    with capture_logs() as logs, pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(5):
            await host.run(BREAKS[loop](house.runtime), host.WORKERS)
    assert raised.value.subgroup(ValueError)
    assert [line["loop"] for line in logs if line["event"] == "loop_died"] == [loop]


async def test_a_live_feed_that_dies_ends_the_gateway_and_is_named(house: House) -> None:
    listening = app.listen(house.runtime.settings)
    broken = replace(house.runtime, bus=Broken())  # type: ignore[arg-type]
    with capture_logs() as logs, pytest.raises(ExceptionGroup):
        async with asyncio.timeout(5):
            await app.serve(broken, [listening], asyncio.Event())
    assert [line["loop"] for line in logs if line["event"] == "loop_died"] == ["live feed"]


@pytest.mark.parametrize("ending", ["returned", "cancelled by nobody"])
async def test_a_loop_that_ends_without_an_error_is_an_error(ending: str) -> None:
    async def end() -> None:
        if ending != "returned":
            raise asyncio.CancelledError  # as aio-pika does when a connection closes

    with pytest.raises(RuntimeError, match=ending):
        await vital("clockwork", end)


async def test_a_process_whose_outbox_can_not_be_relayed_ends_with_an_error(
    mongod: PrivateMongod, tmp_path: Path
) -> None:
    name = f"test_{uuid4().hex[:12]}"
    settings = elsewhere(mongod.url) | {"MONGODB_DATABASE": name}
    async with AsyncMongoClient[dict[str, Any]](mongod.url) as client:
        try:
            async with tidings("serve", folder=tmp_path, **settings) as run:
                await run.ready()
                outbox = [one for one in await client[name].list_collection_names() if "out" in one]
                assert len(outbox) == 1
                await client[name].drop_collection(outbox[0])
                await client[name].aside.insert_one({"claimed_until": ago(1)})
                await client[name].create_collection(outbox[0], viewOn="aside", pipeline=[])
                await until(lambda: run.process.returncode is not None)
                assert run.process.returncode == 1
                assert "action=loop_died loop=outbox" in run.errors
        finally:
            await client.drop_database(name)
