"""Rows `page` and `mutation`: what a shop's front end asks all day."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

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
_ROUNDS: Final = 5
_WARM_SECONDS: Final = 4.0  # Node compiles what it has done a thousand times
_SECONDS: Final = 4.0
_ALONE_SECONDS: Final = 2.0


async def page(world: World) -> Sequence[Row]:
    """Pages: of many clients a second, and how long one client waits."""
    asked = random.Random(7).sample(range(USERS), _ASKED)
    messages = [
        request("/graphql", {"query": PAGE, "variables": {"first": 20}}, token(number))
        for number in asked
    ]
    async with _contestants(world) as (_, programs):
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
    """Read marks: a transaction with the event that tells of it."""
    async with _contestants(world) as (database, programs):
        unread = _unread(await _ids_of_unread(database))
        marks = {name: _marks(name, unread) for name in programs}

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


@asynccontextmanager
async def _contestants(
    world: World,
) -> AsyncIterator[tuple[AsyncDatabase[dict[str, Any]], Mapping[str, Program]]]:
    """A full database, and all that serve it."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(world.database(_DATABASE))
        await fill_notifications(database, USERS, EACH, world.progress)
        programs = {
            TIDINGS: await stack.enter_async_context(world.service("gateway", _DATABASE)),
            BARE: await stack.enter_async_context(world.limit("page", _DATABASE)),
            APOLLO: await stack.enter_async_context(world.peer("apollo.mjs", _DATABASE)),
            YOGA: await stack.enter_async_context(world.peer("yoga.mjs", _DATABASE)),
        }
        yield database, programs


async def _ids_of_unread(database: AsyncDatabase[dict[str, Any]]) -> list[tuple[int, str]]:
    """The numbers of users and the ids of what they have not read, in a random order."""
    numbers = {user_id(number): number for number in range(USERS)}
    shown = {"read": False, "expires_at": None, "archived": False, "snoozed_until": None}
    rows = database["notifications"].find(shown, {"user_id": 1}).limit(300_000)
    found = [(numbers[row["user_id"]], str(row["_id"])) async for row in rows]
    random.Random(7).shuffle(found)
    return found


def _unread(found: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Each once: marked again, nothing would be written."""
    yield from found
    raise AssertionError("All are read: fill in more notifications.")


def _marks(name: str, unread: Iterator[tuple[int, str]]) -> Iterator[bytes]:
    path = "/mutation" if name == BARE else "/graphql"
    for number, id in unread:
        yield request(path, {"query": MARK_READ, "variables": {"id": id}}, token(number))
