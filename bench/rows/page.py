"""Rows `page` and `mutation`: what a shop's front end asks all day."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Final, NamedTuple

from pymongo.asynchronous.database import AsyncDatabase

from bench.equal import same_answers
from bench.filling import fill_notifications, user_id
from bench.http_load import Load, ask, load, request
from bench.people import token
from bench.queries import MARK_READ, PAGE
from bench.results import TIDINGS, Row, Target, alternated
from bench.world import Program, World

USERS: Final = 10_000
EACH: Final = 200
CLIENTS: Final = 64
BARE: Final = "bare Starlette"
APOLLO: Final = "Apollo Server"
YOGA: Final = "GraphQL Yoga"
_DATABASE: Final = "page"
_ASKED: Final = 5_000
_COMPARED: Final = 20
_MARKED_USERS: Final = 600  # a ninth of what they have can be marked: more than is, meanwhile
_ROUNDS: Final = 5
_WARM_SECONDS: Final = 3.0  # Node compiles what it has done a thousand times
_SECONDS: Final = 1.5
_ALONE_SECONDS: Final = 0.8


async def page(world: World) -> Sequence[Row]:
    """Pages: of many clients a second, and how long one client waits."""
    asked = random.Random(7).sample(range(USERS), _ASKED)
    messages = [
        request("/graphql", {"query": PAGE, "variables": {"first": 20}}, token(number))
        for number in asked
    ]
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(world.database(_DATABASE))
        await fill_notifications(database, USERS, EACH, world.progress)
        programs = {
            name: await stack.enter_async_context(serving.start())
            for name, serving in _servers(world, _DATABASE).items()
        }
        for message in messages[:_COMPARED]:
            same_answers({name: await ask(one.port, message) for name, one in programs.items()})
        given = itertools.cycle(messages)

        def measure(
            program: Program, clients: int, seconds: float, figure: Callable[[Load], float]
        ) -> Callable[[], Awaitable[float]]:
            async def measured() -> float:
                return figure(await load(program.port, given, clients, seconds))

            return measured

        for program in programs.values():
            await load(program.port, given, CLIENTS, _WARM_SECONDS)
        many = await alternated(
            {
                name: measure(program, CLIENTS, _SECONDS, lambda seen: seen.rate)
                for name, program in programs.items()
            },
            _ROUNDS,
            world.progress,
        )
        alone = await alternated(
            {
                name: measure(program, 1, _ALONE_SECONDS, lambda seen: 1000 * seen.percentile(0.5))
                for name, program in programs.items()
            },
            _ROUNDS,
            world.progress,
        )
    return [
        Row(
            "page",
            f"20 notifications and the unread count, {USERS:,} users with {EACH}, {CLIENTS} "
            "clients, one process",
            "pages/s",
            many,
            [Target(BARE, least=0.9), Target(APOLLO, least=1.3), Target(YOGA, least=1.3)],
        ),
        Row(
            "page, one client",
            "the same, one after the other",
            "ms, p50",
            alone,
            [Target(BARE, most=1.3)],
        ),
    ]


async def mutation(world: World) -> Sequence[Row]:
    """Read marks: a transaction with the event that tells of it. Each contestant has a database of
    its own, or the relay of one would take the events of another."""
    async with AsyncExitStack() as stack:
        programs: dict[str, Program] = {}
        marks: dict[str, Iterator[bytes]] = {}
        for name, serving in _servers(world).items():
            database = await stack.enter_async_context(world.database(serving.database))
            await fill_notifications(database, _MARKED_USERS, EACH, world.progress)
            programs[name] = await stack.enter_async_context(serving.start())
            marks[name] = _marks(name, await _unread(database))
        same_answers({name: await _marked(one, marks[name]) for name, one in programs.items()})

        def measure(name: str) -> Callable[[], Awaitable[float]]:
            async def measured() -> float:
                return (await load(programs[name].port, marks[name], CLIENTS, _SECONDS)).rate

            return measured

        for name, program in programs.items():
            await load(program.port, marks[name], CLIENTS, _WARM_SECONDS)
        samples = await alternated(
            {name: measure(name) for name in programs}, _ROUNDS, world.progress
        )
    return [
        Row(
            "mutation",
            f"markNotificationRead with its event, {CLIENTS} clients, one process",
            "marks/s",
            samples,
            [Target(BARE, least=0.7)],
        )
    ]


class _Server(NamedTuple):
    database: str
    start: Callable[[], AbstractAsyncContextManager[Program]]


def _servers(world: World, database: str | None = None) -> Mapping[str, _Server]:
    """All that serve pages and marks; each on a database of its own, unless one is given."""

    def on(name: str, start: Callable[[str], AbstractAsyncContextManager[Program]]) -> _Server:
        used = database or f"marks_{name}"
        return _Server(used, partial(start, used))

    return {
        TIDINGS: on("tidings", partial(world.service, "gateway")),
        BARE: on("bare", partial(world.limit, "page")),
        APOLLO: on("apollo", partial(world.peer, "apollo.mjs")),
        YOGA: on("yoga", partial(world.peer, "yoga.mjs")),
    }


async def _unread(database: AsyncDatabase[dict[str, Any]]) -> Sequence[tuple[int, str]]:
    """The numbers of users and the ids of what they have not read, the same in each database."""
    shown = {"read": False, "expires_at": None, "archived": False, "snoozed_until": None}
    numbers = {user_id(number): number for number in range(_MARKED_USERS)}
    rows = database["notifications"].find(shown, {"user_id": 1})
    found = sorted([(numbers[row["user_id"]], str(row["_id"])) async for row in rows])
    random.Random(7).shuffle(found)
    return found


def _marks(name: str, unread: Sequence[tuple[int, str]]) -> Iterator[bytes]:
    """Each once: marked again, nothing would be written."""
    path = "/mutation" if name == BARE else "/graphql"
    for number, id in unread:
        yield request(path, {"query": MARK_READ, "variables": {"id": id}}, token(number))
    raise AssertionError("All are read: fill in more notifications.")


async def _marked(program: Program, marks: Iterator[bytes]) -> bytes:
    """The answer to the next mark, but for the moment."""
    answer = json.loads(await ask(program.port, next(marks)))
    node = answer["data"]["markNotificationRead"]
    assert node["read"], node
    assert node.pop("readAt"), node
    node.pop("sentAt")  # the databases are filled one after the other
    return json.dumps(answer).encode()
