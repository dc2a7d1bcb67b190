"""An operation that comes again is answered as it was the first time, and refused alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from bson import ObjectId
from pymongo import monitoring
from pymongo.errors import AutoReconnect

from gateway import app
from gateway.context import Context
from gateway.cost import OperationCost
from gateway.schema import make_schema
from services.notifications.models import Notification
from services.shared.clock import Clock
from services.shared.errors import Unauthenticated
from services.shared.settings import Settings
from services.shared.vocabulary import Role
from services.users.credentials import Session
from services.users.open_sessions import OpenSessions
from services.users.sessions import Caller, Sessions
from services.users.tokens import AccessTokens, signing_keys
from tests.kit import Api, House, Somebody, http_client, open_house, quick_settings
from tests.servers import PrivateMongod, until
from tests.test_authorisation import NOBODY, WHO_MAY

PAGE = """query Page($first: Int) {
    notifications(first: $first) { edges { node { id title content } } } unreadCount }"""
TWO = "query A { unreadCount } query B { unseenCount }"
MARK = "mutation ($id: ID!) { markNotificationRead(id: $id) { id } }"
ASKED_BY_CUSTOMERS = {
    name: document
    for name, (document, who) in WHO_MAY.items()
    if document.startswith("query") and Role.USER in who and NOBODY not in who
}


class Commands(monitoring.CommandListener):
    """What the database is told, by its name."""

    def __init__(self) -> None:
        self._told: list[tuple[str, str]] = []
        self.listens = False

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.listens:
            self._told.append((event.command_name, repr(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass

    @contextmanager
    def about(self, user_id: str) -> Iterator[Callable[[], list[str]]]:
        """The names of those meanwhile that name the user."""
        self.listens = True
        try:
            yield lambda: [name for name, command in self._told if user_id in command]
        finally:
            self.listens = False
            self._told.clear()


@pytest.fixture(scope="module")
def commands() -> Commands:
    made = Commands()
    monitoring.register(made)  # for good
    return made


@pytest.fixture(scope="module")
async def house(commands: Commands, mongod: PrivateMongod) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, max_query_cost=60)) as open_:
        yield open_


@pytest.fixture(scope="module")
async def ann(house: House) -> Somebody:
    somebody = await house.somebody()
    await welcomed(somebody)
    return somebody


async def welcomed(somebody: Somebody) -> None:
    async def has_come() -> bool:
        return bool((await somebody.api.ask("{ unreadCount }"))["unreadCount"])

    await until(has_come)


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


class Gate(OpenSessions):
    """Answers when it is opened: with what there is, or with the error that it is given."""

    def __init__(self, clock: Clock, remembered: int) -> None:
        super().__init__(clock, remembered)
        self.asked = 0
        self.error: Exception | None = None
        self.opens = asyncio.Event()
        self.opens.set()

    def ask(self, session_id: str) -> asyncio.Future[Set[str]]:
        self.asked += 1
        return asyncio.ensure_future(self._ask_later(session_id))

    async def _ask_later(self, session_id: str) -> Set[str]:
        await self.opens.wait()
        if self.error is not None:
            raise self.error
        return await super().ask(session_id)


def sessions_with(house: House, gate: Gate) -> Sessions:
    """The house's, which are looked up there."""
    runtime, settings = house.runtime, house.runtime.settings
    life = timedelta(seconds=settings.access_token_seconds)
    tokens = AccessTokens(signing_keys(settings), life, runtime.clock, 100)
    return Sessions(runtime.store, runtime.outbox, tokens, gate, runtime.clock, settings)


@pytest.fixture(scope="module")
async def gated(house: House) -> AsyncIterator[tuple[Api, Gate]]:
    """Another gateway of the house, and what it looks up sessions with."""
    runtime, settings, stop = house.runtime, house.runtime.settings, asyncio.Event()
    gate = Gate(runtime.clock, 100)
    sessions = sessions_with(house, gate)
    listening = app.listen(settings)
    serving = asyncio.create_task(app.serve(replace(runtime, sessions=sessions), [listening], stop))
    yield Api(f"http://127.0.0.1:{listening.getsockname()[1]}/graphql"), gate
    stop.set()
    await serving


async def visitor(house: House, api: Api, role: Role = Role.USER) -> Somebody:
    """Somebody who has asked for a page before."""
    somebody = await house.somebody(role)
    somebody = replace(somebody, api=api.as_(somebody.api.token))
    await somebody.api.ask(PAGE, first=2)
    return somebody


