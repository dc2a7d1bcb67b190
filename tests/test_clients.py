"""GraphQL's own audit and the clients that people use, unmodified: real ones, in Node."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from campaign.proxy import Proxy
from services.shared.vocabulary import Role
from tests.kit import PATIENCE, House, Somebody

CLIENTS = Path(__file__).parent / "clients"
ORDER = "mutation ($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"

Lines = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the packages of tests/clients/package-lock.json."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        if os.environ.get("CI"):
            pytest.fail("This needs nodejs and npm.")
        pytest.skip("This needs nodejs and npm.")
    installed = CLIENTS / "node_modules/.package-lock.json"
    lock = CLIENTS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run([npm, "ci", "--silent"], cwd=CLIENTS, check=True, timeout=300)
    return found


@asynccontextmanager
async def script(node: str, name: str, **environment: str) -> AsyncIterator[Lines]:
    """A running script: what it says, line by line."""
    process = await asyncio.create_subprocess_exec(
        node,
        f"{name}.mjs",
        cwd=CLIENTS,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    stdout = process.stdout

    async def line() -> Any:
        async with asyncio.timeout(PATIENCE):
            text = await stdout.readline()
        return json.loads(text) if text else None

    try:
        yield line
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture(scope="module")
async def backend(house: House) -> Somebody:
    return await house.somebody(Role.SERVICE)


async def test_every_sentence_of_the_audit_of_graphql_over_http_holds(
    house: House, node: str
) -> None:
    audits = []
    async with script(node, "audit", URL=house.api.url) as line:
        while (audit := await line()) is not None:
            audits.append(audit)
    assert len(audits) > 50
    assert [audit for audit in audits if audit["reason"] is not None] == []


@pytest.mark.parametrize("client", ["graphql-ws", "apollo", "urql", "relay"])
async def test_a_client_asks_changes_follows_and_comes_back(
    house: House, backend: Somebody, node: str, client: str
) -> None:
    customer = await house.somebody()
    proxy = Proxy(client, int(house.api.url.rpartition(":")[2].partition("/")[0]))
    await proxy.start()
    url = f"http://127.0.0.1:{proxy.port}/graphql"
    try:
        async with script(node, client, URL=url, TOKEN=str(customer.api.token)) as line:
            answer = await line()
            assert answer["step"] == "query"
            assert answer["data"]["notifications"]["edges"] is not None
            answer = await line()
            assert (answer["step"], answer["data"]["updatePreferences"]["version"]) == (
                "mutation",
                1,
            )
            assert (await line())["step"] == "subscribed"
            await hears(line, backend, customer)
            proxy.cut()
            while (await line())["step"] != "reconnected":
                pass
            await hears(line, backend, customer)
    finally:
        await proxy.close()


async def hears(line: Lines, backend: Somebody, customer: Somebody) -> None:
    """Orders are sent until one is heard: the subscription may just be about to begin."""
    hearing = asyncio.ensure_future(line())
    while not hearing.done():
        order = {"orderId": "7", "userId": customer.id, "status": "shipped"}
        await backend.api.ask(ORDER, input=order)
        await asyncio.wait([hearing], timeout=0.3)
    answer = hearing.result()
    assert answer["step"] == "added", answer
    assert answer["data"]["notificationAdded"]["node"]["title"] == "Order 7 is on its way"
