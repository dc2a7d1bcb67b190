"""Any order of start: what is up before its servers waits for them, and then works."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from services import host
from tests.kit import PASSWORD, http_client, quick_settings
from tests.processes import Run, elsewhere, tidings
from tests.servers import (
    PrivateMongod,
    PrivateRabbitMQ,
    hang,
    need_rabbitmq,
    private_mongod_server,
    private_rabbitmq,
    until,
)

REGISTER = "mutation($input: RegisterInput!) { register(input: $input) { accessToken } }"
PAGE = "{ notifications { edges { node { title } } } }"
SERVICES = ("gateway", "users", "notifications", "scheduler")
SHUTDOWN_SECONDS, MARGIN_SECONDS = 3, 2.0


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PrivateRabbitMQ]:
    need_rabbitmq()
    async with private_rabbitmq(tmp_path / "rabbitmq") as server:
        yield server


async def test_processes_wait_for_their_servers_then_work_and_stop_without_them(
    broker: PrivateRabbitMQ, tmp_path: Path
) -> None:
    async with private_mongod_server(tmp_path / "mongod") as mongod, AsyncExitStack() as stack:
        await broker.kill()
        await mongod.stop()
        settings = elsewhere(mongod.url) | {
            "RABBITMQ_URL": broker.url,
            "SHUTDOWN_SECONDS": SHUTDOWN_SECONDS,
        }
        runs: dict[str, Run] = {}
        for name in SERVICES:
            starting = tidings(name, folder=tmp_path / name, **settings)
            runs[name] = await stack.enter_async_context(starting)
        for run in runs.values():
            await until(partial(_waits, run))

        await mongod.start()
        await until(lambda: _away(runs["gateway"]), 20)
        assert list(await _away(runs["gateway"])) == ["broker"]
        assert await _health(tmp_path, settings) == (1, True)

        await broker.start()
        await runs["gateway"].ready()
        assert await _health(tmp_path, settings) == (0, False)
        assert await _welcome(runs["gateway"])

        await hang(broker.pid)
        for run in runs.values():
            run.send(signal.SIGTERM)
        for run in runs.values():
            assert await run.ended(SHUTDOWN_SECONDS + MARGIN_SECONDS) == 0
            assert "Traceback" not in run.errors


@pytest.mark.parametrize(("window", "told"), [(4.0, True), (5.0, False)])
async def test_a_window_that_is_shorter_than_a_write_may_take_is_warned_of(
    mongod: PrivateMongod, window: float, told: bool
) -> None:
    """1.2 s until we give up, and 1.5 times the 2 s of a transaction until the database does."""
    settings = quick_settings(mongod.url, mongodb_timeout_seconds=1.2, write_window_seconds=window)
    with capture_logs() as logs:
        async with host.open_runtime(settings) as runtime:
            await runtime.store.drop()
    warnings = [line for line in logs if line["event"] == "write_window_too_short"]
    assert bool(warnings) is told
    assert all("WRITE_WINDOW_SECONDS to 4.2" in line["advice"] for line in warnings)


def _waits(run: Run) -> bool:
    return "waiting_for_mongodb" in run.errors


async def _away(gateway: Run) -> Any:
    """The servers that the gateway says are away; none while it does not answer."""
    try:
        async with http_client(timeout=5) as client:
            answer = await client.get(f"http://127.0.0.1:{gateway.port}/readyz")
    except httpx.TransportError:
        return {}
    return answer.json().get("away", {})


async def _health(folder: Path, settings: dict[str, Any]) -> tuple[int, bool]:
    """The exit code of `health`, and whether it blames the broker."""
    async with tidings("health", "notifications", folder=folder / "health", **settings) as run:
        return await run.ended(), "RabbitMQ does not answer" in run.errors


async def _welcome(gateway: Run) -> str:
    """The title of the first notification of somebody new: it has passed every process."""
    somebody = {"name": "Ann", "email": "ann@shop.example", "password": PASSWORD}
    token = (await gateway.api.ask(REGISTER, input=somebody))["register"]["accessToken"]
    ann = gateway.api.as_(token)

    async def first() -> Any:
        return (await ann.ask(PAGE))["notifications"]["edges"]

    return str((await until(first))[0]["node"]["title"])
