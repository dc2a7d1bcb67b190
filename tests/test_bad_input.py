"""Whatever callers send through GraphQL: a code, words that help, and nothing half-written.

Every test here is checked to leave each collection of the database with as many rows as before.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.shared.vocabulary import Role
from tests.kit import (
    PASSWORD,
    Api,
    GraphQLFailed,
    House,
    ShiftedClock,
    Somebody,
)
from tests.servers import until

ME = "{ me { id } }"
REGISTER = "mutation ($input: RegisterInput!) { register(input: $input) { user { id } } }"
LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { expiresAt } }"
REFRESH = "mutation ($token: String!) { refreshSession(refreshToken: $token) { expiresAt } }"
TRACK = "mutation ($input: ActivityInput!) { trackActivity(input: $input) }"
ONE = "query ($id: ID!) { notification(id: $id) { id } }"
READ = "mutation ($id: ID!) { markNotificationRead(id: $id) { read } }"
ARCHIVE = "mutation ($id: ID!) { archiveNotification(id: $id) { archived } }"
MARK_ALL = "mutation ($upTo: String) { markAllNotificationsRead(upTo: $upTo) { marked } }"
PAGE = """query ($first: Int, $after: String, $last: Int, $before: String) {
  notifications(first: $first, after: $after, last: $last, before: $before) { edges { cursor } }
}"""
ADDED = "subscription ($after: String) { notificationAdded(after: $after) { cursor } }"
CREATE = """mutation ($input: CreateNotificationInput!) {
  createNotification(input: $input) { notification { id } decision { outcome } }
}"""
ORDER = "mutation ($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
PROMOTION = "mutation ($input: PromotionInput!) { publishPromotion(input: $input) { eventId } }"
SCHEDULE = "mutation ($input: ScheduleInput!) { createSchedule(input: $input) { id } }"
CHANGE = """mutation ($id: ID!, $input: ScheduleInput!) {
  updateSchedule(id: $id, input: $input) { id }
}"""
NO_ID = "000000000000000000000000"
DEDUP_KEY = "an order's receipt"


@dataclass(frozen=True)
class Cast:
    """Who plays: `notification` is the reader's, `cursor` is of the reader's newest."""

    reader: Somebody
    stranger: Somebody
    service: Somebody
    admin: Somebody
    notification: str
    cursor: str
    schedule: str


@pytest.fixture(scope="module")
async def cast(house: House) -> Cast:
    reader, stranger = await house.somebody(), await house.somebody()
    service, admin = await house.somebody(Role.SERVICE), await house.somebody(Role.ADMIN)
    made = await service.api.ask(CREATE, input=notification(reader, dedupKey=DEDUP_KEY))
    schedule = await admin.api.ask(SCHEDULE, input=a_schedule())
    for somebody in (reader, stranger, service, admin):
        await until(lambda one=somebody: _is_welcomed(one))  # type: ignore[misc]
    await until(lambda: _is_quiet(house))
    page = (await reader.api.ask(PAGE))["notifications"]
    return Cast(
        reader=reader,
        stranger=stranger,
        service=service,
        admin=admin,
        notification=made["createNotification"]["notification"]["id"],
        cursor=page["edges"][0]["cursor"],
        schedule=schedule["createSchedule"]["id"],
    )


@pytest.fixture(autouse=True)
async def nothing_is_written(house: House, cast: Cast) -> AsyncIterator[None]:
    before = await _rows(house)
    yield
    assert await _rows(house) == before


async def _rows(house: House) -> dict[str, int]:
    database = house.runtime.store.database
    counted = {"allowances", "minute_counts", "processes"}  # whatever is refused
    names = set(await database.list_collection_names()) - counted
    return {name: await database[name].count_documents({}) for name in sorted(names)}


async def _is_welcomed(somebody: Somebody) -> bool:
    page = await somebody.api.ask("{ notifications { edges { node { title } } } }")
    titles = [edge["node"]["title"] for edge in page["notifications"]["edges"]]
    return any(title.startswith("Welcome") for title in titles)


async def _is_quiet(house: House) -> bool:
    rows = await _rows(house)
    return not rows.get("outbox") and not rows.get("embedded_queue")


def notification(reader: Somebody, **changes: Any) -> dict[str, Any]:
    return {"userId": reader.id, "type": "ORDER_UPDATE", "content": "Thank you!"} | changes


def a_schedule(**changes: Any) -> dict[str, Any]:
    event = {"type": "promotion.announced", "data": {"title": "Sale", "body": "Today."}}
    return {"name": uuid4().hex, "cron": "0 0 29 2 *", "event": event} | changes


def a_registration(**changes: Any) -> dict[str, Any]:
    return {"name": "A", "email": f"{uuid4().hex}@shop.example", "password": PASSWORD} | changes


async def refusal(
    api: Api,
    document: str,
    code: str,
    field: str | None = None,
    *,
    says: str = "",
    status: int = 200,
    **variables: Any,
) -> str:
    """The message of the one error that this must be answered with."""
    body = json.dumps({"query": document, "variables": variables})  # surrogates as escapes
    return await refusal_of(api, body.encode(), code, field, says=says, status=status)


async def refusal_of(
    api: Api, body: bytes, code: str, field: str | None = None, *, says: str = "", status: int = 200
) -> str:
    response = await api.post(content=body, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    answer = response.json()
    assert not any((answer.get("data") or {}).values()), answer
    (error,) = answer["errors"]
    assert set(error["extensions"]) == ({"code", "field"} if field else {"code"})
    assert (error["extensions"]["code"], error["extensions"].get("field")) == (code, field), error
    assert says in error["message"]
    assert len(error["message"]) < 1000
    message: str = error["message"]
    return message


# Documents that do not fit the schema


async def test_an_unknown_field_is_named(house: House) -> None:
    says = "Cannot query field 'nope' on type 'Query'."
    await refusal(house.api, "{ nope }", "GRAPHQL_VALIDATION_FAILED", says=says)


async def test_an_unknown_argument_is_named(house: House) -> None:
    says = "Unknown argument 'limit'"
    document = "{ notifications(limit: 5) { edges { cursor } } }"
    await refusal(house.api, document, "GRAPHQL_VALIDATION_FAILED", says=says)


async def test_an_unknown_type_is_named(house: House) -> None:
    document = "query ($input: NopeInput!) { notification(id: $input) { id } }"
    says = "Unknown type 'NopeInput'"
    await refusal(house.api, document, "GRAPHQL_VALIDATION_FAILED", says=says)


async def test_an_unknown_notification_type_is_named(cast: Cast) -> None:
    input = notification(cast.reader, type="GOSSIP")
    says = "'GOSSIP' does not exist in 'NotificationType'"
    await refusal(cast.service.api, CREATE, "BAD_USER_INPUT", "input", says=says, input=input)


async def test_an_unknown_input_field_is_named(house: House) -> None:
    input = a_registration(role="ADMIN")
    says = "unknown field 'role'"
    await refusal(house.api, REGISTER, "BAD_USER_INPUT", "input", says=says, input=input)


async def test_a_missing_input_field_is_named(house: House) -> None:
    input = {"email": "ada@shop.example"}
    says = "required field 'password'"
    await refusal(house.api, LOGIN, "BAD_USER_INPUT", "input", says=says, input=input)


# Who one is


async def test_a_wrong_password_and_an_unknown_email_get_the_same_answer(cast: Cast) -> None:
    wrong = {"email": cast.reader.email, "password": "not the password"}
    unknown = {"email": f"{uuid4().hex}@shop.example", "password": PASSWORD}
    no_address = {"email": "nobody", "password": PASSWORD}
    messages = {
        await refusal(cast.reader.api.as_(None), LOGIN, "UNAUTHENTICATED", input=input)
        for input in (wrong, unknown, no_address)
    }
    assert messages == {"Email or password is wrong."}


async def test_a_taken_email_is_a_conflict(cast: Cast, house: House) -> None:
    for spelling in (cast.reader.email, cast.reader.email.upper(), f" {cast.reader.email}\n"):
        input = a_registration(email=spelling)
        await refusal(house.api, REGISTER, "CONFLICT", says="log in, or use another", input=input)


async def test_no_token_says_how_to_send_one(house: House) -> None:
    await refusal(house.api, ME, "UNAUTHENTICATED", says="Authorization: Bearer")


async def test_an_expired_token_says_to_refresh(cast: Cast, clock: ShiftedClock) -> None:
    life = timedelta(seconds=900)
    with clock.moved(life):
        await refusal(cast.reader.api, ME, "UNAUTHENTICATED", says="refreshSession")
    with clock.moved(life / 2):
        assert (await cast.reader.api.ask(ME))["me"]["id"] == cast.reader.id


async def test_a_refresh_token_of_nothing_says_to_log_in(house: House) -> None:
    for token in ("", "nonsense", ".", f"{NO_ID}.x", "x." * 1000):
        await refusal(house.api, REFRESH, "UNAUTHENTICATED", says="log in again", token=token)


# What belongs to somebody else


async def test_anothers_notification_is_not_found(cast: Cast) -> None:
    id = cast.notification
    assert (await cast.stranger.api.ask(ONE, id=id))["notification"] is None
    assert (await cast.admin.api.ask(ONE, id=id))["notification"] is None
    for verb in (READ, ARCHIVE):
        await refusal(cast.stranger.api, verb, "NOT_FOUND", id=id)
    seen = "query ($id: ID!) { notification(id: $id) { read archived } }"
    untouched = {"notification": {"read": False, "archived": False}}
    assert await cast.reader.api.ask(seen, id=id) == untouched


@pytest.mark.parametrize("id", [NO_ID, "", "x", "$where", "\x00", "9" * 500, "ü" * 12, 5])
async def test_an_id_of_nothing_is_not_found(cast: Cast, id: str | int) -> None:
    assert (await cast.reader.api.ask(ONE, id=id))["notification"] is None
    for verb in (READ, ARCHIVE):
        await refusal(cast.reader.api, verb, "NOT_FOUND", says="no such notification", id=id)
    input = notification(cast.reader, userId=id)
    await refusal(cast.service.api, CREATE, "NOT_FOUND", says="no user", input=input)
    await refusal(cast.admin.api, CHANGE, "NOT_FOUND", id=id, input=a_schedule())


# Which part of a list


@pytest.mark.parametrize("name", ["first", "last"])
@pytest.mark.parametrize("size", [-1, 101, 10000, 2**31 - 1])
async def test_a_page_has_0_to_100_rows(cast: Cast, name: str, size: int) -> None:
    variables = {name: size}
    says = "Ask for 0 to 100 at once"
    await refusal(cast.reader.api, PAGE, "BAD_USER_INPUT", name, says=says, **variables)


async def test_a_page_size_beyond_32_bits_is_refused(cast: Cast) -> None:
    says = "32-bit"
    await refusal(cast.reader.api, PAGE, "BAD_USER_INPUT", "first", says=says, first=2**31)


async def test_first_and_last_exclude_each_other(cast: Cast) -> None:
    says = "first or last, not both"
    await refusal(cast.reader.api, PAGE, "BAD_USER_INPUT", "last", says=says, first=1, last=1)


async def test_recommendations_are_0_to_20(cast: Cast) -> None:
    document = "query ($first: Int!) { recommendations(first: $first) { name } }"
    for first in (-1, 21):
        says = "0 to 20"
        await refusal(cast.reader.api, document, "BAD_USER_INPUT", "first", says=says, first=first)


def packed(*fields: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(fields)).decode().rstrip("=")


BROKEN_CURSORS = [
    "",
    " ",
    "x",
    "null",
    "\x00",
    "ü",
    "====",
    NO_ID,
    "a" * 100_000,
    packed(),
    packed(0),
    packed(-1, bytes(12), 0),
    packed(0, bytes(12), -1),
    packed(0, bytes(11), 0),
    packed(0, bytes(13), 0),
    packed(0, "a" * 12, 0),
    packed(2**63, bytes(12), 0),
    packed(0, bytes(12), 2**64 - 1),
    packed(253_402_300_800_000, bytes(12), 0),  # the year 10000
    packed(0.5, bytes(12), 0),
    packed(0, bytes(12), 0, [b"short"]),
    packed(0, bytes(12), 0, 5),
    base64.urlsafe_b64encode(b'{"at": 0}').decode(),
]


@pytest.mark.parametrize("cursor", BROKEN_CURSORS, ids=lambda cursor: repr(cursor[:20]))
async def test_a_broken_cursor_is_refused_wherever_it_is_given(cast: Cast, cursor: str) -> None:
    api, says = cast.reader.api, "This is not a cursor"
    await refusal(api, PAGE, "BAD_USER_INPUT", "after", says=says, after=cursor)
    await refusal(api, PAGE, "BAD_USER_INPUT", "before", says=says, before=cursor)
    await refusal(api, MARK_ALL, "BAD_USER_INPUT", "upTo", says=says, upTo=cursor)
    async with api.follow(ADDED, after=cursor) as stream:
        with pytest.raises(GraphQLFailed, match=says) as failure:
            await stream.next()
    assert (failure.value.code, failure.value.field) == ("BAD_USER_INPUT", "after")


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_a_damaged_cursor_is_a_page_or_refused(cast: Cast, data: st.DataObject) -> None:
    """Some damage leaves a cursor, of another place; none leaves anything but these two answers."""
    place = data.draw(st.integers(0, len(cast.cursor)))
    end = data.draw(st.integers(place, len(cast.cursor)))
    middle = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
    damaged = cast.cursor[:place] + middle + cast.cursor[end:]
    document = {"query": PAGE, "variables": {"after": damaged}}
    answer = (await cast.reader.api.post(json=document)).json()
    problems = [error["extensions"] for error in answer.get("errors", [])]
    assert problems in ([], [{"code": "BAD_USER_INPUT", "field": "after"}])


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    at=st.integers(0, 253_402_300_799_999),
    id=st.binary(min_size=12, max_size=12),
    floor=st.integers(0, 253_402_300_799_999),
    seen=st.lists(
        st.tuples(st.binary(min_size=12, max_size=12), st.integers(0, 253_402_300_799_999)),
        max_size=3,
    ),
)
async def test_a_made_up_cursor_does_no_harm(
    cast: Cast, at: int, id: bytes, floor: int, seen: list[tuple[bytes, int]]
) -> None:
    made_up = packed(at, id, floor, seen)
    for name in ("after", "before"):
        page = (await cast.reader.api.ask(PAGE, **{name: made_up}))["notifications"]
        assert isinstance(page["edges"], list)


# Content


async def test_content_of_1_mb_is_too_much(cast: Cast) -> None:
    for content in ("x" * 1_000_000, {"long": "x" * 1_000_000}):
        input = notification(cast.reader, content=content)
        says = "65536 is the most"
        await refusal(
            cast.service.api, CREATE, "BAD_USER_INPUT", "input.content", says=says, input=input
        )


async def test_details_of_1_mb_are_too_much(cast: Cast) -> None:
    input = {"orderId": "1", "userId": cast.reader.id, "status": "paid", "details": "x" * 1_000_000}
    says = "65536 is the most"
    await refusal(cast.service.api, ORDER, "BAD_USER_INPUT", "input", says=says, input=input)


async def test_a_request_beyond_the_limit_is_not_even_read(cast: Cast) -> None:
    input = notification(cast.reader, content="x" * 2**20)
    response = await cast.service.api.post(json={"query": CREATE, "variables": {"input": input}})
    assert response.status_code == 413
    [error] = response.json()["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert "1048576" in error["message"]


REFUSED_CONTENT: dict[str, tuple[Any, str]] = {
    "a key with $ in front": ({"a": {"$where": 1}}, "content.a: rename the key '$where'"),
    "a key with a dot": ({"a": [{"b.c": 1}]}, "content.a[0]: rename the key 'b.c'"),
    "an integer beyond 64 bits": ({"a": 2**64}, "content.a: integers have 64 bits at most"),
    "an integer below 64 bits": ({"a": -(2**63) - 1}, "content.a: integers have 64 bits at most"),
    "NUL in a text": ("a\x00", "content: a NUL character can't be stored"),
    "NUL in a key": ({"a\x00": 1}, "content: a NUL character can't be stored"),
    "too many levels": (json.loads('{"a":' * 30 + "1" + "}" * 30), "nested deeper than 20 levels"),
    "a number": (5, "a string or an object"),
    "a fraction": (0.5, "a string or an object"),
    "a list": (["a"], "a string or an object"),
    "true": (True, "a string or an object"),
}


@pytest.mark.parametrize("kind", REFUSED_CONTENT)
async def test_content_that_can_not_be_stored_is_refused(cast: Cast, kind: str) -> None:
    content, says = REFUSED_CONTENT[kind]
    input = notification(cast.reader, content=content)
    await refusal(
        cast.service.api, CREATE, "BAD_USER_INPUT", "input.content", says=says, input=input
    )


async def test_content_that_is_null_is_refused(cast: Cast) -> None:
    input = notification(cast.reader, content=None)
    says = "at .content"
    await refusal(cast.service.api, CREATE, "BAD_USER_INPUT", "input", says=says, input=input)


@pytest.mark.parametrize(
    ("literal", "says"),
    [
        ("{ a: 1e999 }", "content.a: NaN and infinity are not JSON"),
        (f"{{ a: {'9' * 25} }}", "content.a: integers have 64 bits at most"),
        ('"\\u0000"', "content: a NUL character can't be stored"),
        ("[1]", "a string or an object"),
    ],
)
async def test_content_in_the_document_is_checked_as_well(
    cast: Cast, literal: str, says: str
) -> None:
    input = f'{{ userId: "{cast.reader.id}", type: PROMOTION, content: {literal} }}'
    document = f"mutation {{ createNotification(input: {input}) {{ notification {{ id }} }} }}"
    await refusal(cast.service.api, document, "BAD_USER_INPUT", "input.content", says=says)


@pytest.mark.parametrize(
    ("title", "says"), [("", "1 to 500"), ("x" * 501, "1 to 500"), ("a\x00", "NUL")]
)
async def test_a_title_that_can_not_be_shown_is_refused(cast: Cast, title: str, says: str) -> None:
    input = notification(cast.reader, title=title)
    await refusal(cast.service.api, CREATE, "BAD_USER_INPUT", "input.title", says=says, input=input)


@pytest.mark.parametrize("dedup_key", ["", "x" * 201])
async def test_a_dedup_key_has_1_to_200_characters(cast: Cast, dedup_key: str) -> None:
    input = notification(cast.reader, dedupKey=dedup_key)
    says = "1 to 200"
    await refusal(
        cast.service.api, CREATE, "BAD_USER_INPUT", "input.dedupKey", says=says, input=input
    )


async def test_a_dedup_key_does_not_stand_for_another_notification(cast: Cast) -> None:
    for change in ({"content": "Other"}, {"content": {"a": 1}}, {"type": "PROMOTION"}):
        input = notification(cast.reader, dedupKey=DEDUP_KEY) | change
        await refusal(cast.service.api, CREATE, "CONFLICT", says="choose a new one", input=input)
    again = notification(cast.reader, dedupKey=DEDUP_KEY)
    answer = (await cast.service.api.ask(CREATE, input=again))["createNotification"]
    assert answer["notification"]["id"] == cast.notification
    assert answer["decision"]["outcome"] == "DUPLICATE"


@pytest.mark.parametrize(
    ("details", "says"),
    [
        ({"$set": 1}, "rename the key '$set'"),
        ({"a.b": 1}, "rename the key 'a.b'"),
        ({"a": 2**64}, "64 bits"),
        ("\x00", "NUL"),
    ],
)
async def test_an_order_has_details_that_can_be_stored(
    cast: Cast, details: object, says: str
) -> None:
    input = {"orderId": "1", "userId": cast.reader.id, "status": "paid", "details": details}
    await refusal(
        cast.service.api, ORDER, "BAD_USER_INPUT", "input.details", says=says, input=input
    )


async def test_infinity_in_an_orders_details_is_refused(cast: Cast) -> None:
    order = f'orderId: "1", userId: "{cast.reader.id}", status: "paid"'
    document = f"""mutation {{
      publishOrderStatus(input: {{ {order}, details: {{ weight: 1e999 }} }}) {{ eventId }}
    }}"""
    await refusal(cast.service.api, document, "BAD_USER_INPUT", "input.details", says="infinity")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": ""}, "input.title"),
        ({"body": "x" * 5001}, "input.body"),
        ({"userIds": []}, "input.userIds"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "input.expiresAt"),
        ({"expiresAt": "2999-01-01T00:00:00"}, "input.expiresAt"),
        ({"eventId": ""}, "input.eventId"),
    ],
    ids=str,
)
async def test_a_promotion_that_makes_no_sense_is_refused(
    cast: Cast, change: dict[str, Any], field: str
) -> None:
    input = {"title": "Sale", "body": "Today."} | change
    await refusal(cast.service.api, PROMOTION, "BAD_USER_INPUT", field, input=input)


# JSON that is none


SURROGATE = "\ud800"
LONE_SURROGATES: dict[str, tuple[str, Any]] = {
    "a name": (REGISTER, {"input": a_registration(name=SURROGATE)}),
    "an email": (REGISTER, {"input": a_registration(email=f"{SURROGATE}@shop.example")}),
    "a password": (REGISTER, {"input": a_registration(password=SURROGATE * 8)}),
    "a login": (LOGIN, {"input": {"email": SURROGATE, "password": SURROGATE}}),
    "a token": (REFRESH, {"token": SURROGATE}),
    "content": (CREATE, {"input": {"userId": NO_ID, "type": "PROMOTION", "content": SURROGATE}}),
    "a key": (CREATE, {"input": {"userId": NO_ID, "type": "PROMOTION", "content": {"\udfff": 1}}}),
    "an id": (ONE, {"id": SURROGATE}),
    "a user's id": (CREATE, {"input": {"userId": SURROGATE, "type": "PROMOTION", "content": "c"}}),
    "a product": (TRACK, {"input": {"kind": "VIEW", "productId": SURROGATE}}),
    "a cursor": (PAGE, {"after": SURROGATE}),
    "a schedule": (SCHEDULE, {"input": a_schedule(name=SURROGATE)}),
    "a variable's name": (ME, {SURROGATE: 1}),
    "the document": (f'{{ notification(id: "{SURROGATE}") {{ id }} }}', {}),
}


@pytest.mark.parametrize("place", LONE_SURROGATES)
async def test_half_of_a_surrogate_pair_is_no_json(cast: Cast, place: str) -> None:
    document, variables = LONE_SURROGATES[place]
    for api in (cast.admin.api, cast.reader.api.as_(None)):
        says = "Send valid JSON"
        await refusal(
            api, document, "BAD_USER_INPUT", "request", says=says, status=400, **variables
        )


async def test_half_of_a_surrogate_pair_is_no_graphql(cast: Cast) -> None:
    document = '{ notification(id: "\\ud800") { id } }'
    await refusal(cast.reader.api, document, "GRAPHQL_PARSE_FAILED", says="Invalid Unicode escape")


@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b"[" * 1000 + b"]" * 1000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'"\xff\xfe"',
        b"'a'",
        b"{",
        b"",
    ],
    ids=lambda value: repr(value[:12]),
)
async def test_what_is_no_json_is_refused(cast: Cast, value: bytes) -> None:
    input = b'{"userId":"%s","type":"PROMOTION","content":%s}' % (cast.reader.id.encode(), value)
    body = b'{"query":%s,"variables":{"input":%s}}' % (json.dumps(CREATE).encode(), input)
    api = cast.service.api
    await refusal_of(api, body, "BAD_USER_INPUT", "request", says="Send valid JSON", status=400)


@pytest.mark.parametrize("name", ["email", "name", "locale", "timezone"])
async def test_nul_is_refused_in_what_a_newcomer_says(house: House, name: str) -> None:
    input = a_registration(**{name: "a\x00@shop.example"})
    await refusal(house.api, REGISTER, "BAD_USER_INPUT", f"input.{name}", input=input)


async def test_nul_is_refused_in_a_product(cast: Cast) -> None:
    input = {"kind": "VIEW", "productId": "a\x00"}
    await refusal(
        cast.reader.api, TRACK, "BAD_USER_INPUT", "input.productId", says="NUL", input=input
    )


# Newcomers


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "1234567"}, "8 to 256 characters"),
        ({"password": ""}, "8 to 256 characters"),
        ({"password": "x" * 257}, "8 to 256 characters"),
        ({"password": "x" * 500_000}, "8 to 256 characters"),
        ({"email": ""}, "not an email address"),
        ({"email": "ada"}, "not an email address"),
        ({"email": "ada@"}, "not an email address"),
        ({"email": "@shop.example"}, "not an email address"),
        ({"email": "ada@shop"}, "not an email address"),
        ({"email": "a da@shop.example"}, "not an email address"),
        ({"email": "ada@shop.example, eve@shop.example"}, "not an email address"),
        ({"email": "ada@shop.example\nBcc: eve@shop.example"}, "not an email address"),
        ({"email": "x" * 100_000 + "@shop.example"}, "not an email address"),
        ({"name": ""}, "1 to 100 characters"),
        ({"name": "   "}, "1 to 100 characters"),
        ({"name": "x" * 101}, "1 to 100 characters"),
        ({"locale": "german"}, "BCP 47"),
        ({"locale": "de_AT"}, "BCP 47"),
        ({"locale": ""}, "BCP 47"),
        ({"timezone": "Mars/Olympus_Mons"}, "IANA"),
        ({"timezone": "Europe"}, "IANA"),
        ({"timezone": "../../etc/passwd"}, "IANA"),
        ({"timezone": ""}, "IANA"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_registration_that_is_wrong_says_what_to_change(
    house: House, change: dict[str, str], says: str
) -> None:
    (name,) = change
    input = a_registration(**change)
    await refusal(house.api, REGISTER, "BAD_USER_INPUT", f"input.{name}", says=says, input=input)


@pytest.mark.parametrize("product", ["", "x" * 201])
async def test_a_product_has_1_to_200_characters(cast: Cast, product: str) -> None:
    input = {"kind": "VIEW", "productId": product}
    says = "1 to 200"
    await refusal(
        cast.reader.api, TRACK, "BAD_USER_INPUT", "input.productId", says=says, input=input
    )


# Schedules


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"cron": "0 0 30 2 *"}, "input.cron", "this date never comes"),
        ({"cron": "0 0 0 1 1 *"}, "input.cron", "Write five fields"),
        ({"cron": "0 0 1 1"}, "input.cron", "Write five fields"),
        ({"cron": "99 0 * * *"}, "input.cron", "not one of 0-59"),
        ({"cron": "R R * * *"}, "input.cron", "not one of 0-59"),
        ({"cron": "\x00"}, "input.cron", "Write five fields"),
        ({"cron": ""}, "input.cron", "Write five fields"),
        ({"timezone": "Mars/Olympus_Mons"}, "input.timezone", "Name an IANA time zone"),
        ({"timezone": "localtime"}, "input.timezone", "Name an IANA time zone"),
        ({"timezone": "../UTC"}, "input.timezone", "Name an IANA time zone"),
        ({"name": ""}, "input.name", "1 to 100 characters"),
        ({"name": "x" * 101}, "input.name", "1 to 100 characters"),
        ({"name": "a\x00"}, "input.name", "NUL"),
        ({"event": "promotion.announced"}, "input.event", "An event is"),
        ({"event": {}}, "input.event", "An event is"),
        ({"event": {"type": "user.exploded"}}, "input.event", "order.status_changed, promotion"),
        ({"event": {"type": ["promotion.announced"]}}, "input.event", "An event is"),
        ({"event": {"type": "user.registered", "data": {}}}, "input.event", "An event is"),
        ({"event": {"type": "promotion.announced"}}, "input.event.data", "`title`"),
        (
            {"event": {"type": "promotion.announced", "data": {"title": 5, "body": "b"}}},
            "input.event.data",
            "Expected `str`, got `int` - at `$.title`",
        ),
        ({"event": {"type": "promotion.announced", "data": [1]}}, "input.event.data", "`object`"),
        (
            {"event": {"type": "promotion.announced", "data": {"$a": 1}}},
            "input.event",
            "rename the key '$a'",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_schedule_that_could_not_fire_is_refused(
    cast: Cast, change: dict[str, Any], field: str, says: str
) -> None:
    api, input = cast.admin.api, a_schedule(**change)
    await refusal(api, SCHEDULE, "BAD_USER_INPUT", field, says=says, input=input)
    before = await schedules(cast)
    await refusal(api, CHANGE, "BAD_USER_INPUT", field, says=says, id=cast.schedule, input=input)
    assert await schedules(cast) == before


async def test_a_schedule_whose_event_would_be_dead_lettered_is_refused(cast: Cast) -> None:
    order = {"orderId": "1", "userId": cast.reader.id, "status": "paid", "details": "x" * 900_000}
    input = a_schedule(event={"type": "order.status_changed", "data": order})
    says = "bytes"
    api = cast.admin.api
    await refusal(api, SCHEDULE, "BAD_USER_INPUT", "input.event", says=says, input=input)


async def test_a_schedules_name_is_its_own(cast: Cast) -> None:
    name = next(one["name"] for one in await schedules(cast) if one["id"] == cast.schedule)
    input = a_schedule(name=name)
    await refusal(cast.admin.api, SCHEDULE, "CONFLICT", says="choose another name", input=input)


async def schedules(cast: Cast) -> Any:
    fields = "id name cron timezone event paused nextFireAt lastFiredAt"
    return (await cast.admin.api.ask(f"{{ schedules {{ {fields} }} }}"))["schedules"]


# Many at once


async def test_bad_input_at_once_does_not_trouble_good_input(cast: Cast) -> None:
    bad = notification(cast.reader, content={"$a": 1})
    answers = await asyncio.gather(
        *(
            refusal(cast.service.api, CREATE, "BAD_USER_INPUT", "input.content", input=bad)
            for _ in range(10)
        ),
        *(cast.reader.api.ask(ME) for _ in range(10)),
    )
    assert answers[10:] == [{"me": {"id": cast.reader.id}}] * 10
