"""Servers that are away for a while, and what the gateway says of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.kit import House, http_client
from tests.servers import PrivateMongod, PrivateRabbitMQ, hang

MOST_SECONDS = 2.0


@asynccontextmanager
async def away(server: PrivateMongod | PrivateRabbitMQ, way: str) -> AsyncIterator[None]:
    """A server that is killed, or that hangs, until the end of the block."""
    if way == "killed":
        await server.kill()
        try:
            yield
        finally:
            await server.start()
    else:
        await hang(server.pid)
        try:
            yield
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def readiness(house: House) -> tuple[int, Any, float]:
    """What /readyz answers: its status, its body, and the seconds it took."""
    began = time.monotonic()
    async with http_client(timeout=10) as client:
        answer = await client.get(house.api.url.replace("/graphql", "/readyz"))
    return answer.status_code, answer.json(), time.monotonic() - began


async def is_ready(house: House) -> bool:
    return (await readiness(house))[0] == 200
