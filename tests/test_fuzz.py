"""Thousands of requests that no client would send: no 500, no 1006, no hang, and no growth."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from services.shared.vocabulary import Role
from tests.kit import PATIENCE, GraphQLFailed, House, Somebody, http_client, raw_socket

EXAMPLES: Final = 500  # of each kind
# What graphql-transport-ws, and RFC 6455 below it, close a socket with that a client has abused.
CLOSE_CODES: Final = {4400, 4401, 4403, 4408, 4409, 4429, 1007, 1009}
INTERNAL: Final = "INTERNAL_SERVER_ERROR"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(
    [
        "query",
        "mutation",
        "subscription",
        "fragment",
        "on",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "!",
        "$",
        "...",
        ":",
        "=",
        "@",
        "|",
        "&",
        '"',
        '"""',
        "#",
        "\\u",
        "-1",
        "1e999",
        "null",
        "me",
        "id",
        "notifications",
        "edges",
        "node",
        "first",
        "__typename",
        "__schema",
        "types",
        "login",
        "input",
        "email",
        "skip",
        "include",
        "if",
        "true",
        "a",
        "\x00",
        "🛍",
        "9" * 400,
        "9" * 5000,
        "\ufeff",
    ]
)
COUNT, ADDED = "subscription { unreadCount }", "subscription { notificationAdded { cursor } }"
VALID = st.sampled_from(["{ me { id } }", COUNT, ADDED])
DOCUMENTS = VALID | st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=200)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "query": DOCUMENTS | JSON,
        "variables": JSON,
        "operationName": st.text(max_size=10) | JSON,
        "extensions": JSON,
        "documentId": st.text(max_size=10) | JSON,
    },
)
BODIES = st.one_of(
    st.binary(max_size=300),
    REQUESTS.map(lambda request: json.dumps(request).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.lists(REQUESTS, max_size=3).map(lambda batch: json.dumps(batch).encode()),
)
TYPES = st.sampled_from(
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json; charset=utf-16",
        "text/plain",
        "application/graphql",
        "multipart/form-data; boundary=x",
        "",
        ";;;",
        "a/b/c",
    ]
)
ACCEPTS = st.sampled_from(
    [
        "application/json",
        "application/graphql-response+json",
        "*/*",
        "text/html",
        "image/png",
        "",
        "application/json;q=0",
        "application/*;q=0.5, */*;q=0.1",
        "q=1",
        ",,,",
        "*",
    ]
)
IDS = st.text(max_size=3) | st.sampled_from(["x" * 200, "🛍" * 200, "x" * 201, "x" * 100_000])
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["subscribe", "complete", "ping", "pong", "connection_init"])},
        optional={"id": IDS | JSON, "payload": REQUESTS | JSON},
    ),
    JSON,
)
FRAMES = st.lists(
    MESSAGES.map(json.dumps) | st.text(max_size=30) | st.binary(max_size=30),
    min_size=1,
    max_size=6,
)


PIECES = st.sampled_from(
    [
        b"GET /graphql HTTP/1.1\r\n",
        b"POST /graphql HTTP/1.1\r\n",
        b"host: x\r\n",
        b"content-length: 5\r\n",
        b"content-length: x\r\n",
        b"transfer-encoding: chunked\r\n",
        b"expect: 100-continue\r\n",
        b"content-type: application/json\r\n",
        b"upgrade: websocket\r\n",
        b"connection: upgrade\r\n",
        b"connection: close\r\n",
        b"sec-websocket-version: 13\r\n",
        b"sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n",
        b"sec-websocket-protocol: graphql-transport-ws\r\n",
        b"x: " + b"y" * 9000 + b"\r\n",
        b"x: y\r\n" * 130,
        b"\r\n",
        b"5\r\nabcde\r\n",
        b"0\r\n",
        b'{"query": "{ __typename }"}',
        b"\x81\x81\x00\x00\x00\x00x",
        b"\x88\x80\x00\x00\x00\x00",
    ]
)


