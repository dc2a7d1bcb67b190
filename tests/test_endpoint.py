"""The endpoint as protocols want it: over HTTP, over graphql-transport-ws, and in a browser.

https://graphql.github.io/graphql-over-http/draft/
https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from services.shared.vocabulary import Role
from tests.kit import (
    PASSWORD,
    PATIENCE,
    Api,
    GraphQLFailed,
    House,
    ShiftedClock,
    Socket,
    http_client,
    open_house,
    quick_settings,
    raw_socket,
)
from tests.servers import PrivateMongod, until

ANY = "{ __typename }"
ME = "{ me { id } }"
UNREAD = "subscription { unreadCount }"
LOGIN = """mutation ($email: String!, $password: String!) {
  login(input: { email: $email, password: $password }) { user { id } }
}"""
PAGE = "query ($first: Int) { notifications(first: $first) { edges { cursor } } }"
CREATE = """mutation ($input: CreateNotificationInput!) {
  createNotification(input: $input) { decision { outcome } }
}"""
JSON_TYPE = "application/json"
RESPONSE_TYPE = "application/graphql-response+json"
SHOP = "https://shop.example"
STRANGER = "https://evil.example"
MOST_OPERATIONS = 3
INIT_SECONDS = 1.0


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    settings = quick_settings(
        mongod.url,
        allowed_origins=(SHOP,),
        connection_init_seconds=INIT_SECONDS,
        max_operations_per_socket=MOST_OPERATIONS,
    )
    async with open_house(settings, clock) as open_:
        yield open_


async def request(house: House, method: str, path: str, **kwargs: Any) -> httpx.Response:
    async with http_client() as client:
        return await client.request(method, house.api.url.replace("/graphql", path), **kwargs)


async def post_body(api: Api, body: str | bytes, content_type: str = JSON_TYPE) -> httpx.Response:
    return await api.post(content=body, headers={"content-type": content_type})


def only_error(response: httpx.Response) -> Any:
    (error,) = response.json()["errors"]
    assert error["message"]
    return error


def is_refused(response: httpx.Response, field: str, status: int = 400) -> None:
    """Refused as no GraphQL request, in GraphQL's words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith(JSON_TYPE)
    assert set(response.json()) == {"errors"}
    assert only_error(response)["extensions"] == {"code": "BAD_USER_INPUT", "field": field}


# GraphQL over HTTP: requests


async def test_a_query_may_come_by_get(house: House) -> None:
    query = "query Q($name: String!) { __type(name: $name) { name } }"
    parameters = {"query": query, "variables": '{"name": "Query"}', "operationName": "Q"}
    response = await request(house, "GET", "/graphql", params=parameters)
    assert response.status_code == 200
    assert response.json() == {"data": {"__type": {"name": "Query"}}}


async def test_a_mutation_by_get_is_refused_and_not_done(house: House) -> None:
    somebody = await house.somebody()
    response = await request(
        house,
        "GET",
        "/graphql",
        params={"query": "mutation { logout }"},
        headers=somebody.api.headers,
    )
    is_refused(response, "query", status=405)
    assert response.headers["allow"] == "POST"
    assert (await somebody.api.ask(ME))["me"]["id"] == somebody.id


async def test_a_mutation_does_not_hide_behind_a_query_by_get(house: House) -> None:
    somebody = await house.somebody()
    document = "query Q { __typename } mutation M { logout }"
    parameters = {"query": document, "operationName": "M"}
    response = await request(
        house, "GET", "/graphql", params=parameters, headers=somebody.api.headers
    )
    is_refused(response, "query", status=405)
    assert (await somebody.api.ask(ME))["me"]["id"] == somebody.id


