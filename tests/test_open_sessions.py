"""Whether sessions are open is asked for many at once, and answered for each."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from typing import Any

import pytest
from beanie import PydanticObjectId
from pymongo.errors import PyMongoError

from services.shared.clock import SystemClock
from services.shared.store import open_store
from services.users.credentials import Session
from services.users.open_sessions import OpenSessions
from tests.servers import PrivateMongod, hang, private_mongod_server

MANY = 60
REMEMBERED = 3


async def test_a_crowd_is_asked_for_in_a_few_questions(mongod: PrivateMongod) -> None:
    async with _open_store(mongod) as store:
        open_ = await _sessions(MANY // 2)
        ids = [*open_, *(str(PydanticObjectId()) for _ in open_)]
        sessions = OpenSessions(SystemClock(), REMEMBERED)

        async def holds(number: int) -> bool:
            for _ in range(number):
                await asyncio.sleep(0)  # each in a turn of its own
            return await sessions.holds(ids[number])

        await store.database.command("profile", 2)
        try:
            held = await asyncio.gather(*map(holds, range(MANY)))
        finally:
            await store.database.command("profile", 0)
        asked: dict[str, Any] = {"ns": f"{store.database.name}.{Session.Settings.name}"}
        questions = await store.database["system.profile"].count_documents(asked)
        await store.drop()
    assert held == [id in open_ for id in ids]
    assert 0 < questions <= MANY / 2


async def test_nobody_is_answered_from_what_was_known_before(mongod: PrivateMongod) -> None:
    async with _open_store(mongod) as store:
        [id] = await _sessions(1)
        sessions = OpenSessions(SystemClock(), REMEMBERED)
        assert await sessions.holds(id)
        asking = asyncio.create_task(sessions.holds(str(PydanticObjectId())))
        await asyncio.sleep(0.01)
        await Session.get_pymongo_collection().delete_one({"_id": PydanticObjectId(id)})
        assert not await sessions.holds(id)
        assert not await asking
        await store.drop()


async def test_a_session_may_be_presumed_that_was_open_while_nobody_asks(
    mongod: PrivateMongod,
) -> None:
    async with _open_store(mongod) as store:
        ids = await _sessions(REMEMBERED + 1)
        sessions = OpenSessions(SystemClock(), REMEMBERED)
        assert not sessions.may_be_presumed(ids[0])
        for id in ids:
            assert await sessions.holds(id)
        assert [sessions.may_be_presumed(id) for id in ids] == [False, True, True, True]
        asked = sessions.ask(ids[1])
        assert not sessions.may_be_presumed(ids[2])
        await asked
        await Session.get_pymongo_collection().delete_one({"_id": PydanticObjectId(ids[2])})
        assert not await sessions.holds(ids[2])
        assert not sessions.may_be_presumed(ids[2])
        await store.drop()


async def test_who_waits_behind_a_question_that_fails_is_told_at_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        private_mongod_server(tmp_path_factory.mktemp("mongod")) as server,
        _open_store(server),
    ):
        [id] = await _sessions(1)
        sessions = OpenSessions(SystemClock(), REMEMBERED)
        await hang(server.pid)
        try:
            first = asyncio.create_task(sessions.holds(id))
            await asyncio.sleep(1)
            second, gone = (asyncio.create_task(sessions.holds(id)) for _ in range(2))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(PyMongoError):
                await first
            done, _ = await asyncio.wait({second}, timeout=1)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert done
        with pytest.raises(PyMongoError):
            await second
        assert await sessions.holds(id)


def _open_store(server: PrivateMongod) -> Any:
    return open_store(server.url, "open_sessions", [Session], timeout=3, patience=20)


async def _sessions(count: int) -> list[str]:
    """The ids of that many that are open."""
    now = SystemClock().now()
    rows = [
        Session(
            id=PydanticObjectId(),
            user_id=str(PydanticObjectId()),
            family_hash=os.urandom(32),
            token_hash=os.urandom(32),
            client="",
            created_at=now,
            last_used_at=now,
            expires_at=now + timedelta(hours=1),
        )
        for _ in range(count)
    ]
    await Session.insert_many(rows)
    return [str(row.id) for row in rows]
