"""What an operator sees of others: who they are, what they got, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from services.shared.vocabulary import Role
from services.users.models import User
from tests.entry import refused
from tests.kit import House, Somebody
from tests.notices import NODE, Wire, create, nodes, wired
from tests.test_plans import stages

USERS = """query($search: String!, $first: Int! = 20) {
  users(search: $search, first: $first) { id name email } }"""
PAGE = f"""query($id: ID, $first: Int, $after: String) {{
  notifications(first: $first, after: $after, userId: $id) {{
    edges {{ cursor node {{ {NODE} }} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
DECISIONS = """query($id: ID, $first: Int, $after: String) {
  decisions(userId: $id, first: $first, after: $after) {
    edges { cursor node { title reason } } pageInfo { endCursor } } }"""
EXPLAIN = """query($notification: ID!, $id: ID) {
  explain(notificationId: $notification, userId: $id) { title reason } }"""
USER = "query($id: ID!) { user(id: $id) { name } }"
EVENT = """query($event: ID!, $id: ID!) {
  explainEvent(eventId: $event, userId: $id) { reason } }"""
DRY_RUN = "query($id: ID!) { decideDryRun(userId: $id, type: PROMOTION) { reason } }"
NO_ID = "0123456789abcdef01234567"


@pytest.fixture(scope="module")
async def admin(house: House) -> AsyncIterator[Wire]:
    async with wired(await house.somebody(Role.ADMIN)) as admin:
        yield admin


async def rename(somebody: Somebody, name: str) -> None:
    user = await User.by_id(somebody.id)
    assert user is not None
    await user.set({"name": name})


async def found(admin: Wire, search: str, **arguments: Any) -> list[str]:
    """Their ids."""
    users = (await admin.ask(USERS, search=search, **arguments))["users"]
    return [one["id"] for one in users]


# Users


async def test_a_user_is_found_by_address_by_name_and_by_id(house: House, admin: Wire) -> None:
    mark = uuid4().hex
    zoe = await house.somebody(email=f"{mark}.Zoe@Shop.example")
    await rename(zoe, f"Zoë {mark} Müller")
    for search in (
        zoe.id,
        f"{mark}.zoe@shop.example",
        f"  {mark.upper()}.ZOE@S",
        f"Zoë {mark} Müller",
        f"zoe {mark} mu",
        f"ZOË {mark.upper()}",
        f"Zoe\u0308 {mark}",  # as some keyboards write it
    ):
        assert await found(admin, search) == [zoe.id], search
    for search in (f"{mark}x", f"Müller {mark}", zoe.id[:-1], zoe.id.upper(), f"zoe  {mark}"):
        assert await found(admin, search) == [], search


async def test_what_is_typed_is_text_and_no_pattern(house: House, admin: Wire) -> None:
    mark = uuid4().hex
    odd, other = await house.somebody(email=f"{mark}.x+y@shop.example"), await house.somebody()
    await rename(odd, f"{mark} .*(a|b)[c] $ne")
    await rename(other, f"{mark} Xaaab")
    for search in (f"{mark} .*(a|b)[c] $", f"{mark} .*", f"{mark}.x+y@"):
        assert await found(admin, search) == [odd.id], search
    for search in (".*", "^", f"^{mark}", f"{mark}.*@", f"{mark}...y", "(", "[", "\\", f"{mark}$"):
        assert await found(admin, search) == [], search


async def test_each_is_found_once_and_the_first_ones_only(house: House, admin: Wire) -> None:
    mark = uuid4().hex
    people = [await house.somebody(email=f"{mark}{n}@shop.example") for n in range(5)]
    for place, one in enumerate(people):
        await rename(one, f"{mark}{9 - place}")
    ids = [one.id for one in people]
    assert await found(admin, mark) == ids
    assert await found(admin, mark, first=2) == ids[:2]
    assert await found(admin, mark, first=0) == []
    by_name = [await house.somebody() for _ in range(3)]
    for place, one in enumerate(by_name):
        await rename(one, f"{mark.upper()}z{place}")
    assert await found(admin, mark) == [*ids, *(one.id for one in by_name)]


NOTHING_SEEN = ["\u200b", "\u0301", " \u200b\u00ad\u20dd ", "\u0301\u0308"]


@pytest.mark.parametrize("search", ["", "   ", "x" * 255, "a\x00b", *NOTHING_SEEN])
async def test_a_search_that_finds_nothing_whatever_there_is_says_so(
    admin: Wire, search: str
) -> None:
    with refused("BAD_USER_INPUT", "search"):
        await found(admin, search)


@pytest.mark.parametrize("first", [-1, 101])
async def test_no_list_is_longer_than_a_page(admin: Wire, first: int) -> None:
    with refused("BAD_USER_INPUT", "first"):
        await found(admin, "a", first=first)
    with refused("BAD_USER_INPUT", "first"):
        await admin.ask("query($n: Int!) { deadLetters(first: $n) { id } }", n=first)


async def test_a_search_costs_what_it_finds(house: House, admin: Wire) -> None:
    mark = uuid4().hex
    shown = {"password_hash": b"", "locale": "en", "created_at": house.runtime.clock.now()}
    users = User.get_pymongo_collection()
    await users.insert_many(
        {"name": f"{mark} {n}", "email": f"{mark}{n}", "email_key": f"{mark}{n}"} | shown
        for n in range(500)
    )
    database = house.runtime.store.database
    await database.command("profile", 2)
    try:
        assert len(await found(admin, f"{mark} ", first=5)) == 5
        assert len(await found(admin, f"{mark}1", first=5)) == 5
    finally:
        await database.command("profile", 0)
    profile = database["system.profile"].find(
        {"ns": users.full_name, "$or": [{"command.sort.email_key": 1}, {"command.sort.name": 1}]}
    )
    asked = await profile.to_list()
    await database["system.profile"].drop()
    await users.delete_many({"password_hash": b""})
    assert len(asked) == 4
    for one in asked:
        assert one["planSummary"].startswith("IXSCAN"), one
        assert not stages(one["execStats"]) & {"COLLSCAN", "SORT"}, one
        assert one["docsExamined"] <= 5, one


# What others see


async def test_an_admin_sees_anothers_notifications_page_by_page(
    house: House, admin: Wire, backend: Wire, ann: Wire
) -> None:
    await create(backend, admin.id)
    for number in range(3):
        await create(backend, ann.id, str(number))
    own = await nodes(ann)
    first = (await admin.ask(PAGE, id=ann.id, first=2))["notifications"]
    assert first["pageInfo"]["hasNextPage"]
    rest = await admin.ask(PAGE, id=ann.id, after=first["pageInfo"]["endCursor"])
    seen = [edge["node"] for edge in first["edges"] + rest["notifications"]["edges"]]
    assert seen == own
    assert not any(one["read"] for one in await nodes(ann))
    [mine] = await nodes(admin, first=1)  # their own, as ever
    by_id = await admin.ask(PAGE, id=admin.id, first=1)
    assert mine == by_id["notifications"]["edges"][0]["node"]
    assert mine["userId"] == admin.id


async def test_an_admin_sees_why_another_got_it_or_did_not(
    admin: Wire, backend: Wire, ann: Wire
) -> None:
    sent = (await create(backend, ann.id))["notification"]["id"]
    for number in range(3):
        await create(backend, ann.id, type="PROMOTION", title=f"Sale {number}")
    own = await ann.ask(EXPLAIN, notification=sent)
    assert own["explain"]["reason"]
    assert await admin.ask(EXPLAIN, notification=sent, id=ann.id) == own
    assert (await admin.ask(EXPLAIN, notification=sent))["explain"] is None
    first = (await admin.ask(DECISIONS, id=ann.id, first=1))["decisions"]
    assert first["edges"][0]["node"] == {"title": "Sale 2", "reason": "TYPE_OFF"}
    rest = await admin.ask(DECISIONS, id=ann.id, after=first["pageInfo"]["endCursor"])
    own = await ann.ask(DECISIONS)
    assert first["edges"] + rest["decisions"]["edges"] == own["decisions"]["edges"]


@pytest.mark.parametrize("role", [Role.USER, Role.SERVICE])
async def test_nobody_else_sees_anothers(house: House, ann: Wire, role: Role) -> None:
    somebody = await house.somebody(role)
    async with wired(somebody) as reader:
        for id in (ann.id, NO_ID):  # whether there is one is not told
            for document in (PAGE, DECISIONS):
                with refused("FORBIDDEN"):
                    await reader.ask(document, id=id)
            with refused("FORBIDDEN"):
                await reader.ask(EXPLAIN, notification=NO_ID, id=id)
        assert await reader.ask(DECISIONS, id=reader.id) == await reader.ask(DECISIONS)


async def test_there_is_nothing_to_see_of_nobody(admin: Wire) -> None:
    with refused("NOT_FOUND"):
        await admin.ask(PAGE, id=NO_ID)


async def test_the_log_has_what_an_admin_looked_at(
    house: House, admin: Wire, backend: Wire, ann: Wire
) -> None:
    event = uuid4().hex
    await create(backend, ann.id, dedupKey=event)
    search = f"{uuid4().hex}@shop.example"
    somebody = await house.somebody(email=search)
    with capture_logs() as lines:
        await admin.ask(PAGE, id=ann.id)
        await admin.ask(PAGE, id=admin.id)
        await ann.ask(PAGE)
        await found(admin, search)
        await admin.ask("{ deadLetters { id } }")
        for id in (ann.id, NO_ID, admin.id):
            await admin.ask(USER, id=id)
            await admin.ask(EVENT, event=event, id=id)
        await admin.ask(DRY_RUN, id=ann.id)
        await backend.ask(USER, id=ann.id)
    done = [line for line in lines if line.pop("by", None) == admin.id]
    looked = {"event": "looked_at_another", "user": ann.id, "log_level": "info"}
    assert done == [
        looked,
        {"event": "users_searched", "found": [somebody.id], "log_level": "info"},
        {"event": "dead_letters_read", "letters": [], "log_level": "info"},
        *[looked] * 3,
    ]
    assert search not in str(lines)
    assert not [line for line in lines if line.get("by")]