async def test_a_subscription_needs_a_websocket(house: House) -> None:
    somebody = await house.somebody()
    is_refused(await somebody.api.post(json={"query": UNREAD}), "query", status=200)
    parameters = {"query": UNREAD}
    is_refused(await request(house, "GET", "/graphql", params=parameters), "query", status=200)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"query",
        b"{'query': '{ __typename }'}",
        b'{"query": "\xff\xfe"}',
        b'{"query": "\\ud800"}',
        b'\xef\xbb\xbf{"query": "{ __typename }"}',
        b"[" * 1000 + b"]" * 1000,
        b'{"query": "{ __typename }", "variables": {"a": NaN}}',
        b'{"query": "{ __typename }", "variables": {"a": %s}}' % (b"9" * 5000),
        b'[{"query": "{ __typename }"}]',
        b"[]",
        b"5",
        b'"{ __typename }"',
        b"true",
        b"null",
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_a_body_that_is_no_json_object_is_refused(house: House, body: bytes) -> None:
    is_refused(await post_body(house.api, body), "request")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": None}, "query"),
        ({"query": 5}, "query"),
        ({"query": [ANY]}, "query"),
        ({"query": ANY, "variables": []}, "variables"),
        ({"query": ANY, "variables": "{}"}, "variables"),
        ({"query": ANY, "extensions": 5}, "extensions"),
        ({"query": ANY, "operationName": ["Nope"]}, "operationName"),
        ({"query": ANY, "operationName": 5}, "operationName"),
    ],
    ids=str,
)
async def test_a_part_of_a_request_that_is_wrong_is_named(
    house: House, body: object, field: str
) -> None:
    is_refused(await post_body(house.api, json.dumps(body)), field)


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (ANY, "Nope"),
        ("fragment F on Query { __typename }", None),
        ("query A { __typename } query B { __typename }", None),
    ],
)
async def test_a_document_without_the_operation_is_a_request_all_the_same(
    house: House, document: str, name: str | None
) -> None:
    for accept, status in ((JSON_TYPE, 200), (RESPONSE_TYPE, 400)):
        response = await house.api.post(
            json={"query": document, "operationName": name}, headers={"accept": accept}
        )
        assert response.status_code == status
        extensions = {"code": "BAD_USER_INPUT", "field": "operationName"}
        assert only_error(response)["extensions"] == extensions


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ("5", "variables"),
        ("[]", "variables"),
        ('"x"', "variables"),
        ("{", "request"),
        ('{"a": "\\ud800"}', "request"),
    ],
)
async def test_variables_in_a_url_are_checked_as_well(
    house: House, variables: str, field: str
) -> None:
    parameters = {"query": ANY, "variables": variables}
    is_refused(await request(house, "GET", "/graphql", params=parameters), field)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_what_a_plain_form_could_send_is_refused(house: House, content_type: str) -> None:
    """A page of another origin can post these with the visitor's network, without being asked."""
    response = await post_body(house.api, json.dumps({"query": ANY}), content_type)
    is_refused(response, "content-type", status=415)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(house: House, method: str) -> None:
    response = await request(house, method, "/graphql")
    is_refused(response, "method", status=405)
    assert response.headers["allow"] == "GET, POST"


async def test_operation_name_chooses_the_operation(house: House) -> None:
    document = "query A { a: __typename } query B { b: __typename }"
    for name in ("A", "B"):
        response = await house.api.post(json={"query": document, "operationName": name})
        assert response.json() == {"data": {name.lower(): "Query"}}


# GraphQL over HTTP: answers

REQUEST_ERRORS: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "syntax": ("{ me {", {}, "GRAPHQL_PARSE_FAILED"),
    "nothing": ("   ", {}, "GRAPHQL_PARSE_FAILED"),
    "validation": ("{ nope }", {}, "GRAPHQL_VALIDATION_FAILED"),
    "variables": (PAGE, {"first": "x"}, "BAD_USER_INPUT"),
    "tokens": ("{ " + "__typename " * 3000 + "}", {}, "QUERY_TOO_COMPLEX"),
}


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        (RESPONSE_TYPE, 400, RESPONSE_TYPE),
        (f"{RESPONSE_TYPE}; charset=utf-8, {JSON_TYPE}; q=0.9", 400, RESPONSE_TYPE),
        (JSON_TYPE, 200, JSON_TYPE),
        ("*/*", 200, JSON_TYPE),
    ],
)
async def test_a_document_that_can_not_run_is_answered_without_data(
    house: House, kind: str, accept: str, status: int, content_type: str
) -> None:
    document, variables, code = REQUEST_ERRORS[kind]
    response = await house.api.post(
        json={"query": document, "variables": variables}, headers={"accept": accept}
    )
    assert response.status_code == status
    assert response.headers["content-type"].partition(";")[0] == content_type
    assert set(response.json()) == {"errors"}
    assert only_error(response)["extensions"]["code"] == code


