"""Audiences, tags and broadcasts through GraphQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from beanie import PydanticObjectId

from services.notifications.broadcasts import Broadcast, Chunk
from services.shared.vocabulary import Role, Scope
from services.users.models import User
from tests.crowds import crowd
from tests.entry import refused
from tests.kit import GraphQLFailed, House, ShiftedClock, open_house, quick_settings
from tests.notices import Wire, wired
from tests.servers import PrivateMongod, until

FIELDS = """id title body audience state startedAt perSecond expiresAt
    total sent held suppressed failed"""
START = f"mutation($input: BroadcastInput!) {{ createBroadcast(input: $input) {{ {FIELDS} }} }}"
SHOW = f"query($id: ID!) {{ broadcast(id: $id) {{ {FIELDS} }} }}"
LIST = """query($first: Int, $after: String) {
  broadcasts(first: $first, after: $after) {
    edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage endCursor } } }"""
COUNT = """query($input: AudienceInput!) {
  audience(input: $input) { count isExact sample { id name } } }"""
PROGRESS = """subscription($id: ID!) {
  broadcastProgress(id: $id) { state total sent held suppressed failed } }"""
TAG = "mutation($id: ID!, $tags: [String!]!) { setUserTags(userId: $id, tags: $tags) }"
TAGS_OF = "query($id: ID!) { user(id: $id) { tags } }"
PAGE = "{ notifications(first: 5) { edges { node { type title body expiresAt } } } }"
MOST_AT_ONCE = 3
NO_ID = "0123456789abcdef01234567"


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    settings = quick_settings(
        mongod.url, fan_out_size=10, max_broadcasts=MOST_AT_ONCE, max_tags_per_user=3
    )
    async with open_house(settings, clock) as open_:
        yield open_


@pytest.fixture(scope="module")
async def admin(house: House) -> AsyncIterator[Wire]:
    async with wired(await house.somebody(Role.ADMIN)) as admin:
        yield admin


async def start(admin: Wire, tag: str, **fields: Any) -> Any:
    """A broadcast to those who have this tag."""
    input = {"title": "Sale", "body": "All of it", "audience": {"tags": [tag]}} | fields
    return (await admin.ask(START, input=input))["createBroadcast"]


async def turn(admin: Wire, verb: str, id: str) -> str:
    document = f"mutation($id: ID!) {{ {verb}Broadcast(id: $id) {{ state }} }}"
    state: str = (await admin.ask(document, id=id))[f"{verb}Broadcast"]["state"]
    return state


async def ended(admin: Wire, id: str) -> Any:
    """The broadcast, when it is done."""

    async def done() -> Any:
        shown = (await admin.ask(SHOW, id=id))["broadcast"]
        return shown if shown["state"] == "DONE" else None

    return await until(done)


async def counted(admin: Wire, id: str) -> bool:
    """Whether its recipients are found, and those in hand when it was paused are served."""
    shown = (await admin.ask(SHOW, id=id))["broadcast"]
    in_hand = await Chunk.find_one({"broadcast_id": PydanticObjectId(id), "in_hand": True})
    return shown["total"] is not None and in_hand is None


async def test_a_broadcast_goes_out_to_its_audience_and_tells_how_it_went(
    house: House, clock: ShiftedClock, admin: Wire
) -> None:
    ann, ben = await house.somebody(locale="de-AT"), await house.somebody()
    for somebody in (ann, ben):
        await admin.ask(TAG, id=somebody.id, tags=["both"])
    ends = (clock.now() + timedelta(days=2)).isoformat()
    wanted = {"tags": ["both"], "locales": ["de"], "accepts": {"type": "PROMOTION"}}
    begun = await start(admin, "both", audience=wanted, expiresAt=ends, perSecond=50)
    assert (begun["state"], begun["total"], begun["sent"]) == ("RUNNING", None, 0)
    shown = await ended(admin, begun["id"])
    assert (shown["total"], shown["sent"], shown["perSecond"]) == (1, 1, 50)
    assert (shown["held"], shown["suppressed"], shown["failed"]) == (0, 0, 0)
    assert shown["audience"] == wanted | {"accepts": {"type": "promotion"}}
    newest = (await ann.api.ask(PAGE))["notifications"]["edges"][0]["node"]
    assert newest == {
        "type": "PROMOTION",
        "title": "Sale",
        "body": "All of it",
        "expiresAt": shown["expiresAt"],
    }
    why = "query($event: ID!, $id: ID!) { explainEvent(eventId: $event, userId: $id) { outcome } }"
    [told] = (await admin.ask(why, event=f"broadcast/{begun['id']}", id=ann.id))["explainEvent"]
    assert told["outcome"] == "SENT"
    titles = [edge["node"]["title"] for edge in (await ben.api.ask(PAGE))["notifications"]["edges"]]
    assert "Sale" not in titles


async def test_a_dry_run_tells_who_would_get_it(
    house: House, clock: ShiftedClock, admin: Wire
) -> None:
    ids = await crowd(clock, 25, tags=["dry"], name="Dry Run")
    shown = (await admin.ask(COUNT, input={"tags": ["dry"], "neverBought": True}))["audience"]
    assert (shown["count"], shown["isExact"]) == (25, True)
    assert shown["sample"] == [{"id": id, "name": "Dry Run"} for id in ids[:10]]
    nobody = {"tags": ["dry"], "bought": {"withinDays": 5, "categories": ["Hiking"]}}
    assert (await admin.ask(COUNT, input=nobody))["audience"]["count"] == 0


async def test_progress_is_told_to_the_end(house: House, clock: ShiftedClock, admin: Wire) -> None:
    ids = await crowd(clock, 25, tags=["progress"])
    begun = await start(admin, "progress", perSecond=24)
    await turn(admin, "pause", begun["id"])
    await until(lambda: counted(admin, begun["id"]))
    told = []
    async with admin.somebody.api.socket() as socket:
        stream = await socket.subscribe(PROGRESS, id=begun["id"])
        told.append((await stream.next())["broadcastProgress"])
        with pytest.raises(TimeoutError):
            await stream.next(timeout=1.5)  # it is looked at meanwhile, and nothing has changed
        await turn(admin, "resume", begun["id"])
        while (message := await socket.receive())["type"] == "next":
            told.append(message["payload"]["data"]["broadcastProgress"])
        assert message == {"id": stream.id, "type": "complete"}
    assert told[-1] == {
        "state": "DONE",
        "total": len(ids),
        "sent": len(ids),
        "held": 0,
        "suppressed": 0,
        "failed": 0,
    }
    assert len(told) > 1
    assert all(before != after for before, after in pairwise(told))


async def test_progress_of_no_broadcast_is_not_found(admin: Wire) -> None:
    async with admin.somebody.api.follow(PROGRESS, id=NO_ID) as stream:
        with refused("NOT_FOUND"):
            await stream.next()


async def test_progress_of_a_cancelled_one_ends(
    house: House, clock: ShiftedClock, admin: Wire
) -> None:
    await crowd(clock, 30, tags=["cancelled"])
    begun = await start(admin, "cancelled", perSecond=1)
    async with admin.somebody.api.socket() as socket:
        await socket.subscribe(PROGRESS, id=begun["id"])
        assert (await socket.receive())["type"] == "next"
        assert await turn(admin, "cancel", begun["id"]) == "CANCELLED"
        last: Any = None
        while (message := await socket.receive())["type"] == "next":
            last = message["payload"]["data"]["broadcastProgress"]
    assert last["state"] == "CANCELLED"
    shown = (await admin.ask(SHOW, id=begun["id"]))["broadcast"]
    assert {name: shown[name] for name in last} == last
    assert last["sent"] < 30


async def test_it_is_paused_resumed_and_cancelled(
    house: House, clock: ShiftedClock, admin: Wire
) -> None:
    await crowd(clock, 30, tags=["turned"])
    id = (await start(admin, "turned", perSecond=1))["id"]
    assert await turn(admin, "pause", id) == "PAUSED"
    assert await turn(admin, "resume", id) == "RUNNING"
    assert await turn(admin, "cancel", id) == "CANCELLED"
    assert await turn(admin, "resume", id) == "CANCELLED"
    for verb in ("pause", "resume", "cancel"):
        with refused("NOT_FOUND"):
            await turn(admin, verb, NO_ID)
    assert (await admin.ask(SHOW, id=NO_ID))["broadcast"] is None


async def test_the_same_dedup_key_is_the_same_broadcast(admin: Wire) -> None:
    key = uuid4().hex
    first = await start(admin, "nobody", dedupKey=key)
    await ended(admin, first["id"])
    again = await start(admin, "nobody", dedupKey=key)
    assert (again["id"], again["state"]) == (first["id"], "DONE")
    with refused("CONFLICT"):
        await start(admin, "somebody", dedupKey=key)


async def test_broadcasts_are_listed_page_by_page_the_newest_first(admin: Wire) -> None:
    ids = []
    for _ in range(4):
        ids.append((await start(admin, "nobody"))["id"])
        await ended(admin, ids[-1])
    first = (await admin.ask(LIST, first=3))["broadcasts"]
    assert [edge["node"]["id"] for edge in first["edges"]] == ids[:0:-1]
    assert first["pageInfo"]["hasNextPage"]
    after = first["pageInfo"]["endCursor"]
    second = (await admin.ask(LIST, first=1, after=after))["broadcasts"]
    assert [edge["node"]["id"] for edge in second["edges"]] == ids[:1]
    assert (await admin.ask(LIST, first=0))["broadcasts"]["edges"] == []
    with refused("BAD_USER_INPUT", "after"):
        await admin.ask(LIST, after="x")
    with refused("BAD_USER_INPUT", "first"):
        await admin.ask(LIST, first=101)


async def test_only_so_many_go_on_at_the_same_time(
    house: House, clock: ShiftedClock, admin: Wire
) -> None:
    await crowd(clock, 30, tags=["many"])
    ids = [(await start(admin, "many", perSecond=1))["id"] for _ in range(MOST_AT_ONCE)]
    await turn(admin, "pause", ids[0])
    with refused("BAD_USER_INPUT", "input"):
        await start(admin, "many")
    for id in ids:
        await turn(admin, "cancel", id)
    await ended(admin, (await start(admin, "nobody"))["id"])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"title": ""}, "input.title"),
        ({"body": "x" * 5001}, "input.body"),
        ({"body": "\x00"}, "input"),
        ({"perSecond": 0}, "input.perSecond"),
        ({"dedupKey": ""}, "input.dedupKey"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "input.expiresAt"),
        ({"expiresAt": "2040-01-01T00:00:00"}, "input.expiresAt"),
        ({"audience": {"locales": ["de", "de_AT"]}}, "input.audience.locales[1]"),
        ({"audience": {"tags": [""]}}, "input.audience.tags[0]"),
        ({"audience": {"createdFrom": "2026-01-01T00:00:00"}}, "input.audience.createdFrom"),
        ({"audience": {"bought": {"withinDays": 0}}}, "input.audience.bought.withinDays"),
        (
            {"audience": {"viewed": {"withinDays": 1, "categories": ["a", ""]}}},
            "input.audience.viewed.categories[1]",
        ),
        ({"audience": {"inactiveDays": 9999}}, "input.audience.inactiveDays"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_place_and_starts_nothing(
    house: House, admin: Wire, wrong: dict[str, Any], field: str
) -> None:
    before = await Broadcast.find_all().count()
    with refused("BAD_USER_INPUT", field):
        await start(admin, "nobody", **wrong)
    assert await Broadcast.find_all().count() == before


async def test_an_unknown_condition_is_refused_and_named(admin: Wire) -> None:
    with pytest.raises(GraphQLFailed) as failure:
        await start(admin, "", audience={"bought": {"withinDays": 7, "shoeSize": 42}})
    assert failure.value.code == "BAD_USER_INPUT"
    assert "shoeSize" in failure.value.message
    with refused("BAD_USER_INPUT", "input.inactiveDays"):
        await admin.ask(COUNT, input={"inactiveDays": 0})


async def test_tags_are_kept_once_each_and_shown_to_the_shop_alone(
    house: House, admin: Wire
) -> None:
    ann, backend = await house.somebody(), await house.somebody(Role.SERVICE)
    _, key = await house.runtime.api_keys.create(backend.id, "crm", [Scope.TAG_USERS])
    crm = house.api.as_(key)
    given = await crm.ask(TAG, id=ann.id, tags=[" vip", "e\u0301te\u0301", "vip"])
    assert given["setUserTags"] == ["vip", "été"]
    assert (await admin.ask(TAGS_OF, id=ann.id))["user"]["tags"] == ["vip", "été"]
    with refused("FORBIDDEN"):
        await ann.api.ask("{ me { tags } }")
    with refused("FORBIDDEN"):
        await crm.ask(TAGS_OF, id=ann.id)
    await crm.ask(TAG, id=ann.id, tags=[])
    assert (await admin.ask(TAGS_OF, id=ann.id))["user"]["tags"] == []


@pytest.mark.parametrize(
    ("tags", "field"),
    [
        (["a", "b", "c", "d"], "tags"),
        (["a", " "], "tags[1]"),
        (["x" * 51], "tags[0]"),
        (["a\x00"], "tags[0]"),
    ],
)
async def test_what_is_no_tag_is_refused_with_its_place(
    house: House, admin: Wire, tags: list[str], field: str
) -> None:
    ann = await house.somebody()
    await admin.ask(TAG, id=ann.id, tags=["vip"])
    with refused("BAD_USER_INPUT", field):
        await admin.ask(TAG, id=ann.id, tags=tags)
    row = await User.by_id(ann.id)
    assert row is not None
    assert row.tags == ["vip"]


async def test_nobody_has_no_tags(admin: Wire) -> None:
    for id in (NO_ID, "nobody"):
        with refused("NOT_FOUND"):
            await admin.ask(TAG, id=id, tags=["vip"])
