"""What an attacker does to a gateway, and where it stops: a house with small limits."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway.admission import network_of
from gateway.hints import Hints
from gateway.persisted import load_documents
from services.shared.errors import CannotStart
from services.shared.log import set_up_logging
from services.shared.vocabulary import Role
from tests.entry import FOLLOW, close_code, refused
from tests.kit import (
    PATIENCE,
    GraphQLFailed,
    House,
    Socket,
    http_client,
    open_house,
    quick_settings,
    raw_socket,
)
from tests.notices import customer
from tests.servers import PrivateMongod, until

ANY = "{ __typename }"
ME = "{ me { id } }"
KNOWN = "query Known($first: Int) { notifications(first: $first) { edges { cursor } } }"
RELAYS_ID = "a custom id"
ADDRESS_SOCKETS, USER_SOCKETS, SECONDS = 5, 3, 0.6


@pytest.fixture(scope="module")
async def house(
    mongod: PrivateMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    documents = tmp_path_factory.mktemp("documents") / "documents.json"
    documents.write_text(json.dumps({RELAYS_ID: KNOWN}))
    settings = quick_settings(
        mongod.url,
        max_sockets_per_address=ADDRESS_SOCKETS,
        max_sockets_per_user=USER_SOCKETS,
        connection_init_seconds=30,
        request_seconds=SECONDS,
        max_header_bytes=4096,
        max_request_bytes=100_000,
        max_json_depth=10,
        max_query_cost=100,
        max_errors=2,
        persisted_documents=documents,
        trusted_proxies=("127.0.0.1",),
        socket_send_seconds=SECONDS,
    )
    async with open_house(settings) as open_:
        yield open_


def port(house: House) -> int:
    url = httpx.URL(house.api.url)
    assert url.port is not None
    return url.port


# Slow and large requests


async def answer_to(house: House, *parts: bytes, hold: float = 0) -> bytes:
    """All that the gateway says to these bytes, until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(house))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(hold)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "head", [b"", b"POST", b"POST /graphql HTTP/1.1\r\nhost: x\r\nx-y: z"], ids=str
)
async def test_408_headers_that_do_not_end(house: House, head: bytes) -> None:
    began = time.monotonic()
    answer = await answer_to(house, head)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began >= SECONDS


async def test_408_the_second_requests_headers_do_not_end(house: House) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = await answer_to(house, whole + b"GET /healthz HTTP/1.1\r\nhost:")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