async def test_a_document_that_ran_is_answered_with_data_and_200(house: House) -> None:
    for accept in (RESPONSE_TYPE, JSON_TYPE):
        response = await house.api.post(json={"query": ME}, headers={"accept": accept})
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == accept
        assert response.json()["data"] is None
        assert only_error(response)["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_a_field_that_fails_leaves_the_others(house: House) -> None:
    somebody = await house.somebody()
    response = await somebody.api.post(json={"query": '{ unreadCount user(id: "x") { id } }'})
    assert set(response.json()["data"]) == {"unreadCount", "user"}
    error = only_error(response)
    assert (error["path"], error["extensions"]) == (["user"], {"code": "FORBIDDEN"})


@pytest.mark.parametrize(
    "value", ["x", 1.5, True, [1], {"a": 1}, 2**31, 2**70], ids=lambda value: repr(value)
)
async def test_a_variable_that_does_not_fit_is_named(house: House, value: object) -> None:
    response = await house.api.post(json={"query": PAGE, "variables": {"first": value}})
    assert only_error(response)["extensions"] == {"code": "BAD_USER_INPUT", "field": "first"}


async def test_every_error_of_an_answer_has_a_code(house: House) -> None:
    response = await house.api.post(json={"query": "{ nope me { nope } user { id } }"})
    codes = [error["extensions"]["code"] for error in response.json()["errors"]]
    assert codes == ["GRAPHQL_VALIDATION_FAILED"] * 3


async def test_what_nobody_expected_is_masked_and_logged(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    somebody = await house.somebody()
    await until(lambda: _is_welcomed(somebody.api))
    users = house.runtime.store.database["users"]
    await users.update_one({"email": somebody.email}, {"$unset": {"name": ""}})
    response = await somebody.api.post(json={"query": ME})
    assert response.status_code == 200
    assert response.json()["data"] is None
    error = only_error(response)
    assert set(error) == {"message", "locations", "path", "extensions"}
    assert set(error["extensions"]) == {"code", "correlationId"}
    assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    id = error["extensions"]["correlationId"]
    assert error["message"] == (
        f"Something went wrong on our side. Tell us the correlation id {id}."
    )
    output = capsys.readouterr()
    logged = output.out + output.err
    assert id in logged
    assert "ValidationError" in logged


async def _is_welcomed(api: Api) -> bool:
    return bool((await api.ask("{ unreadCount }"))["unreadCount"])


# Limits of a document


def nested(levels: int) -> str:
    return "{ a " * levels + "}" * levels


def aliased(count: int) -> str:
    return "{ " + " ".join(f"a{number}: unreadCount" for number in range(count)) + " }"


SPREAD = f"""
query {{ ...A ...B }}
fragment A on Query {{ a: unreadCount ...B }}
fragment B on Query {aliased(16)}
"""


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (nested(13), "13 levels deep; 12 is the most"),
        (nested(300), "nested too deeply"),
        ("{ notification(id: " + "[" * 300 + "]" * 300 + ") { id } }", "nested too deeply"),
        (aliased(31), "31 aliases; 30 is the most"),
        (SPREAD, "33 aliases; 30 is the most"),
        ("{ " + "id " * 2000 + "}", "more than 2000 tokens"),
    ],
    ids=["depth", "endless depth", "endless list", "aliases", "spread aliases", "tokens"],
)
async def test_a_document_that_asks_for_too_much_is_refused(
    house: House, document: str, says: str
) -> None:
    somebody = await house.somebody()
    response = await somebody.api.post(json={"query": document})
    errors = [
        error
        for error in response.json()["errors"]
        if error["extensions"] == {"code": "QUERY_TOO_COMPLEX"}
    ]
    assert len(errors) == 1
    assert says in errors[0]["message"]
    assert "data" not in response.json()


async def test_a_document_at_the_limit_is_answered(house: House) -> None:
    somebody = await house.somebody()
    answer = await somebody.api.ask(aliased(30))
    assert len(answer) == 30


async def test_a_fragment_that_contains_itself_ends(house: House) -> None:
    document = "{ ...A } fragment A on Query { a: __typename ...B } fragment B on Query { ...A }"
    with pytest.raises(GraphQLFailed) as failure:
        await house.api.ask(document)
    assert failure.value.code == "GRAPHQL_VALIDATION_FAILED"