@given(pieces=st.lists(PIECES | st.binary(max_size=20), min_size=1, max_size=15))
@settings(max_examples=EXAMPLES)
async def test_no_bytes_make_an_internal_error(house: House, pieces: list[bytes]) -> None:
    url = httpx.URL(house.api.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
        writer.write_eof()
    answer = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
    writer.close()
    assert b"HTTP/1.1 5" not in answer


@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS"]),
    body=BODIES,
    content_type=TYPES,
    accept=ACCEPTS,
    token=st.sampled_from([None, "Bearer x", "Bearer", "Basic x", "Bearer a.b.c"]),
)
@settings(max_examples=EXAMPLES)
async def test_no_http_request_makes_an_internal_error(
    house: House, method: str, body: bytes, content_type: str, accept: str, token: str | None
) -> None:
    headers = {"content-type": content_type, "accept": accept}
    if token is not None:
        headers["authorization"] = token
    async with http_client() as client:
        response = await client.request(method, house.api.url, content=body, headers=headers)
    assert response.status_code in (200, 400, 405, 406, 413, 415), response.text
    is_an_answer(response)


@given(
    parameters=st.dictionaries(
        st.sampled_from(["query", "variables", "operationName", "extensions", "documentId"]),
        DOCUMENTS | JSON.map(json.dumps),
    )
)
@settings(max_examples=EXAMPLES)
async def test_no_url_makes_an_internal_error(house: House, parameters: dict[str, str]) -> None:
    async with http_client() as client:
        response = await client.get(house.api.url, params=parameters)
    assert response.status_code in (200, 400, 405), response.text
    is_an_answer(response)


def is_an_answer(response: httpx.Response) -> None:
    """In GraphQL's form, whatever it says, and nothing of it our fault."""
    if response.request.method == "HEAD":
        return
    if response.headers["content-type"].startswith("text/html"):  # GraphiQL
        return
    answer = response.json()
    assert "data" in answer or answer["errors"]
    for error in answer.get("errors", []):
        assert error["extensions"]["code"] != INTERNAL, error


@pytest.fixture(scope="module")
async def somebody(house: House) -> Somebody:
    return await house.somebody()


@given(frames=FRAMES, greeting=st.sampled_from(["none", "anonymous", "with a token"]))
@settings(max_examples=EXAMPLES)
async def test_no_message_breaks_a_socket(
    house: House, somebody: Somebody, frames: list[str | bytes], greeting: str
) -> None:
    async with raw_socket(house.api.url) as socket:
        if greeting != "none":
            payload = somebody.api.headers if greeting == "with a token" else {}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        with suppress(ConnectionClosed):
            for frame in frames:
                await socket.send(frame)
            await still_answers(socket)
            return
    assert socket.close_code in CLOSE_CODES


async def still_answers(socket: ClientConnection) -> None:
    payload = {"marks": "the end"}
    await socket.send(json.dumps({"type": "ping", "payload": payload}))
    async with asyncio.timeout(PATIENCE):
        async for text in socket:
            message = json.loads(text)
            for error in message.get("payload", []) if message["type"] == "error" else []:
                assert error["extensions"]["code"] != INTERNAL, error
            if message == {"type": "pong", "payload": payload}:
                return


@pytest.mark.parametrize("role", list(Role), ids=str)
async def test_no_valid_document_makes_an_internal_error(house: House, role: Role) -> None:
    """Documents that Schemathesis makes from the schema, asked by each role, who stay logged in."""
    somebody = await house.somebody(role)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz_documents"),
        *(house.api.url, str(somebody.api.token), str(EXAMPLES)),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert (await somebody.api.ask("{ me { id } }"))["me"]["id"] == somebody.id


async def a_refused_socket(house: House) -> None:
    async with raw_socket(house.api.url) as socket:
        await socket.send("[]")
        await socket.wait_closed()


async def a_refused_request(house: House) -> None:
    await house.api.post(json={"query": f"{{ {uuid4().hex} }}"})


async def a_refused_subscription(house: House) -> None:
    async with house.api.socket() as socket:
        with pytest.raises(GraphQLFailed):
            await (await socket.subscribe("subscription { unreadCount }")).next()


@pytest.mark.parametrize("abuse", [a_refused_socket, a_refused_request, a_refused_subscription])
async def test_hundreds_of_refusals_leave_nothing_behind(
    house: House, abuse: Callable[[House], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # pytest keeps what is logged

    async def some(count: int) -> int:
        for _ in range(count // 20):
            await asyncio.gather(*(abuse(house) for _ in range(20)))
        await asyncio.sleep(0.2)  # the last connections end
        gc.collect()
        return len(gc.get_objects())

    await some(400)  # documents that are kept, and what libraries keep
    before = await some(200)
    after = await some(600)
    assert after < before + 600  # one object for each would be a leak