async def test_408_a_body_that_does_not_come(house: House) -> None:
    head = (
        b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 100\r\n\r\n"
    )
    answer = await answer_to(house, head, b'{"query"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"REQUEST_SECONDS" in answer


GET: Final = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED: Final = (
    b"POST /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
)


@pytest.mark.parametrize(
    "parts",
    [(GET, b"\r\n"), (GET, b"\r\n", b"\r\n"), (CHUNKED[:-4], b"1\r\n"), (CHUNKED, b"x: y\r\n")],
    ids=["a line", "two lines", "a body that nobody reads", "trailers"],
)
async def test_a_connection_that_goes_on_without_a_request_ends(
    house: House, parts: tuple[bytes, ...]
) -> None:
    answer = await answer_to(house, *parts, hold=0.1)
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 405 "))


async def test_431_trailers_without_end(house: House) -> None:
    answer = await answer_to(house, CHUNKED, *[b"x: yyyyyyyyyyyyyyyy\r\n" * 100] * 5, hold=0.01)
    assert b" 405 " in answer or b" 431 " in answer or answer == b""  # and it has ended
    assert (await house.api.post(json={"query": ANY})).status_code == 200


async def large_page(house: House) -> bytes:
    """A request whose answer is larger than what the system takes ahead."""
    somebody, backend = await house.somebody(), await house.somebody(Role.SERVICE)
    create = """mutation ($input: CreateNotificationInput!) {
      createNotification(input: $input) { notification { id } }
    }"""
    for _ in range(20):
        large = {"userId": somebody.id, "type": "PROMOTION", "content": "x" * 60_000}
        await backend.api.ask(create, input=large)
    body = json.dumps({"query": "{ notifications { edges { node { content } } } }"}).encode()
    head = (
        f"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {somebody.api.token}\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def asked(house: House, request: bytes) -> AsyncIterator[socket.socket]:
    """A client that has asked, and whose system takes little ahead of it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port(house)))
        await loop.sock_sendall(client, request)
        yield client


async def test_a_client_that_does_not_take_its_answer_is_cut_off(house: House) -> None:
    taken, loop = 0, asyncio.get_running_loop()
    async with asked(house, await large_page(house)) as client:
        await asyncio.sleep(4 * SECONDS)  # it takes nothing: there is nothing to wait for
        with suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE):
                while part := await loop.sock_recv(client, 65536):
                    taken += len(part)
    assert taken < 1_200_000


async def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(house: House) -> None:
    taken, loop = 0, asyncio.get_running_loop()
    async with asked(house, await large_page(house)) as client:
        began = time.monotonic()
        while part := await loop.sock_recv(client, 65536):
            taken += len(part)
            await asyncio.sleep(SECONDS / 50)
    assert taken > 1_200_000
    assert time.monotonic() - began > 2 * SECONDS


CHUNKED_POST: Final = (
    b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx: ",
        CHUNKED_POST + b"0\r\nx: ",
        CHUNKED_POST + b"1;x=",
        CHUNKED_POST + b"2\r\n{}\r\n0\r\n\r\nGET /",
    ],
    ids=["URL", "header", "trailer", "chunk", "URL of the next request"],
)
async def test_a_line_that_does_not_end_is_cut_off(house: House, start: bytes) -> None:
    """Long before REQUEST_SECONDS are over, whatever is still being answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(house))
    writer.write(start)
    sent = 0
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while not reader.at_eof() and sent < 1_000_000:
                writer.write(b"y" * 1000)
                sent += 1000
                await writer.drain()
                await asyncio.sleep(0.001)
    writer.close()
    assert sent < 200_000  # some of it is on its way while the end is


async def test_a_body_that_was_refused_is_no_next_request(house: House) -> None:
    head = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"  # no type: 415
    answer = await answer_to(house, head, b"x" * 50_000, hold=0.1)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 415 ")


UPGRADE: Final = (
    b"GET /graphql HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    b"sec-websocket-protocol: graphql-transport-ws\r\n"
)


@pytest.mark.parametrize(
    "headers",
    [b"content-length: 5\r\n", b"x: y\r\n" * 200, b"x: %s\r\n" % (b"y" * 5000)],
    ids=["body", "many", "large"],
)
async def test_a_handshake_that_is_refused_ends(
    house: House, headers: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answer_to(house, UPGRADE + headers + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1") == 1
    assert "Fatal error" not in caplog.text


@pytest.mark.parametrize("headers", [b"x: %s\r\n" % (b"y" * 9000), b"x: y\r\n" * 2000], ids=len)
async def test_431_headers_that_are_too_large(house: House, headers: bytes) -> None:
    answer = await answer_to(house, b"GET /healthz HTTP/1.1\r\nhost: x\r\n", headers)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""  # cut off while we still sent
    assert (await house.api.post(json={"query": ANY})).status_code == 200


async def test_413_a_body_that_is_too_large(house: House) -> None:
    response = await house.api.post(json={"query": "#" * 200_000})
    assert response.status_code == 413
    assert "MAX_REQUEST_BYTES" in response.json()["errors"][0]["message"]


async def test_415_a_compressed_body(house: House) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    assert (await house.api.post(content=b"{}", headers=headers)).status_code == 415


async def test_415_another_charset(house: House) -> None:
    for charset, expected in (("utf-16", 415), ("latin-1", 415), ("UTF-8", 200)):
        headers = {"content-type": f"application/json; charset={charset}"}
        response = await house.api.post(content=b'{"query": "{ __typename }"}', headers=headers)
        assert response.status_code == expected


async def test_406_a_type_that_is_not_to_be_had(house: House) -> None:
    for accept in ("image/png", "nonsense", "application/json;q=0", "text/event-stream"):
        response = await house.api.post(json={"query": ANY}, headers={"accept": accept})
        assert response.status_code == 406


async def test_the_type_that_is_liked_best_is_answered(house: House) -> None:
    newer, older = "application/graphql-response+json", "application/json"
    for accept, best in (
        (f"{older};q=0.5, {newer}", newer),
        (f"{older}, {newer};q=0.5", older),
        ("application/*", older),
        ("text/html, */*", older),
        ("Application/JSON", older),
        (f"nonsense, {newer},x", newer),
        ("", older),
    ):
        response = await house.api.post(json={"query": ANY}, headers={"accept": accept})
        assert response.headers["content-type"] == f"{best}; charset=utf-8", accept


async def test_json_that_is_nested_too_deeply_is_refused(house: House) -> None:
    def nested(levels: int) -> dict[str, Any]:
        value: Any = {}
        for _ in range(levels):
            value = {"a": value}
        return {"query": ANY, "variables": value}

    assert (await house.api.post(json=nested(8))).status_code == 200
    response = await house.api.post(json=nested(9))
    assert response.status_code == 400
    assert "MAX_JSON_DEPTH" in response.text


async def test_batches_are_refused(house: House) -> None:
    assert (await house.api.post(json=[{"query": ANY}] * 2)).status_code == 400


# Documents


async def test_what_costs_too_much_is_refused_before_it_is_done(house: House) -> None:
    somebody = await house.somebody()
    document = "query ($n: Int!) { notifications(first: $n) { edges { cursor node { id } } } }"
    await somebody.api.ask(document, n=49)
    with pytest.raises(GraphQLFailed) as failure:
        await somebody.api.ask(document, n=50)
    assert failure.value.extensions == {"code": "QUERY_TOO_COMPLEX", "cost": 101}
    # However it is written: as a default, or as a number that counts as an integer.
    for variables in ({}, {"n": 50.0}):
        by_default = document.replace("$n: Int!", "$n: Int = 50")
        with refused("QUERY_TOO_COMPLEX"):
            await somebody.api.ask(by_default, **variables)


async def test_a_costly_operation_is_refused_on_a_socket_too(house: House) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        stream = await socket.subscribe("{ notifications(first: 100) { edges { node { id } } } }")
        with refused("QUERY_TOO_COMPLEX"):
            await stream.next()


@pytest.mark.parametrize(
    ("document", "cost"),
    [
        ("{ unreadCount }", 1),
        ("{ me { id name email } }", 1),
        ("{ me { ...Named } } fragment Named on User { name preferences { version } }", 2),
        ("{ notifications(first: 10) { edges { cursor node { id title body } } } }", 21),
        ("{ notifications { edges { node { id } } } }", 41),
        ("{ notifications(last: 2) { pageInfo { endCursor } } }", 2),
        ("{ recommendations(first: 1) { name } }", 50),
        ("{ notifications(first: 9) { edges { node { content again: content } } } }", 37),
        ("{ __schema { types { name } } again: __schema { types { name } } }", 200),
        ("mutation { logout }", 10),
    ],
)
async def test_the_cost_is_told_to_who_asks_for_it(house: House, document: str, cost: int) -> None:
    api = (await house.somebody()).api
    asked = {"query": document, "extensions": {"cost": True}}
    assert (await api.post(json=asked)).json()["extensions"] == {"cost": cost}
    assert "extensions" not in (await api.post(json={"query": document})).json()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (f"{{ {'unreadCount ' * 31} }}", "31 root fields"),
        (f"{{ ...F }} fragment F on Query {{ {'unreadCount ' * 31} }}", "31 root fields"),
        (
            f"{{ __schema {{ {' '.join(f'a{n}: types {{ name }}' for n in range(31))} }} }}",
            "aliases",
        ),
        (f"{{ __typename }} #{'x' * 20_000}", "MAX_QUERY_LENGTH"),
        (f"subscription {{ unreadCount }} #{'x' * 2000}", "characters"),
        (f"subscription {{ unreadCount }} #{'x' * 2000}\nquery Q {{ me {{ id }} }}", "characters"),
    ],
)
async def test_a_document_that_is_too_much_is_refused(
    house: House, document: str, says: str
) -> None:
    async with (await house.somebody()).api.socket() as socket:
        with pytest.raises(GraphQLFailed, match=says) as failure:
            await (await socket.subscribe(document)).next()
    assert failure.value.code == "QUERY_TOO_COMPLEX"


@pytest.mark.parametrize("digits", [20, 400, 5000])
async def test_a_number_of_many_digits_is_no_fault_of_ours(house: House, digits: int) -> None:
    number = "9" * digits
    somebody = await house.somebody(Role.SERVICE)
    for document in (
        f"{{ notifications(first: {number}) {{ edges {{ cursor }} }} }}",
        f"query ($n: Int = {number}) {{ notifications(first: $n) {{ edges {{ cursor }} }} }}",
        f'mutation {{ createNotification(input: {{ userId: "{somebody.id}", type: PROMOTION,'
        f" content: {{ n: {number} }} }}) {{ decision {{ outcome }} }} }}",
    ):
        with pytest.raises(GraphQLFailed) as failure:
            await somebody.api.ask(document)
        assert failure.value.code in ("GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT"), document


async def test_a_document_that_takes_long_to_validate_is_refused_before(house: House) -> None:
    for document in (
        f"{{ {'me { id } ' * 260} }}",
        f"{{ notifications {{ {'edges { node { id } } ' * 100} }} }}",
        f"{{ __typename }} fragment Unused on Query {{ {'me { id } ' * 260} }}",
    ):
        seconds = []
        for _ in range(3):  # others of this process work meanwhile
            began = time.process_time()
            with refused("QUERY_TOO_COMPLEX"):
                await house.api.ask(document)
            seconds.append(time.process_time() - began)
        assert min(seconds) < 0.3  # a whole second, if it were validated


async def test_text_that_takes_long_to_compose_is_refused_before(house: House) -> None:
    marks = "a" + "\u0301\u0316" * 10_000
    register = "mutation ($input: RegisterInput!) { register(input: $input) { accessToken } }"
    for name, email in ((marks, "a@shop.example"), ("A", f"{marks}@shop.example")):
        input = {"name": name, "email": email, "password": "a password for tests"}
        with pytest.raises(GraphQLFailed) as failure:
            await house.api.ask(register, input=input)
        assert failure.value.code == "BAD_USER_INPUT"
    login = "mutation ($input: LoginInput!) { login(input: $input) { accessToken } }"
    with refused("UNAUTHENTICATED"):
        await house.api.ask(login, input={"email": f"{marks}@x.example", "password": "x"})
    backend = await house.somebody(Role.SERVICE)
    create = """mutation ($input: CreateNotificationInput!) {
      createNotification(input: $input) { notification { id } }
    }"""
    input = {"userId": backend.id, "type": "PROMOTION", "content": marks}
    with refused("BAD_USER_INPUT", "input.content"):
        await backend.api.ask(create, input=input)


async def test_an_error_does_not_send_back_all_that_was_sent(house: House) -> None:
    response = await house.api.post(json={"query": f"{{ {'x' * 50_000} }}"})
    assert len(response.content) < 3000


async def test_fragments_that_multiply_are_counted_and_refused_at_once(house: House) -> None:
    api = (await house.somebody()).api
    fragments = [
        f"fragment F{n} on NotificationConnection {{ ...F{n + 1} ...F{n + 1} }}" for n in range(60)
    ]
    last = "fragment F60 on NotificationConnection { edges { cursor } }"
    document = f"{{ notifications(first: 1) {{ ...F0 }} }} {' '.join(fragments)} {last}"
    began = time.monotonic()
    with refused("QUERY_TOO_COMPLEX"):
        await api.ask(document)
    assert time.monotonic() - began < PATIENCE / 2


async def test_an_answer_tells_so_many_errors_and_no_more(house: House) -> None:
    response = await house.api.post(json={"query": "{ a b c d e f }"})
    assert len(response.json()["errors"]) == 2


async def test_a_known_document_is_asked_for_by_its_id(house: House) -> None:
    api = (await house.somebody()).api
    digest = hashlib.sha256(KNOWN.encode()).hexdigest()
    apollo = {"persistedQuery": {"version": 1, "sha256Hash": digest}}
    for named in (
        {"documentId": RELAYS_ID},
        {"documentId": f"sha256:{digest}"},
        {"extensions": apollo},
        {"extensions": apollo, "query": KNOWN},
    ):
        response = await api.post(json={**named, "variables": {"first": 1}})
        assert "edges" in response.json()["data"]["notifications"], named
    parameters = {"documentId": RELAYS_ID, "variables": '{"first": 1}'}
    async with http_client() as client:
        got = await client.get(api.url, params=parameters, headers=api.headers)
    assert "edges" in got.json()["data"]["notifications"]


async def test_an_unknown_document_is_told_in_apollos_words(house: House) -> None:
    unknown = {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}
    for named in ({"documentId": "nope"}, {"extensions": unknown}):
        response = await house.api.post(json=named)
        (error,) = response.json()["errors"]
        assert response.status_code == 200
        assert error["message"] == "PersistedQueryNotFound"
        assert error["extensions"] == {"code": "PERSISTED_QUERY_NOT_FOUND"}
    wrong = await house.api.post(json={"query": ANY, "extensions": unknown})
    assert wrong.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    again = await house.api.post(json={"extensions": unknown})  # what was sent is not kept
    assert again.json()["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"


async def test_known_documents_over_a_socket(house: House) -> None:
    api = (await house.somebody()).api
    async with api.socket() as socket:
        for id, expected in ((RELAYS_ID, "next"), ("nope", "error")):
            payload = {"query": "", "documentId": id, "variables": {"first": 1}}
            await socket.send({"id": id, "type": "subscribe", "payload": payload})
            message = await socket.receive()
            assert (message["id"], message["type"]) == (id, expected)
            if expected == "next":
                await socket.receive()  # complete


# Sockets


async def test_1013_idle_sockets_beyond_the_cap(house: House) -> None:
    """A thousand that never say whose they are; those that are there are not disturbed."""
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(raw_socket(house.api.url))
            for _ in range(ADDRESS_SOCKETS)
        ]
        for _ in range(20):
            await asyncio.gather(*(is_refused(house) for _ in range(50)))
        for socket in sockets:
            await (await socket.ping())
    await until(lambda: has_room(house))


async def is_refused(house: House) -> None:
    async with raw_socket(house.api.url) as socket, asyncio.timeout(PATIENCE):
        await socket.wait_closed()
    assert socket.close_code == 1013


async def has_room(house: House) -> bool:
    async with raw_socket(house.api.url) as socket:
        return await greeted(socket)


async def greeted(socket: ClientConnection) -> bool:
    try:
        await socket.send('{"type": "connection_init"}')
        return "connection_ack" in str(await socket.recv())
    except ConnectionClosed:
        return False


async def test_complete_ends_the_subscription_and_frees_what_it_held(house: House) -> None:
    def held() -> int:
        gc.collect()
        return sum(isinstance(one, Hints) for one in gc.get_objects())

    before = held()
    async with (await customer(house)).api.socket() as socket:
        streams = [await socket.subscribe(FOLLOW) for _ in range(3)]
        for _ in streams:
            await socket.receive()
        assert held() == before + 3
        for stream in streams:
            await socket.send({"id": stream.id, "type": "complete"})
        await until(lambda: held() == before)
        await (await socket.subscribe(FOLLOW)).next()


async def test_1009_a_message_that_is_too_large(house: House) -> None:
    async with house.api.socket() as socket:
        with suppress(ConnectionClosed):
            await socket.send({"type": "ping", "payload": {"x": "y" * 140_000}})
        assert await close_code(socket) == 1009


@pytest.mark.usefixtures("_log_put_back")
async def test_a_client_that_just_goes_away_is_no_fault(
    house: House, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("INFO")
    somebody = await house.somebody()
    init = json.dumps({"type": "connection_init", "payload": somebody.api.headers})
    for message in [init, "no message"] * 30:
        async with raw_socket(house.api.url) as connection:
            with suppress(ConnectionClosed):  # those before it may not have been missed yet
                await connection.send(message)
            connection.transport.abort()

    async def is_served() -> bool:
        with suppress(ConnectionClosed):
            async with somebody.api.socket() as socket:
                await (await socket.subscribe(FOLLOW)).next()
                return True
        return False

    await until(is_served)
    logged = capfd.readouterr().err
    assert "unexpected_error" not in logged
    assert "Exception in ASGI" not in logged


async def test_1013_a_socket_too_many_of_one_user(house: House) -> None:
    somebody, other = await house.somebody(), await house.somebody()
    async with somebody.api.socket(), somebody.api.socket(), somebody.api.socket():
        async with raw_socket(house.api.url) as connection:
            init = {"type": "connection_init", "payload": somebody.api.headers}
            await connection.send(json.dumps(init))
            assert await close_code(Socket(connection)) == 1013
        async with other.api.socket():  # who is somebody else is not held up
            pass
    async with somebody.api.socket():
        pass


async def test_sockets_that_say_whose_they_are_count_no_more_for_the_address(house: House) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(ADDRESS_SOCKETS + 2):
            somebody = await house.somebody()
            await stack.enter_async_context(somebody.api.socket())


async def test_behind_a_proxy_each_client_counts_for_itself(house: House) -> None:
    async with AsyncExitStack() as stack:

        async def open_from(address: str) -> ClientConnection:
            headers = {"x-forwarded-for": address}
            opening = raw_socket(house.api.url, additional_headers=headers)
            return await stack.enter_async_context(opening)

        for _ in range(ADDRESS_SOCKETS):
            await open_from("203.0.113.7")
        late, other = await open_from("203.0.113.7"), await open_from("203.0.113.8")
        assert await close_code(Socket(late)) == 1013
        assert await greeted(other)


def test_an_ipv6_address_counts_as_its_network() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2:ffff::1")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:203.0.113.7") == network_of("203.0.113.7") == "203.0.113.7"
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth0")


async def test_a_client_that_does_not_answer_the_close_is_cut_off(house: House) -> None:
    no_json = b"\x81\x81\x00\x00\x00\x00x"  # one frame of text, with a mask
    began = time.monotonic()
    answer = await answer_to(house, UPGRADE, b"\r\n", no_json)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert (4400).to_bytes(2, "big") in answer
    assert time.monotonic() - began < 5  # uvicorn would wait ten seconds


async def test_a_socket_keeps_nothing_that_nobody_asked_for(house: House) -> None:
    mark, somebody = uuid4().hex, await house.somebody()
    async with raw_socket(house.api.url) as connection:
        socket = Socket(connection)
        payload = {**somebody.api.headers, "more": {mark: []}}
        await socket.send({"type": "connection_init", "payload": payload})
        del payload
        assert (await socket.receive())["type"] == "connection_ack"
        subscribe = {"query": FOLLOW, "variables": {"more": {mark: []}}}
        extended = {**subscribe, "extensions": {"more": {mark: []}}}
        await socket.send({"id": "1", "type": "subscribe", "payload": extended})
        assert (await socket.receive())["type"] == "next"
        del subscribe, extended
        assert not [kept for kept in gc.get_objects() if type(kept) is dict and mark in kept]


# Headers


PATHS = ["/graphql", "/", "/healthz", "/readyz", "/nope", "/static/nope", "/unsubscribe/nope"]


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_carries_the_security_headers(house: House, path: str) -> None:
    async with http_client() as client:
        url = house.api.url.replace("/graphql", path)
        for accept in ("text/html", "application/json"):
            headers = (await client.get(url, headers={"accept": accept})).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-frame-options"] == "DENY"
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert "set-cookie" not in headers


async def test_a_document_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "documents.json"
    for content in ("", "[]", '{"a": 5}', '{"operations": [{}]}'):
        path.write_text(content)
        settings = quick_settings("", persisted_documents=path)
        with pytest.raises(CannotStart, match="PERSISTED_DOCUMENTS"):
            load_documents(settings)
    with pytest.raises(CannotStart, match="PERSISTED_DOCUMENTS"):
        load_documents(quick_settings("", only_persisted_documents=True))