# graphql-transport-ws: what ends a socket


async def close_code(connection: ClientConnection) -> int:
    """The code with which the server ends the socket, after whatever it says before."""
    async with asyncio.timeout(PATIENCE):
        await connection.wait_closed()
    assert connection.close_code is not None
    return connection.close_code


def subscribe(document: str = ANY, id: str = "1", **payload: Any) -> dict[str, Any]:
    return {"id": id, "type": "subscribe", "payload": {"query": document, **payload}}


@pytest.mark.parametrize("early", [True, False], ids=["before init", "after init"])
@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "{",
        b"{}",
        '{"type": "ping", "payload": {"a": "\\ud800"}}',
        "[" * 1000 + "]" * 1000,
        "[]",
        "5",
        "null",
        '"ping"',
        "{}",
        '{"type": null}',
        '{"type": "nope"}',
        '{"type": "start", "id": "1", "payload": {"query": "{ __typename }"}}',
        '{"type": ["ping"]}',
        '{"type": {"a": 1}}',
        '{"type": "ping", "payload": 5}',
        '{"type": "pong", "payload": []}',
        '{"type": "complete"}',
        '{"type": "complete", "id": 1}',
        '{"type": "complete", "id": ["1"]}',
        '{"type": "subscribe", "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": [], "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": null, "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ __typename }"}}',
        f'{{"type": "subscribe", "id": "{"1" * 201}", "payload": {{"query": "{{a}}"}}}}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": "subscribe", "id": "1", "payload": null}',
        '{"type": "subscribe", "id": "1", "payload": []}',
        '{"type": "subscribe", "id": "1", "payload": {}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": 5}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "variables": []}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "operationName": 5}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{a}", "extensions": 5}}',
    ],
    ids=lambda message: repr(message[:70]),
)
async def test_4400_a_message_that_is_none(house: House, message: str | bytes, early: bool) -> None:
    async with raw_socket(house.api.url) as connection:
        if not early:
            await connection.send('{"type": "connection_init"}')
            assert json.loads(await connection.recv())["type"] == "connection_ack"
        await connection.send(message)
        assert await close_code(connection) == 4400


@pytest.mark.parametrize("payload", [[], "x", 5, True])
async def test_4400_a_connection_init_with_a_wrong_payload(house: House, payload: object) -> None:
    async with raw_socket(house.api.url) as connection:
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert await close_code(connection) == 4400


async def test_4409_an_id_of_many_bytes(house: House) -> None:
    somebody, id = await house.somebody(), "\U0001f6cd" * 200
    async with somebody.api.socket() as socket:
        for _ in range(2):
            await socket.send(subscribe(UNREAD, id))
        assert await close_code(socket.connection) == 4409


async def test_an_executed_query_is_told_as_over_http(house: House) -> None:
    over_http = (await house.api.post(json={"query": ME})).json()
    async with house.api.socket() as socket:
        await socket.send(subscribe(ME))
        message = await socket.receive()
    assert message == {"id": "1", "type": "next", "payload": over_http}
    assert over_http["data"] is None


async def test_4401_subscribe_before_the_acknowledgement(house: House) -> None:
    async with raw_socket(house.api.url) as connection:
        await connection.send(json.dumps(subscribe()))
        assert await close_code(connection) == 4401


@pytest.mark.parametrize("token", ["x", "Bearer x", "Bearer ", "Basic eDp4", 5, ["x"], {}])
async def test_4403_a_token_that_is_not_valid(house: House, token: object) -> None:
    async with raw_socket(house.api.url) as connection:
        payload = {"Authorization": token}
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert await close_code(connection) == 4403


async def test_4403_a_token_that_has_expired(house: House, clock: ShiftedClock) -> None:
    somebody = await house.somebody()
    with clock.moved(timedelta(hours=1)):
        async with raw_socket(house.api.url) as connection:
            init = {"type": "connection_init", "payload": somebody.api.headers}
            await connection.send(json.dumps(init))
            assert await close_code(connection) == 4403


