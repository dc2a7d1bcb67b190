"""An operation that comes again is answered as it was the first time, and refused alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from bson import ObjectId

from gateway.cost import OperationCost
from gateway.schema import make_schema
from services.notifications.models import Notification
from services.shared.settings import Settings
from services.shared.vocabulary import Role
from services.users.credentials import Session
from tests.kit import House, Somebody, http_client, open_house, quick_settings
from tests.servers import PrivateMongod, until

PAGE = """query Page($first: Int) {
    notifications(first: $first) { edges { node { id title content } } } unreadCount }"""
TWO = "query A { unreadCount } query B { unseenCount }"
MARK = "mutation ($id: ID!) { markNotificationRead(id: $id) { id } }"


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, max_query_cost=60)) as open_:
        yield open_


@pytest.fixture(scope="module")
async def ann(house: House) -> Somebody:
    somebody = await house.somebody()

    async def is_welcomed() -> bool:
        return bool((await somebody.api.ask("{ unreadCount }"))["unreadCount"])

    await until(is_welcomed)
    return somebody


async def answer(somebody: Somebody, **request: Any) -> tuple[int, Any]:
    media = {"accept": "application/graphql-response+json"}
    response = await somebody.api.post(json=request, headers=media)
    return response.status_code, response.json()


@pytest.mark.parametrize(
    "request_",
    [
        {"query": PAGE, "variables": {"first": 2}},
        {"query": PAGE, "variables": {"first": 2}, "extensions": {"cost": True}},
        {"query": PAGE, "variables": {"first": 1000}, "extensions": {"cost": True}},
        {"query": PAGE, "variables": {"first": "x"}},
        {"query": PAGE, "variables": {"first": [1]}},
        {"query": PAGE, "variables": {"first": -1}},
        {"query": PAGE, "variables": {"first": 90}, "extensions": {"cost": True}},
        {"query": PAGE, "variables": {"first": True}, "extensions": {"cost": True}},
        {"query": PAGE, "operationName": "Page"},
        {"query": PAGE, "operationName": "Other"},
        {"query": TWO, "operationName": "A"},
        {"query": TWO, "operationName": "B"},
        {"query": TWO},
        {"query": MARK, "variables": {"id": "nothing"}},
        {"query": MARK},
        {"query": "{ me { id email } }"},
        {"query": "{ me { nothing } }"},
        {"query": "{ me { id "},
        {"query": "subscription { unreadCount }"},
        {"query": "{ __schema { queryType { name } } me { __typename } }"},
        {"query": "{ user(id: 1) { id } }"},
    ],
    ids=str,
)
async def test_what_comes_again_is_answered_alike(ann: Somebody, request_: dict[str, Any]) -> None:
    first = await answer(ann, **request_)
    assert [await answer(ann, **request_) for _ in range(2)] == [first, first]


async def test_the_cost_is_counted_anew_with_other_variables(ann: Somebody) -> None:
    asked = {"query": PAGE, "extensions": {"cost": True}}
    costs = [
        (await answer(ann, **asked, variables={"first": first}))[1]["extensions"]["cost"]
        for first in (1, 2, 1, 3, 2, 1)
    ]
    assert costs[0] < costs[1] < costs[3]
    assert costs == [costs[0], costs[1], costs[0], costs[3], costs[1], costs[0]]
    status, refused = await answer(ann, query=PAGE, variables={"first": 90})
    assert refused["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert status == 400


async def test_a_mutation_that_is_known_is_still_not_taken_by_get(ann: Somebody) -> None:
    text = 'mutation { markNotificationRead(id: "x") { id } }'
    assert (await answer(ann, query=text))[1]["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    async with http_client() as client:
        response = await client.get(ann.api.url, params={"query": text}, headers=ann.api.headers)
    assert response.status_code == 405


async def test_what_is_known_asks_anew_who_is_asking(house: House, ann: Somebody) -> None:
    bob = await house.somebody()
    document = "{ me { id } }"
    for _ in range(2):
        assert (await ann.api.ask(document))["me"]["id"] == ann.id
        assert (await bob.api.ask(document))["me"]["id"] == bob.id
    assert await bob.api.ask("mutation { logout }") == {"logout": True}
    status, refused = await answer(bob, query=document)
    assert refused["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert status == 200


class Gate:
    """Stands before the look at sessions, which finds what it finds."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = asyncio.Event()
        self.opens = asyncio.Event()
        sessions = house.runtime.sessions.open_ones
        self._holds = sessions.holds
        monkeypatch.setattr(sessions, "holds", self._wait)

    async def _wait(self, session_id: str) -> bool:
        self.is_reached.set()
        await self.opens.wait()
        return await self._holds(session_id)


@pytest.mark.parametrize(("role", "reads"), [(Role.USER, True), (Role.ADMIN, False)])
async def test_a_customers_page_is_read_while_their_session_is_looked_up_and_told_after_that(
    house: House, monkeypatch: pytest.MonkeyPatch, role: Role, reads: bool
) -> None:
    asker = await house.somebody(role)
    await asker.api.ask(PAGE, first=2)
    gate = Gate(house, monkeypatch)
    database = house.runtime.store.database
    about = {"ns": f"{database.name}.notifications", "command.pipeline.0.$match.user_id": asker.id}

    async def is_read() -> bool:
        return bool(await database["system.profile"].find_one(about))

    await database.command("profile", 2)
    try:
        asking = asyncio.create_task(asker.api.ask(PAGE, first=2))
        await gate.is_reached.wait()
        if reads:
            await until(is_read)
        await asyncio.sleep(0.2)
        assert (await is_read(), asking.done()) == (reads, False)
        gate.opens.set()
        assert "unreadCount" in await asking
        assert await is_read()
    finally:
        await database.command("profile", 0)
        await database["system.profile"].drop()


async def test_what_was_read_for_a_session_that_ends_meanwhile_is_told_to_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = await house.somebody()
    await asker.api.ask(PAGE, first=2)
    gate = Gate(house, monkeypatch)
    asking = asyncio.create_task(answer(asker, query=PAGE, variables={"first": 2}))
    await gate.is_reached.wait()
    await Session.get_pymongo_collection().delete_many({"user_id": asker.id})
    gate.opens.set()
    _, refused = await asking
    assert refused["data"] is None
    assert {one["extensions"]["code"] for one in refused["errors"]} == {"UNAUTHENTICATED"}


async def test_a_mutation_waits_for_its_session(house: House) -> None:
    asker = await house.somebody()
    notifications = Notification.get_pymongo_collection()
    welcome = await until(lambda: notifications.find_one({"user_id": asker.id}))
    _, unknown = await answer(asker, query=MARK, variables={"id": str(ObjectId())})
    assert unknown["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    await Session.get_pymongo_collection().delete_many({"user_id": asker.id})
    _, refused = await answer(asker, query=MARK, variables={"id": str(welcome["_id"])})
    assert refused["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert await notifications.find_one({"_id": welcome["_id"], "read": False})


async def test_no_more_operations_are_kept_than_may_be() -> None:
    schema = make_schema(Settings(_env_file=None, kept_documents=3))
    stranger = SimpleNamespace(tells_cost=False)
    for at in range(5):
        await schema.execute(f"{{ a{at}: __typename }}", context_value=stranger)
    assert len(schema.ready._known) == 3  # type: ignore[attr-defined]
    last: OperationCost = schema.ready._known["{ a4: __typename }", None].cost  # type: ignore[attr-defined]
    for first in range(500):
        last.of({"first": first})
    assert len(last._known) <= 100