@asynccontextmanager
async def reads(house: House) -> AsyncIterator[Callable[[str], Awaitable[bool]]]:
    """Whether a user's notifications were read for a page since."""
    database = house.runtime.store.database

    async def is_read(user_id: str) -> bool:
        page = {"command.pipeline.0.$match.user_id": user_id}
        about = {"ns": f"{database.name}.notifications", **page}
        return await database["system.profile"].find_one(about) is not None

    await database.command("profile", 2)
    try:
        yield is_read
    finally:
        await database.command("profile", 0)
        await database["system.profile"].drop()


@asynccontextmanager
async def asking(gate: Gate, somebody: Somebody) -> AsyncIterator[asyncio.Task[tuple[int, Any]]]:
    """For a page, while their session is looked up; that is answered at the end."""
    gate.opens.clear()
    asked = gate.asked
    task = asyncio.create_task(answer(somebody, query=PAGE, variables={"first": 2}))
    try:
        await until(lambda: gate.asked > asked)
        yield task
    finally:
        gate.opens.set()
        await asyncio.wait({task})


async def test_a_customers_page_is_read_while_their_session_is_looked_up_and_told_after_that(
    house: House, gated: tuple[Api, Gate]
) -> None:
    api, gate = gated
    asker = await visitor(house, api)
    async with reads(house) as is_read, asking(gate, asker) as task:
        await until(partial(is_read, asker.id))
        assert not task.done()
    _, told = task.result()
    assert "unreadCount" in told["data"]


@pytest.mark.parametrize("name", ASKED_BY_CUSTOMERS)
async def test_whatever_a_customer_asks_only_reads_while_their_session_is_looked_up(
    house: House, gated: tuple[Api, Gate], commands: Commands, name: str
) -> None:
    api, _ = gated
    document = ASKED_BY_CUSTOMERS[name]
    asker = await visitor(house, api)
    await welcomed(asker)
    await answer(asker, query=document)
    await Session.get_pymongo_collection().delete_many({"user_id": asker.id})
    with commands.about(asker.id) as told:
        _, refused = await answer(asker, query=document)
        assert told()
        assert set(told()) <= {"find", "aggregate", "distinct", "getMore"}
    assert refused["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("role", [Role.SERVICE, Role.ADMIN])
async def test_nothing_is_read_ahead_for_others(
    house: House, gated: tuple[Api, Gate], role: Role
) -> None:
    api, gate = gated
    asker = await visitor(house, api, role)
    async with reads(house) as is_read:
        async with asking(gate, asker):
            await asyncio.sleep(0.1)  # far longer than it takes
            assert not await is_read(asker.id)
        await until(partial(is_read, asker.id))


async def test_an_identity_is_not_presumed(house: House, gated: tuple[Api, Gate]) -> None:
    api, gate = gated
    asker = await visitor(house, api)
    asked, sessions = gate.asked, sessions_with(house, gate)
    services: Any = SimpleNamespace(sessions=sessions, identify=sessions.identify)
    context = Context(services, asker.api.token, Caller("127.0.0.1"), may_presume=True)
    await Session.get_pymongo_collection().delete_many({"user_id": asker.id})
    assert (await context.viewer()).user_id == asker.id
    with pytest.raises(Unauthenticated):
        await context.identity()
    assert not await context.settle_presumption()
    assert gate.asked == asked + 1


async def test_only_a_session_that_was_open_is_presumed_and_only_while_nobody_asks(
    house: House,
) -> None:
    asker = await house.somebody()
    token, sessions = asker.tokens["accessToken"], house.runtime.sessions
    assert sessions.presume(token) is None
    await sessions.identify(token)
    presumed = sessions.presume(token)
    assert presumed is not None
    assert sessions.presume(token) is None
    await presumed.confirm()
    assert presumed.identity.user_id == asker.id


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, "UNAUTHENTICATED"), (AutoReconnect("gone"), "SERVICE_UNAVAILABLE")],
    ids=["ended", "away"],
)
async def test_what_was_read_ahead_is_told_to_nobody_whose_session_is_not_found(
    house: House, gated: tuple[Api, Gate], error: Exception | None, code: str
) -> None:
    api, gate = gated
    asker = await visitor(house, api)
    asked = gate.asked
    try:
        async with reads(house) as is_read, asking(gate, asker) as task:
            await until(partial(is_read, asker.id))
            if error is None:
                await Session.get_pymongo_collection().delete_many({"user_id": asker.id})
            gate.error = error
    finally:
        gate.error = None
    _, refused = task.result()
    assert refused["data"] is None
    assert {one["extensions"]["code"] for one in refused["errors"]} == {code}
    assert gate.asked == asked + 1


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
