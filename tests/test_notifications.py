"""Notifications through GraphQL: what is created, kept, read and put away."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from datetime import timedelta
from typing import Any

import pymongo
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pymongo import AsyncMongoClient

from services.notifications.catalogue import Product, keep_products
from services.notifications.gather import Gatherer
from services.shared.content import composed
from services.shared.events import ProductChanged
from services.shared.vocabulary import ActivityKind, Role
from services.users.models import Activity
from tests import notices
from tests.kit import House
from tests.notices import (
    NODE,
    Wire,
    ago,
    create,
    customer,
    nodes,
    page,
    refused,
    row,
    store,
    unread_count,
    wired,
)
from tests.servers import PrivateMongod

PREFER = "mutation($input: PreferencesInput!) { updatePreferences(input: $input) { version } }"
ONE = f"query($id: ID!) {{ notification(id: $id) {{ {NODE} }} }}"
_INT64 = 2**63


TRACK = "mutation($input: ActivityInput!) { trackActivity(input: $input) }"
PICKS = """mutation { createRecommendations {
    notification { id } decision { outcome reason } } }"""


def exactly(value: Any) -> str:
    """The JSON text, which tells 1 from 1.0 and from true, and one order of keys from another."""
    return json.dumps(value, ensure_ascii=False)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
keys = texts.filter(lambda key: not key.startswith("$") and "." not in key)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-_INT64, _INT64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
contents = texts | st.dictionaries(keys, values, max_size=5)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # each example asks a real server
@given(st.lists(contents, min_size=1, max_size=5))
@example(["", {}, {"": ""}, {"z": 1, "a": {"z": [], "a": {}}}, "  spaces\n and lines "])
@example([{"n": [2**53 + 1, -(2**63), 2**63 - 1, 2**31, 0, -0.0, 1.0, 5e-324, 1.7e308]}])
@example([{"e\u0301": "\u00e9", "👩‍👩‍👧": "\u202e\ufeff\uffff", "_id": "_id", "a$b": "$a.b"}])
async def test_content_comes_back_exactly_as_it_was_given_in_nfc(
    house: House, backend: Wire, given: list[Any]
) -> None:
    async with wired(await customer(house)) as ann:
        for content in given:
            answer = await create(backend, ann.id, content)
            assert exactly(answer["notification"]["content"]) == exactly(composed(content))
        kept = [node["content"] for node in await nodes(ann)]
    assert sorted(map(exactly, kept)) == sorted(exactly(composed(content)) for content in given)


async def test_content_may_stand_in_the_document_itself(backend: Wire, ann: Wire) -> None:
    document = """mutation { createNotification(input: {userId: "%s", type: ORDER_UPDATE,
        content: {n: -9223372036854775808, list: [1.5, "x", null, {on: true}]}
    }) { notification { content } } }"""
    answer = await backend.ask(document % ann.id)
    content = {"n": -(2**63), "list": [1.5, "x", None, {"on": True}]}
    assert exactly(answer["createNotification"]["notification"]["content"]) == exactly(content)


async def test_a_created_notification_is_on_the_users_first_page(backend: Wire, ann: Wire) -> None:
    answer = await create(backend, ann.id, {"body": "Soon", "n": 1}, title="News")
    assert answer["decision"] == {"outcome": "SENT", "reason": "LOCKED_CHANNEL", "until": None}
    created = answer["notification"]
    assert created == {
        "id": created["id"],
        "userId": ann.id,
        "type": "ORDER_UPDATE",
        "title": "News",
        "body": "Soon",
        "content": {"body": "Soon", "n": 1},
        "sentAt": created["sentAt"],
        "read": False,
        "readAt": None,
        "archived": False,
    }
    assert await nodes(ann) == [created]
    assert (await ann.ask(ONE, id=created["id"]))["notification"] == created


@pytest.mark.parametrize(
    ("content", "title", "shown"),
    [
        ("Hello", None, ("News of your order", "Hello")),
        ("Hello", "Mine", ("Mine", "Hello")),
        ({"title": "Its own", "body": "Words"}, None, ("Its own", "Words")),
        ({"title": "Its own", "body": "Words"}, "Mine", ("Mine", "Words")),
        ({"title": ["no"], "body": {"no": 1}}, None, ("News of your order", "")),
    ],
)
async def test_title_and_body_come_from_the_title_or_the_content(
    backend: Wire, ann: Wire, content: Any, title: str | None, shown: tuple[str, str]
) -> None:
    created = (await create(backend, ann.id, content, title=title))["notification"]
    assert (created["title"], created["body"]) == shown


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": ""}, "input.title"),
        ({"title": "t" * 501}, "input.title"),
        ({"title": "NUL \x00"}, "input.title"),
        ({"content": 7}, "input.content"),
        ({"content": ["a", "list"]}, "input.content"),
        ({"content": True}, "input.content"),
        ({"content": {"n": 2**63}}, "input.content"),
        ({"content": {"$set": 1}}, "input.content"),
        ({"content": {"a": [{"b.c": 1}]}}, "input.content"),
        ({"content": "x" * 65_536}, "input.content"),
        ({"dedupKey": ""}, "input.dedupKey"),
        ({"dedupKey": "k" * 201}, "input.dedupKey"),
    ],
)
async def test_what_cannot_be_kept_is_refused_with_the_fields_name(
    backend: Wire, ann: Wire, fields: dict[str, Any], field: str
) -> None:
    error = await refused(create(backend, ann.id, **fields))
    assert (error.code, error.field) == ("BAD_USER_INPUT", field)
    assert await nodes(ann) == []


async def test_nobody_can_be_notified_who_does_not_exist(backend: Wire) -> None:
    for nobody in ("6" * 24, "not an id"):
        assert (await refused(create(backend, nobody))).code == "NOT_FOUND"


async def test_only_a_shops_backend_may_notify(house: House, ann: Wire) -> None:
    assert (await refused(create(ann, ann.id))).code == "FORBIDDEN"
    admin = await house.somebody(Role.ADMIN)
    assert (await create(admin.api, ann.id))["decision"]["outcome"] == "SENT"


async def test_the_same_dedup_key_answers_with_the_original(backend: Wire, ann: Wire) -> None:
    content = {"b": 1, "a": [2**40]}
    first = await create(backend, ann.id, content, dedupKey="invoice 7")
    again = await create(backend, ann.id, {"a": [2**40], "b": 1}, dedupKey="invoice 7")
    assert again["notification"] == first["notification"]
    assert again["decision"] == {
        "outcome": "DUPLICATE",
        "reason": "SAME_DEDUP_KEY",
        "until": None,
    }
    assert len(await nodes(ann)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"content": {"n": 2}},
        {"content": {"n": True}},
        {"content": {"n": 1.5}},
        {"content": "n"},
        {"title": "Another"},
        {"type": "RECOMMENDATION"},
    ],
)
async def test_a_dedup_key_is_not_for_another_notification(
    backend: Wire, ann: Wire, other: dict[str, Any]
) -> None:
    first = {"content": {"n": 1}, "dedupKey": "key"}
    await create(backend, ann.id, **first)
    assert (await refused(create(backend, ann.id, **(first | other)))).code == "CONFLICT"
    assert len(await nodes(ann)) == 1


async def test_a_dedup_key_is_the_callers_own_and_for_one_user(
    house: House, backend: Wire, ann: Wire
) -> None:
    ben, other = await customer(house), await house.somebody(Role.SERVICE)
    answers = [
        await create(sender, receiver.id, dedupKey="key")
        for sender in (backend, other.api)
        for receiver in (ann, ben)
    ]
    assert [answer["decision"]["outcome"] for answer in answers] == ["SENT"] * 4


async def test_many_at_once_with_one_dedup_key_make_one(backend: Wire, ann: Wire) -> None:
    input = {"userId": ann.id, "type": "ORDER_UPDATE", "content": "Once", "dedupKey": "key"}
    answered = await backend.ask_all(notices.CREATE, [{"input": input}] * 20)
    answers = [answer["createNotification"] for answer in answered]
    outcomes = sorted(answer["decision"]["outcome"] for answer in answers)
    assert outcomes == ["DUPLICATE"] * 19 + ["SENT"]
    assert len({answer["notification"]["id"] for answer in answers}) == 1
    assert len(await nodes(ann)) == 1


OFF = {"type": "PROMOTION", "enabled": False}
OFF_HERE = {"type": "PROMOTION", "channels": [{"channel": "IN_APP", "enabled": False}]}


@pytest.mark.parametrize(
    ("wish", "reason"), [(OFF, "TYPE_OFF"), (OFF_HERE, "CHANNEL_OFF"), (OFF | OFF_HERE, "TYPE_OFF")]
)
async def test_what_is_not_wanted_is_suppressed_with_the_reason(
    house: House, backend: Wire, wish: dict[str, Any], reason: str
) -> None:
    somebody = await house.somebody()
    ann = somebody.api
    await ann.ask(PREFER, input={"types": [wish]})
    answer = await create(backend, somebody.id, "Never seen", type="PROMOTION")
    assert answer == {
        "notification": None,
        "decision": {"outcome": "SUPPRESSED", "reason": reason, "until": None},
    }
    other = await create(backend, somebody.id, "Seen", type="RECOMMENDATION")
    assert other["decision"] == {"outcome": "SENT", "reason": "ACCEPTED", "until": None}
    assert "Never seen" not in [node["content"] for node in await nodes(ann)]


async def test_a_key_that_was_used_answers_also_when_the_type_is_not_wanted_any_more(
    backend: Wire, ann: Wire
) -> None:
    picks = {"type": "RECOMMENDATION", "dedupKey": "key"}
    first = await create(backend, ann.id, **picks)
    await ann.ask(PREFER, input={"types": [{"type": "RECOMMENDATION", "enabled": False}]})
    again = await create(backend, ann.id, **picks)
    assert again["decision"]["outcome"] == "DUPLICATE"
    assert again["notification"] == first["notification"]


async def test_reading_twice_is_reading_once(backend: Wire, ann: Wire) -> None:
    id = (await create(backend, ann.id))["notification"]["id"]
    first = (await ann.ask(notices.READ, id=id))["markNotificationRead"]
    assert first["read"] is True
    assert first["readAt"] is not None
    again = (await ann.ask(notices.READ, id=id))["markNotificationRead"]
    assert again == first
    assert await unread_count(ann) == 0
    for _ in range(2):
        unread = (await ann.ask(notices.READ, id=id, read=False))["markNotificationRead"]
        assert (unread["read"], unread["readAt"]) == (False, None)
        assert await unread_count(ann) == 1


async def test_what_is_put_away_leaves_the_list_and_the_count(backend: Wire, ann: Wire) -> None:
    id = (await create(backend, ann.id))["notification"]["id"]
    for _ in range(2):
        put_away = (await ann.ask(notices.ARCHIVE, id=id))["archiveNotification"]
        assert put_away["archived"] is True
        assert (await nodes(ann), await unread_count(ann)) == ([], 0)
        assert await nodes(ann, archived=True) == [put_away]
        assert (await ann.ask(ONE, id=id))["notification"] == put_away
    for _ in range(2):
        back = (await ann.ask(notices.ARCHIVE, id=id, archived=False))["archiveNotification"]
        assert (await nodes(ann), await unread_count(ann)) == ([back], 1)
        assert await nodes(ann, archived=True) == []


async def test_the_unread_are_counted_by_type(backend: Wire, ann: Wire) -> None:
    orders = [(await create(backend, ann.id))["notification"]["id"] for _ in range(2)]
    await create(backend, ann.id, type="RECOMMENDATION")
    await ann.ask(notices.READ, id=orders[0])
    asked: list[tuple[Any, int]] = [
        (None, 2),
        (["ORDER_UPDATE"], 1),
        (["RECOMMENDATION"], 1),
        (["ORDER_UPDATE", "RECOMMENDATION"], 2),
        (["PROMOTION"], 0),
        ([], 0),
    ]
    for types, count in asked:
        assert await unread_count(ann, types=types) == count, types


async def test_another_users_notifications_are_as_good_as_not_there(
    house: House, backend: Wire, ann: Wire
) -> None:
    id = (await create(backend, ann.id))["notification"]["id"]
    eve = (await customer(house)).api
    assert (await eve.ask(ONE, id=id))["notification"] is None
    assert (await nodes(eve), await unread_count(eve)) == ([], 0)
    for document in (notices.READ, notices.ARCHIVE):
        assert (await refused(eve.ask(document, id=id))).code == "NOT_FOUND"
    assert (await eve.ask(notices.READ_ALL))["markAllNotificationsRead"]["marked"] == 0
    assert await unread_count(ann) == 1


@pytest.mark.parametrize("id", ["6" * 24, "not an id", ""])
async def test_what_does_not_exist_is_not_found(ann: Wire, id: str) -> None:
    assert (await ann.ask(ONE, id=id))["notification"] is None
    for document in (notices.READ, notices.ARCHIVE):
        assert (await refused(ann.ask(document, id=id))).code == "NOT_FOUND"


async def read_all(somebody: Wire, up_to: str | None = None) -> tuple[int, int]:
    """How many were marked, and how many are unread then."""
    answer = (await somebody.ask(notices.READ_ALL, upTo=up_to))["markAllNotificationsRead"]
    return answer["marked"], answer["unreadCount"]


async def test_all_are_marked_as_read_once(backend: Wire, ann: Wire) -> None:
    ids = [(await create(backend, ann.id))["notification"]["id"] for _ in range(3)]
    await ann.ask(notices.READ, id=ids[1])
    await ann.ask(notices.ARCHIVE, id=ids[2])
    assert await read_all(ann) == (2, 0)
    assert await read_all(ann) == (0, 0)
    put_away = (await ann.ask(ONE, id=ids[2]))["notification"]
    assert put_away["read"] is True


async def test_what_arrives_after_the_cursor_stays_unread(backend: Wire, ann: Wire) -> None:
    for _ in range(3):
        await create(backend, ann.id)
    shown = await page(ann)
    late = await store([row(ann.id, ago(1.5), title="stamped before, written after")])
    newer = (await create(backend, ann.id))["notification"]["id"]
    assert await read_all(ann, shown["pageInfo"]["startCursor"]) == (3, 2)
    unread = [node["id"] for node in await nodes(ann, unreadOnly=True)]
    assert unread == [newer, *late]


async def test_marking_up_to_an_old_cursor_leaves_all_newer_ones(ann: Wire) -> None:
    ids = await store(row(ann.id, ago(1000 - n)) for n in range(5))
    edges = (await page(ann))["edges"]
    assert [edge["node"]["id"] for edge in edges] == ids[::-1]
    assert await read_all(ann, edges[2]["cursor"]) == (3, 2)
    assert [node["id"] for node in await nodes(ann, unreadOnly=True)] == ids[:2:-1]


async def test_marking_up_to_a_broken_cursor_marks_nothing(backend: Wire, ann: Wire) -> None:
    await create(backend, ann.id)
    error = await refused(read_all(ann, "not a cursor"))
    assert (error.code, error.field) == ("BAD_USER_INPUT", "upTo")
    assert await unread_count(ann) == 1


async def test_a_shop_without_a_catalogue_recommends_nothing(
    house: House, backend: Wire, ann: Wire
) -> None:
    for buyer in (ann.id, (await customer(house)).id):
        acts = [{"kind": "PURCHASE", "productId": f"p{n}", "userId": buyer} for n in range(5)]
        await backend.ask_all(TRACK, [{"input": act} for act in acts])
    assert (await ann.ask("{ recommendations { productId } }"))["recommendations"] == []
    assert (await ann.ask(PICKS))["createRecommendations"] == {
        "notification": None,
        "decision": {"outcome": "SUPPRESSED", "reason": "TOO_FEW_CANDIDATES"},
    }


async def test_what_the_database_takes_too_long_over_is_given_up_and_not_stored_later(
    mongod: PrivateMongod, house: House, backend: Wire, ann: Wire
) -> None:
    """A resumed subscription looks back as far as a write may take, and no further."""
    async with AsyncMongoClient[dict[str, Any]](mongod.url) as client:
        await client.admin.command("fsync", lock=True)
        try:
            async with asyncio.timeout(house.runtime.settings.write_window_seconds + 1):
                error = await refused(create(backend, ann.id, dedupKey="held up"))
        finally:
            await client.admin.command("fsyncUnlock")
    assert error.code == "SERVICE_UNAVAILABLE"
    assert await nodes(ann) == []
    assert (await create(backend, ann.id, dedupKey="held up"))["decision"]["outcome"] == "SENT"


async def test_what_many_did_is_read_for_a_recommendation_a_part_at_a_time(
    house: House, ann: Wire
) -> None:
    """All that 5,000 acts say takes a MiB. As documents of Beanie's they took ten times that."""
    now = house.runtime.clock.now()
    with pymongo.timeout(60):  # this is the test's, however slow the machine
        await Activity.get_pymongo_collection().insert_many(
            {
                "event": f"event {number}",
                "user_id": ann.id if number % 60 == 0 else f"user {number % 60}",
                "product_id": f"product {number % 41}",
                "kind": ActivityKind.VIEW.value,
                "at": now - timedelta(seconds=number),
            }
            for number in range(5000)
        )
    changes = [
        (ProductChanged(product_id=f"product {n}", name="A product", category=f"{n % 5}"), now)
        for n in range(41)
    ]
    await keep_products(changes)
    patient = house.runtime.settings.model_copy(update={"mongodb_timeout_seconds": 60.0})
    gatherer = Gatherer(patient)
    tracemalloc.start()
    try:
        crowd = await gatherer.crowd(now)
        at_once = (gatherer.recommendations(ann.id, crowd, 5, now) for _ in range(5))
        found, *others = await asyncio.gather(*at_once)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        for model in (Activity, Product):  # others are here, too
            await model.get_pymongo_collection().delete_many({})
    assert (len(crowd) >= 41, len(found)) == (True, 2)
    assert all(other == found for other in others)
    assert most < 4 * 2**20