async def test_4403_when_the_token_expires(house: House, clock: ShiftedClock) -> None:
    somebody = await house.somebody()
    almost = timedelta(seconds=house.runtime.settings.access_token_seconds - 3)
    with clock.moved(almost):
        async with somebody.api.socket() as socket:
            stream = await socket.subscribe(UNREAD)
            await stream.next()
            loop = asyncio.get_running_loop()
            start = loop.time()
            assert await close_code(socket.connection) == 4403
            assert loop.time() - start < 3.5
    assert (await somebody.api.ask(ME))["me"]["id"] == somebody.id


@pytest.mark.parametrize("offered", [None, ["graphql-ws"], ["x", "y"]])
async def test_4406_a_subprotocol_that_is_not_spoken(
    house: House, offered: list[str] | None
) -> None:
    subprotocols = [Subprotocol(name) for name in offered or []] or None
    address = house.api.url.replace("http", "ws", 1)
    async with connect(address, subprotocols=subprotocols, proxy=None) as connection:
        assert connection.subprotocol is None
        assert await close_code(connection) == 4406


async def test_the_subprotocol_is_chosen_from_many(house: House) -> None:
    address = house.api.url.replace("http", "ws", 1)
    offered = [Subprotocol("graphql-ws"), Subprotocol("graphql-transport-ws")]
    async with connect(address, subprotocols=offered, proxy=None) as connection:
        assert connection.subprotocol == "graphql-transport-ws"


async def test_4408_no_connection_init_in_time(house: House) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with raw_socket(house.api.url) as connection:
        await connection.send('{"type": "ping"}')
        assert await close_code(connection) == 4408
    assert loop.time() - start > INIT_SECONDS * 0.9


async def test_4409_an_id_that_is_in_use(house: House) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        for _ in range(2):
            await socket.send(subscribe(UNREAD))
        assert await close_code(socket.connection) == 4409


async def test_4429_a_second_connection_init(house: House) -> None:
    somebody = await house.somebody()
    for api in (house.api, somebody.api):
        async with api.socket() as socket:
            await socket.send({"type": "connection_init", "payload": api.headers})
            assert await close_code(socket.connection) == 4429


# graphql-transport-ws: what goes over a socket


async def answers(socket: Socket, document: str, **payload: Any) -> list[Any]:
    """All messages about one operation, until the last."""
    await socket.send(subscribe(document, "an operation", **payload))
    messages = [await socket.receive()]
    while messages[-1]["type"] == "next":
        messages.append(await socket.receive())
    assert {message["id"] for message in messages} == {"an operation"}
    return messages


async def still_lives(socket: Socket) -> None:
    result, complete = await answers(socket, ANY)
    assert result["payload"] == {"data": {"__typename": "Query"}}
    assert complete["type"] == "complete"


@pytest.mark.parametrize("payload", [None, {}, {"a": 1}], ids=str)
async def test_the_acknowledgement_has_no_payload(house: House, payload: object) -> None:
    async with raw_socket(house.api.url) as connection:
        await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await connection.recv()) == {"type": "connection_ack"}


async def test_a_ping_is_answered_with_its_payload_at_any_time(house: House) -> None:
    payload = {"text": "ü", "numbers": [1, 0.5, None]}
    async with raw_socket(house.api.url) as connection:
        socket = Socket(connection)
        await socket.send({"type": "ping", "payload": payload})
        assert await socket.receive() == {"type": "pong", "payload": payload}
        await socket.send({"type": "connection_init"})
        assert await socket.receive() == {"type": "connection_ack"}
        await socket.send({"type": "ping"})
        assert await socket.receive() == {"type": "pong"}
        await socket.send({"type": "pong", "payload": payload})
        await still_lives(socket)


async def test_a_query_and_a_mutation_go_over_a_socket(house: House) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        result, complete = await answers(socket, ME)
        assert result["payload"] == {"data": {"me": {"id": somebody.id}}}
        assert complete == {"id": "an operation", "type": "complete"}
        mutation = "mutation M { updatePreferences(input: {}) { version } }"
        result, complete = await answers(socket, mutation, operationName="M", variables=None)
        assert result["payload"] == {"data": {"updatePreferences": {"version": 1}}}
        assert complete["type"] == "complete"


