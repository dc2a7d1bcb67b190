"""Tasks that give up waiting for a database that is away leave nothing locked behind them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from pymongo.errors import PyMongoError

from services.shared.store import Store, open_store
from tests.servers import private_mongod_server, until

TASKS, TURNS = 60, 6


async def test_tasks_that_are_cancelled_while_no_server_is_known_stop_nobody(
    tmp_path: Path,
) -> None:
    async with private_mongod_server(tmp_path) as mongod:
        opening = open_store(mongod.url, "waiting", [], timeout=1.2, patience=5)
        async with opening as store:
            await mongod.kill()
            for _ in range(TURNS):
                waiting = [asyncio.create_task(_ask(store)) for _ in range(TASKS)]
                began = asyncio.get_running_loop().time()
                for number, task in enumerate(waiting):  # PyMongo wakes up after half a second
                    late = began + 0.49 + 0.03 * number / TASKS
                    await asyncio.sleep(max(0, late - asyncio.get_running_loop().time()))
                    task.cancel()
                _, hanging = await asyncio.wait(waiting, timeout=5)
                assert not hanging
            await mongod.start()
            async with asyncio.timeout(10):
                await until(lambda: _ask(store))


async def _ask(store: Store) -> bool:
    with suppress(PyMongoError):
        await store.time()
        return True
    return False
