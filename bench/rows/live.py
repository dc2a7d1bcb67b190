"""Rows `live` and `socket memory`: thousands of open subscriptions on one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from time import perf_counter
from typing import Any, Final

import msgspec
import psutil

from bench.filling import fill_users, user_id
from bench.people import token
from bench.queries import ADDED
from bench.results import TIDINGS, Row, Target, alternated
from bench.sockets import Crowd, subscribed
from bench.world import Program, World
from services.notifications.drafts import Draft
from services.notifications.hints import hints
from services.notifications.templates import Text
from services.shared.clock import SystemClock
from services.shared.events import Event
from services.shared.loop import collect_rarely
from services.shared.rabbit import RabbitBus
from services.shared.vocabulary import NotificationType

SOCKETS: Final = 5_000
BARE: Final = "bare uvicorn"
GRAPHQL_WS: Final = "graphql-ws"
_DATABASE: Final = "live"
_ROUNDS: Final = 11
_WARM: Final = 50
_PATIENCE: Final = 4.0
_IDLE_SECONDS: Final = 0.25  # of CPU, in a second: thousands of sockets are pinged
_BODY: Final = "Twenty per cent off all shoes until Sunday evening, and free delivery on top of it."


class Contestant:
    """A program, its own users, and a virtual host of its own: no other hears what is told here."""

    def __init__(self, program: Program, first: int, bus: RabbitBus) -> None:
        self.program = program
        self.users = range(first, first + SOCKETS)
        self.kilobytes = 0.0
        self._bus = bus
        self._crowd: Crowd | None = None

    async def join(self, stack: AsyncExitStack) -> None:
        """Have all users subscribed and followed; `kilobytes`: what each took."""
        async with self._subscribed(range(self.users.start, self.users.start + _WARM)) as crowd:
            await self._followed(crowd, _WARM)
        before = self.program.memory()
        self._crowd = crowd = await stack.enter_async_context(self._subscribed(self.users))
        await self._idle()
        self.kilobytes = (self.program.memory() - before) / SOCKETS / 1000
        await self._followed(crowd, SOCKETS)

    async def promotion(self) -> float:
        """Milliseconds from publishing it to the last receipt."""
        assert self._crowd is not None
        self._crowd.expect(SOCKETS)
        told = self._told(SOCKETS)
        began = perf_counter()
        await self._bus.publisher.hint(told)
        milliseconds = 1000 * (await self._crowd.all_received() - began)
        await self._idle()  # what it does later is not for the others' rounds
        return milliseconds

    async def answers(self) -> list[Any]:
        """What a few are told, but for ids and cursors, which are each one's own."""
        few = range(self.users.start, self.users.start + 3)
        async with self._subscribed(few, keeps=True) as crowd:
            await self._followed(crowd, len(few))
            nodes = [
                msgspec.json.decode(one)["payload"]["data"]["notificationAdded"]["node"]
                for one in crowd.messages
            ]
        assert {node["userId"] for node in nodes} == {user_id(number) for number in few}
        own = ("id", "userId", "sentAt")
        return [{name: node[name] for name in node if name not in own} for node in nodes]

    def _subscribed(
        self, users: range, *, keeps: bool = False
    ) -> AbstractAsyncContextManager[Crowd]:
        tokens = [token(number) for number in users]
        return subscribed(self.program.port, tokens, ADDED, {}, keeps=keeps)

    async def _followed(self, crowd: Crowd, count: int) -> None:
        """Return when all hear what they are told."""
        while True:
            crowd.expect(count)
            await self._bus.publish(self._told(count))
            try:
                await crowd.all_received(_PATIENCE)
            except TimeoutError:
                continue
            return

    async def _idle(self) -> None:
        """Return when the process does nothing any more."""
        while True:
            before = self._cpu_seconds()
            await asyncio.sleep(1)
            if self._cpu_seconds() - before < _IDLE_SECONDS:
                return

    def _cpu_seconds(self) -> float:
        return sum(psutil.Process(self.program.process.pid).cpu_times()[:2])

    def _told(self, count: int) -> list[Event]:
        now, text = SystemClock().now(), Text("Summer sale", _BODY)
        content = {"title": text.title, "body": text.body}
        drafts = [
            Draft(user_id(number), "bench", NotificationType.PROMOTION, text, content)
            for number in self.users[:count]
        ]
        return hints((draft.row(now, {}) for draft in drafts), now)


async def live(world: World) -> Sequence[Row]:
    """A promotion to everybody who looks, and what it costs that they may look."""
    room = {"MAX_SOCKETS_PER_ADDRESS": 2 * SOCKETS, "MAX_CONNECTIONS": 4 * SOCKETS}
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(world.database(_DATABASE))
        await fill_users(database, 3 * SOCKETS)
        programs: Mapping[str, Callable[..., AbstractAsyncContextManager[Program]]] = {
            TIDINGS: partial(world.service, "gateway", _DATABASE, **room),
            BARE: partial(world.limit, "live", _DATABASE),
            GRAPHQL_WS: partial(world.peer, "graphql_ws.mjs", _DATABASE),
        }
        contestants: dict[str, Contestant] = {}
        for number, (name, start) in enumerate(programs.items()):
            url = await stack.enter_async_context(world.virtual_host(f"live-{number}"))
            bus = RabbitBus(url, SystemClock(), world.settings(_DATABASE))
            stack.push_async_callback(bus.close)
            await bus.ping()  # the programs expect exchanges
            program = await stack.enter_async_context(start(RABBITMQ_URL=url))
            contestants[name] = Contestant(program, number * SOCKETS, bus)
        answers = [await one.answers() for one in contestants.values()]
        assert answers[0] == answers[2], f"they answer different things: {answers}"
        for name, one in contestants.items():
            world.progress(f"{SOCKETS:,} subscriptions: {name}")
            await one.join(stack)
        collect_rarely()  # our own thousands of sockets
        measured: Mapping[str, Callable[[], Awaitable[float]]] = {
            name: one.promotion for name, one in contestants.items()
        }
        samples = await alternated(measured, _ROUNDS, world.progress)
    return [
        Row(
            "live",
            f"a promotion to {SOCKETS:,} open subscriptions of as many users, from publishing it "
            "to the last receipt, one process",
            "ms",
            samples,
            [Target(BARE, most=1.5), Target(GRAPHQL_WS, most=1 / 3)],
        ),
        Row(
            "socket memory",
            f"of each of {SOCKETS:,} idle subscriptions: growth of the resident process",
            "kB",
            {name: [one.kilobytes] for name, one in contestants.items()},
            [Target(None, most=30)],
        ),
    ]