async def test_a_field_that_fails_is_part_of_the_result(house: House) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        result, _ = await answers(socket, '{ unreadCount user(id: "x") { id } }')
        assert result["payload"]["data"]["user"] is None
        assert result["payload"]["errors"][0]["extensions"] == {"code": "FORBIDDEN"}


@pytest.mark.parametrize(
    ("document", "variables", "code"),
    [
        ("{", {}, "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", {}, "GRAPHQL_VALIDATION_FAILED"),
        (UNREAD.replace("}", "other: unreadCount }"), {}, "GRAPHQL_VALIDATION_FAILED"),
        ("fragment F on Query { __typename }", {}, "BAD_USER_INPUT"),
        ("", {}, "GRAPHQL_PARSE_FAILED"),
        ("query A { __typename } query B { __typename }", {}, "BAD_USER_INPUT"),
        (PAGE, {"first": "x"}, "BAD_USER_INPUT"),
        ("{ " + "__typename " * 3000 + "}", {}, "QUERY_TOO_COMPLEX"),
        (nested(300), {}, "QUERY_TOO_COMPLEX"),
        ('subscription { notificationAdded(after: "x") { cursor } }', {}, "BAD_USER_INPUT"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_an_operation_that_can_not_run_ends_with_an_error_and_the_socket_lives(
    house: House, document: str, variables: dict[str, Any], code: str
) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        (message,) = await answers(socket, document, variables=variables)
        assert message["type"] == "error"
        assert message["payload"][0]["extensions"]["code"] == code
        await still_lives(socket)


async def test_what_nobody_expected_in_a_subscription_is_a_masked_error_message(
    house: House,
) -> None:
    somebody = await house.somebody()
    await until(lambda: _is_welcomed(somebody.api))
    page = (await somebody.api.ask(PAGE))["notifications"]
    after = page["edges"][0]["cursor"]
    service = await house.somebody(Role.SERVICE)
    input = {"userId": somebody.id, "type": "PROMOTION", "content": "Hello"}
    await service.api.ask(CREATE, input=input)
    rows = house.runtime.store.database["notifications"]
    await rows.update_many({"user_id": somebody.id}, {"$unset": {"title": ""}})
    document = "subscription ($after: String) { notificationAdded(after: $after) { cursor } }"
    async with somebody.api.socket() as socket:
        (message,) = await answers(socket, document, variables={"after": after})
        assert message["type"] == "error"
        (error,) = message["payload"]
        assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
        assert error["extensions"]["correlationId"] in error["message"]
        await still_lives(socket)


async def test_complete_frees_the_id(house: House) -> None:
    somebody = await house.somebody()
    await until(lambda: _is_welcomed(somebody.api))
    async with somebody.api.socket() as socket:
        for _ in range(MOST_OPERATIONS * 3):
            await socket.send(subscribe(UNREAD))
            assert (await socket.receive())["type"] == "next"
            await socket.send({"id": "1", "type": "complete"})
        await socket.send({"id": "never used", "type": "complete"})
        await still_lives(socket)


async def test_an_operation_that_the_document_has_not_ends_with_an_error(house: House) -> None:
    async with house.api.socket() as socket:
        (message,) = await answers(socket, ANY, operationName="Nope")
        assert message["type"] == "error"
        extensions = {"code": "BAD_USER_INPUT", "field": "operationName"}
        assert message["payload"][0]["extensions"] == extensions
        await still_lives(socket)


async def test_one_operation_too_many_is_refused_and_the_others_go_on(house: House) -> None:
    somebody = await house.somebody()
    await until(lambda: _is_welcomed(somebody.api))
    async with somebody.api.socket() as socket:
        for number in range(MOST_OPERATIONS):
            await socket.send(subscribe(UNREAD, str(number)))
            assert (await socket.receive())["type"] == "next"
        (message,) = await answers(socket, ME)
        assert message["type"] == "error"
        assert message["payload"][0]["extensions"] == {"code": "QUERY_TOO_COMPLEX"}
        await socket.send({"id": "0", "type": "complete"})
        await still_lives(socket)


async def test_a_stranger_on_a_socket_may_log_in_but_not_subscribe(house: House) -> None:
    somebody = await house.somebody()
    async with house.api.socket() as socket:
        result, _ = await answers(socket, ME)
        assert result["payload"]["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
        for document in (UNREAD, "subscription { notificationAdded { cursor } }"):
            (message,) = await answers(socket, document)
            assert message["type"] == "error"
            assert message["payload"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
        variables = {"email": somebody.email, "password": PASSWORD}
        result, _ = await answers(socket, LOGIN, variables=variables)
        assert result["payload"] == {"data": {"login": {"user": {"id": somebody.id}}}}
        (message,) = await answers(socket, UNREAD)
        assert message["type"] == "error"


@pytest.mark.parametrize(
    "name", ["authorization", "Authorization", "AUTHORIZATION", "aUtHoRiZaTiOn"]
)
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  ", ""])
async def test_the_token_counts_in_any_casing(house: House, name: str, scheme: str) -> None:
    somebody = await house.somebody()
    async with house.api.socket(init={name: f"{scheme}{somebody.api.token}"}) as socket:
        result, _ = await answers(socket, ME)
        assert result["payload"] == {"data": {"me": {"id": somebody.id}}}
    response = await house.api.post(
        json={"query": ME}, headers={name: f"{scheme}{somebody.api.token}"}
    )
    assert response.json() == {"data": {"me": {"id": somebody.id}}}


async def test_the_token_of_connection_init_counts_before_the_headers(house: House) -> None:
    somebody, other = await house.somebody(), await house.somebody()
    for init, expected in (({}, other), (somebody.api.headers, somebody)):
        headers = other.api.headers
        async with raw_socket(house.api.url, additional_headers=headers) as connection:
            socket = Socket(connection)
            await socket.send({"type": "connection_init", "payload": init})
            assert (await socket.receive())["type"] == "connection_ack"
            result, _ = await answers(socket, ME)
            assert result["payload"] == {"data": {"me": {"id": expected.id}}}


# What a browser sees


async def test_health_and_readiness_are_told(house: House) -> None:
    assert (await request(house, "GET", "/healthz")).json() == {"status": "ok"}
    assert (await request(house, "GET", "/readyz")).json() == {"status": "ready"}


async def test_without_a_demo_the_front_door_leads_to_graphql(house: House) -> None:
    response = await request(house, "GET", "/")
    assert response.is_redirect
    assert response.headers["location"] == "/graphql"


async def test_a_browser_is_shown_graphiql_from_here_and_nowhere_else(house: House) -> None:
    response = await request(house, "GET", "/graphql", headers={"accept": "text/html,*/*;q=0.8"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    policy = dict(
        directive.split(" ", 1)
        for directive in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    needed = re.findall(r'(?:src|href)="([^"]*)"', response.text)
    assert needed
    for address in needed:
        assert address.startswith("/static/"), address
        assert (await request(house, "GET", address)).status_code == 200, address


async def test_who_asks_for_json_without_a_query_is_told_so(house: House) -> None:
    response = await request(house, "GET", "/graphql", headers={"accept": JSON_TYPE})
    is_refused(response, "query")


async def test_nothing_outside_of_static_is_served(house: House) -> None:
    for path in ("/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/nope"):
        assert (await request(house, "GET", path)).status_code == 404, path


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }


async def test_pages_of_known_origins_may_use_the_api(house: House) -> None:
    response = await request(house, "OPTIONS", "/graphql", headers=preflight(SHOP))
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == SHOP
    response = await house.api.post(json={"query": ANY}, headers={"origin": SHOP})
    assert response.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", f"{SHOP}.evil.example", "http://shop.example"]
)
async def test_pages_of_other_origins_may_not(house: House, origin: str) -> None:
    response = await request(house, "OPTIONS", "/graphql", headers=preflight(origin))
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers
    response = await house.api.post(json={"query": ANY}, headers={"origin": origin})
    assert "access-control-allow-origin" not in response.headers
    with pytest.raises(InvalidStatus) as refusal:
        async with raw_socket(house.api.url, origin=Origin(origin)):
            pass
    assert refusal.value.response.status_code == 403


async def test_sockets_of_known_origins_and_of_our_own_pages_open(house: House) -> None:
    for origin in (SHOP, house.api.url.removesuffix("/graphql")):
        async with raw_socket(house.api.url, origin=Origin(origin)) as connection:
            await connection.send('{"type": "connection_init"}')
            assert json.loads(await connection.recv()) == {"type": "connection_ack"}
