"""A gateway whose settings, or whose servers, make the difference: a house for each."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.entry import ANOTHER, LOGIN
from tests.kit import (
    PASSWORD,
    Api,
    House,
    forget_queues,
    http_client,
    open_house,
    quick_settings,
    raw_socket,
)
from tests.outages import away, is_ready, readiness
from tests.processes import SECRET, tidings
from tests.servers import PrivateMongod, PrivateRabbitMQ, private_mongod_server, until

KNOWN = "query Known { __typename }"
UNKNOWN = "query Unknown { __typename }"
REGISTER = "mutation ($input: RegisterInput!) { register(input: $input) { user { id } } }"


async def test_only_known_documents_are_answered_where_only_those_may_be(
    mongod: PrivateMongod, tmp_path: Path
) -> None:
    documents = tmp_path / "documents.json"
    documents.write_text(json.dumps({"known": KNOWN}))
    settings = quick_settings(
        mongod.url, persisted_documents=documents, only_persisted_documents=True
    )
    async with open_house(settings) as house:
        for answer in (over_http, over_get, over_socket):
            for known in ({"documentId": "known"}, {"query": KNOWN}):
                assert await answer(house, known) is None
            assert await answer(house, {"documentId": "other"}) == "PERSISTED_QUERY_NOT_FOUND"
            assert await answer(house, {"query": UNKNOWN}) == "PERSISTED_QUERY_ONLY"
            both = {"documentId": "known", "query": UNKNOWN}
            assert await answer(house, both) == "PERSISTED_QUERY_ONLY"


async def over_http(house: House, request: dict[str, Any]) -> str | None:
    """The code of the refusal, or None."""
    return code((await house.api.post(json=request)).json().get("errors"))


async def over_get(house: House, request: dict[str, Any]) -> str | None:
    async with http_client() as client:
        return code((await client.get(house.api.url, params=request)).json().get("errors"))


async def over_socket(house: House, request: dict[str, Any]) -> str | None:
    async with house.api.socket() as socket:
        payload = {"query": "", **request}
        await socket.send({"id": "1", "type": "subscribe", "payload": payload})
        answer = await socket.receive()
        return code(answer["payload"] if answer["type"] == "error" else None)


def code(errors: list[dict[str, Any]] | None) -> str | None:
    found: str | None = errors[0]["extensions"]["code"] if errors else None
    return found


async def test_503_a_connection_beyond_the_most(mongod: PrivateMongod) -> None:
    async with open_house(quick_settings(mongod.url, max_connections=4)) as house:
        port = httpx.URL(house.api.url).port
        async with AsyncExitStack() as idle:
            for expected in (200, 200, 200, 200, 503):
                answer = await house.api.post(json={"query": KNOWN})
                assert answer.status_code == expected
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                idle.callback(writer.close)

            with pytest.raises(InvalidStatus) as refused:
                async with raw_socket(house.api.url):
                    pass
            assert refused.value.response.status_code == 503

        async def has_room() -> bool:
            return (await house.api.post(json={"query": KNOWN})).status_code == 200

        await until(has_room)
        async with AsyncExitStack() as sockets:  # which leave a place for requests
            for _ in range(3):
                await sockets.enter_async_context(raw_socket(house.api.url))
            with pytest.raises(InvalidStatus):
                await sockets.enter_async_context(raw_socket(house.api.url))
            assert await has_room()


async def test_in_production_strangers_learn_which_server_is_away_and_not_where(
    tmp_path: Path,
) -> None:
    async with private_mongod_server(tmp_path) as mongod:
        settings = quick_settings(
            mongod.url,
            profile="production",
            public_url="https://tidings.example",
            bcrypt_cost=10,
        )
        async with open_house(settings) as house:
            await until(lambda: is_ready(house))
            async with away(mongod, "killed"):
                status, answer, _ = await readiness(house)
                assert (status, answer) == (503, {"status": "not ready", "away": ["database"]})
            await until(lambda: is_ready(house))


async def test_two_gateways_count_wrong_passwords_together(
    mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ, tmp_path: Path
) -> None:
    """As processes of their own, which share the database and nothing else."""
    settings: dict[str, Any] = {
        "MONGODB_URL": mongod.url,
        "MONGODB_DATABASE": f"test_{uuid4().hex[:12]}",
        "RABBITMQ_URL": rabbitmq.url,
        "JWT_SECRET": SECRET,
        "LOGIN_FAILURES": 6,
    }
    async with AsyncExitStack() as stack:
        runs = [
            await stack.enter_async_context(tidings("gateway", folder=tmp_path / name, **settings))
            for name in ("first", "second")
        ]
        first, second = [(await run.ready()).api for run in runs]
        email = f"{uuid4().hex}@shop.example"
        person = {"name": "A", "email": email, "password": PASSWORD}
        await first.ask(REGISTER, input=person)
        codes = await asyncio.gather(*[guess(api, email) for api in (first, second) * 6])
        assert Counter(codes) == {"UNAUTHENTICATED": 6, "RATE_LIMITED": 6}
    await forget_queues(rabbitmq.url, quick_settings(mongod.url))


async def guess(api: Api, email: str) -> str | None:
    """The code of the refusal of a wrong password."""
    variables = {"input": {"email": email, "password": ANOTHER}}
    answer = await api.post(json={"query": LOGIN, "variables": variables})
    return code(answer.json()["errors"])
