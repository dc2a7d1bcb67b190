"""Row `login`: how many logins there are a second, and how long others wait meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import bcrypt
from pymongo.asynchronous.database import AsyncDatabase

from bench.filling import fill_users
from bench.http_load import Load, ask, load, request
from bench.people import token
from bench.results import TIDINGS, Row, Target, alternated
from bench.world import Program, World
from services.users.models import User
from services.users.passwords import digested

BARE: Final = "bare bcrypt"
IDLE: Final = "nobody logs in"
COST: Final = 12
CLIENTS: Final = 8
_LOGIN: Final = "mutation Login($input: LoginInput!) { login(input: $input) { accessToken } }"
_ME: Final = "{ me { id } }"
_PASSWORD: Final = "a password for benches"
_USERS: Final = 64
_DATABASE: Final = "login"
_ROUNDS: Final = 3
_SECONDS: Final = 3.0
_PACED_SECONDS: Final = 8.0
_BEFORE_SECONDS: Final = 1.0  # all log in at once when they begin, and in turn after that
_EVERY: Final = 0.01


async def login(world: World) -> Sequence[Row]:
    """Logins beside bare bcrypt, and the p99 of another request with and without them."""
    async with _gateway(world) as gateway:
        logins = itertools.cycle(_logins())
        asked = request("/graphql", {"query": _ME}, token(0))
        await load(gateway.port, logins, CLIENTS, 2.0)

        async def log_in(seconds: float = _SECONDS) -> float:
            return (await load(gateway.port, logins, CLIENTS, seconds)).rate

        async def check() -> float:
            given = {"BCRYPT_COST": COST, "SECONDS": _SECONDS}
            async with world.limit("login", _DATABASE, **given) as bare:
                return float((await bare.said("hashes")).split()[1])

        rates = await alternated({TIDINGS: log_in, BARE: check}, _ROUNDS, world.progress)

        async def alone() -> float:
            return 1000 * (await _paced(gateway, asked, _PACED_SECONDS)).percentile(0.99)

        async def meanwhile() -> float:
            async with asyncio.TaskGroup() as group:
                group.create_task(log_in(_BEFORE_SECONDS + _PACED_SECONDS))
                await asyncio.sleep(_BEFORE_SECONDS)
                others = await _paced(gateway, asked, _PACED_SECONDS)
            return 1000 * others.percentile(0.99)

        waits = await alternated({TIDINGS: meanwhile, IDLE: alone}, _ROUNDS, world.progress)
    return [
        Row(
            "login",
            f"logins with bcrypt at cost {COST}, {CLIENTS} clients, {os.cpu_count()} cores",
            "logins/s",
            rates,
            [Target(BARE, least=0.9)],
        ),
        Row(
            "login, others meanwhile",
            f"another request every {1000 * _EVERY:.0f} ms while {CLIENTS} clients log in, "
            f"after their first {_BEFORE_SECONDS:.0f} s",
            "ms, p99",
            waits,
            [Target(IDLE, most=2.0)],
        ),
    ]


@asynccontextmanager
async def _gateway(world: World) -> AsyncIterator[Program]:
    limits = {
        "BCRYPT_COST": COST,
        "BCRYPT_AT_ONCE": os.cpu_count(),
        "LOGIN_FAILURES_PER_ADDRESS": 100_000,
    }
    async with world.database(_DATABASE) as database:
        await fill_users(database, _USERS)
        await _set_passwords(database)
        async with world.service("gateway", _DATABASE, **limits) as gateway:
            yield gateway


async def _set_passwords(database: AsyncDatabase[dict[str, Any]]) -> None:
    hashed = bcrypt.hashpw(digested(_PASSWORD), bcrypt.gensalt(COST))
    await database[User.Settings.name].update_many({}, {"$set": {"password_hash": hashed}})


def _logins() -> list[bytes]:
    return [
        request("/graphql", {"query": _LOGIN, "variables": {"input": given}}, token(number))
        for number, given in enumerate(
            {"email": f"customer-{number}@shop.example", "password": _PASSWORD}
            for number in range(_USERS)
        )
    ]


async def _paced(gateway: Program, message: bytes, seconds: float) -> Load:
    """A request every _EVERY seconds, each on a connection of its own, whatever the others wait."""
    result = Load(seconds)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def timed(at: float) -> None:
        await asyncio.sleep(at - loop.time())
        asked_at = time.perf_counter()  # the loop's own counts milliseconds
        await ask(gateway.port, message)
        result.latencies.append(time.perf_counter() - asked_at)

    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds / _EVERY)):
            group.create_task(timed(began + number * _EVERY))
    return result
