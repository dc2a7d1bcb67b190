"""Connections go to whoever came first: nobody waits behind those who ask again and again."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError, WaitQueueTimeoutError

from services.shared.store import Store, open_store
from tests.servers import PrivateMongod, hang, private_mongod_server, until

CLIENTS = 8
FOREVER_SECONDS = 60.0


async def test_all_have_their_turn(mongod: PrivateMongod) -> None:
    async with open_store(
        mongod.url, "fair_pool", [], timeout=20, patience=20, connections=1
    ) as store:
        answers = [0] * CLIENTS
        enough = asyncio.Event()

        async def client(number: int) -> None:
            while not enough.is_set():
                await store.ping()
                answers[number] += 1
                if sum(answers) == 40 * CLIENTS:
                    enough.set()

        await asyncio.gather(*map(client, range(CLIENTS)))
    assert max(answers) - min(answers) <= 2, answers


async def test_who_waits_too_long_is_told_and_takes_nothing(mongod: PrivateMongod) -> None:
    async with open_store(
        mongod.url, "fair_pool", [], timeout=20, patience=20, connections=1
    ) as store:
        await store.database["rows"].insert_one({})
        slow = {"$where": "sleep(1000) || true"}
        holding = asyncio.create_task(store.database["rows"].find_one(slow))
        await asyncio.sleep(0.3)
        with pymongo.timeout(0.1), pytest.raises(WaitQueueTimeoutError):
            await store.ping()
        waiting = asyncio.create_task(store.ping())
        await asyncio.sleep(0.1)
        waiting.cancel()
        assert await holding is not None
        await store.ping()


async def test_a_connection_that_could_not_be_opened_is_nobodys_turn(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        private_mongod_server(tmp_path_factory.mktemp("mongod")) as server,
        open_store(server.url, "fair_pool", [], timeout=2, patience=20, connections=1) as store,
    ):
        await server.kill()
        await server.start()
        await until(lambda: store.database.client.nodes)
        await hang(server.pid)  # the system accepts connections, nobody greets
        with pymongo.timeout(0.3), pytest.raises(PyMongoError):
            await store.ping()
        os.kill(server.pid, signal.SIGCONT)
        await until(lambda: _answers(store))


async def test_who_waits_for_a_server_that_is_gone_is_told_when_that_is_known(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        private_mongod_server(tmp_path_factory.mktemp("mongod")) as server,
        open_store(server.url, "fair_pool", [], timeout=1, patience=20) as store,
    ):
        await store.ping()
        await hang(server.pid)
        try:
            with pymongo.timeout(FOREVER_SECONDS), pytest.raises(PyMongoError):
                async with asyncio.timeout(FOREVER_SECONDS / 2):
                    await store.ping()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await until(lambda: _answers(store))


async def test_an_answer_that_does_not_come_in_time_is_not_taken_for_the_next_one(
    mongod: PrivateMongod,
) -> None:
    async with open_store(
        mongod.url, "fair_pool", [], timeout=20, patience=20, connections=1
    ) as store:
        rows = store.database["rows"]
        await rows.insert_one({"_id": "mine"})
        with pymongo.timeout(0.2), pytest.raises(PyMongoError):
            await rows.find_one({"$where": "sleep(500) || true"})
        asking = asyncio.create_task(rows.find_one({"$where": "sleep(500) || true"}))
        await asyncio.sleep(0.2)
        asking.cancel()
        assert (await store.time()).tzinfo is not None
        assert await rows.find_one({"_id": "another's"}) is None


async def test_a_question_is_asked_without_a_task_of_its_own(mongod: PrivateMongod) -> None:
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, asked: Any, **names: Any) -> asyncio.Task[Any]:
        made.append(repr(asked))
        return asyncio.Task(asked, loop=loop, **names)

    async with open_store(mongod.url, "fair_pool", [], timeout=20, patience=20) as store:
        await store.ping()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(make)
        try:
            await store.ping()
        finally:
            loop.set_task_factory(None)
    assert not [task for task in made if "network_layer" in task or "write" in task], made


async def _answers(store: Store) -> bool:
    with suppress(PyMongoError):
        await store.ping()
        return True
    return False
