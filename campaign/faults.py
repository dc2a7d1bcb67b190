"""What is done to the house, and undone: one function for each kind of fault."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from campaign.environment import can_move_clocks
from campaign.proxy import Proxy
from campaign.queues import delete_queue
from campaign.service_process import ServiceProcess
from campaign.world import World
from services.shared.events import QUEUES
from services.shared.failpoints import Failpoint
from services.shared.topology import queue_name, retry_queue_name
from tests.servers import until

MONGOD, BROKER, CLOCKS = "mongod", "rabbitmq", "all-clocks"
_FAILPOINT_SECONDS: Final = 8.0
_TERM_SECONDS: Final = 10.0  # SHUTDOWN_SECONDS is 5; the cores are busy

# The kinds of process that get to a failpoint.
_RELAYS: Final = ("gateway", "users", "notifications", "scheduler")
REACHED_BY: Final[Mapping[Failpoint, Sequence[str]]] = {
    Failpoint.AFTER_COMMIT: ("gateway", "scheduler", "users"),
    Failpoint.AFTER_CONFIRM: _RELAYS,
    Failpoint.BEFORE_ROW_IS_DONE: _RELAYS,
    Failpoint.IN_FAN_OUT: ("notifications",),
    Failpoint.BEFORE_ACK: ("notifications", "users"),
}


@dataclass
class Injected:
    """One fault that happened. Real seconds since 1970; for a kill `healed_at` is `at`.

    `alone`: nothing else was broken before all was well again.
    """

    kind: str
    target: str
    at: float
    healed_at: float
    alone: bool = False


class Impossible(Exception):
    """The fault did not come about, and nothing was changed."""


Action = Callable[[World, str, float], Awaitable[Injected]]


@dataclass(frozen=True)
class Fault:
    """A kind: what it may hit, and what it does to one of these for some seconds."""

    group: str
    targets: Callable[[World], Sequence[str]]
    act: Action
    rare: bool = False
    alone: bool = False


def _processes(*kinds: str) -> Callable[[World], Sequence[str]]:
    return lambda world: [one.name for one in world.processes.values() if one.kind in kinds]


def _links(world: World) -> Sequence[str]:
    return list(world.links)


def _only(name: str) -> Callable[[World], Sequence[str]]:
    return lambda _: [name]


def _process(world: World, name: str) -> ServiceProcess:
    process = world.processes[name]
    if not process.is_alive:
        raise Impossible(f"{name} is between two lives")
    return process


async def _kill(world: World, target: str, _: float) -> Injected:
    process = _process(world, target)
    at = time.time()
    process.send(signal.SIGKILL)
    return Injected(f"kill-{process.kind}", target, at, at)


async def _term(world: World, target: str, _: float) -> Injected:
    process = _process(world, target)
    life, at = process.incarnation, time.time()
    process.send(signal.SIGTERM)
    try:
        await _ended(process, life, _TERM_SECONDS)
    except TimeoutError:
        world.unexpected_exits.append(f"{target} did not end {_TERM_SECONDS} s after SIGTERM")
        process.send(signal.SIGKILL)
    return Injected("term", target, at, at)


async def _stop(world: World, target: str, length: float) -> Injected:
    process = _process(world, target)
    life, at = process.incarnation, time.time()
    process.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(length)
    finally:
        if process.incarnation == life:
            process.send(signal.SIGCONT)
    return Injected("stop", target, at, time.time())


def _failpoint(failpoint: Failpoint) -> Action:
    """A trap in every process that can get there; the first to step into it dies."""

    async def act(world: World, target: str, length: float) -> Injected:
        able = REACHED_BY[failpoint]
        living = [one for one in world.processes.values() if one.kind in able and one.is_alive]
        lives = {one: one.incarnation for one in living}
        for process in living:
            process.is_trapped = True
            process.failpoint.write_text(f"{failpoint} {1 + int(length) // 2}")
        try:
            with suppress(AssertionError):
                await until(lambda: _sprung(living), _FAILPOINT_SECONDS, every=0.005)
        finally:
            at, dying = time.time(), [process for process in living if not _defused(process)]
            for process in living:
                process.is_trapped = process in dying
        if not dying:
            raise Impossible(f"nobody got to {failpoint}")
        for process in dying:
            await _ended(process, lives[process], _FAILPOINT_SECONDS)
            process.is_trapped = False
        return Injected(f"failpoint-{failpoint}", dying[0].name, at, at)

    return act


def _defused(process: ServiceProcess) -> bool:
    """Whether its trap was still there, and is gone now. A process takes it away as it dies."""
    try:
        process.failpoint.unlink()
    except FileNotFoundError:
        return False
    return True


def _sprung(processes: Sequence[ServiceProcess]) -> list[ServiceProcess]:
    """Those whose trap is gone: it goes just before they do."""
    return [process for process in processes if not process.failpoint.exists()]


async def _ended(process: ServiceProcess, life: int, seconds: float) -> None:
    async with asyncio.timeout(seconds), process.ended:
        await process.ended.wait_for(lambda: process.lives_over >= life)


def _link(kind: str, harm: Callable[[Proxy], None]) -> Action:
    async def act(world: World, target: str, length: float) -> Injected:
        proxy, at = world.links[target], time.time()
        harm(proxy)
        try:
            await asyncio.sleep(length)
        finally:
            await proxy.heal()
        return Injected(f"link-{kind}", target, at, time.time())

    return act


def _swallow(proxy: Proxy) -> None:
    """What is open is lost too, or nobody would shake hands."""
    proxy.swallow_handshakes()
    proxy.cut()


async def _cut(world: World, target: str, _: float) -> Injected:
    at = time.time()
    world.links[target].cut()
    return Injected("link-cut", target, at, at)


async def _kill_mongod(world: World, target: str, length: float) -> Injected:
    world.look_after(world.mongod)
    at = time.time()
    await world.mongod.kill()
    await asyncio.sleep(length / 3)
    await world.mongod.start()
    return Injected("kill-mongod", target, at, time.time())


async def _restart_mongod(world: World, target: str, length: float) -> Injected:
    world.look_after(world.mongod)
    at = time.time()
    await world.mongod.stop()
    await asyncio.sleep(length / 3)
    await world.mongod.start()
    return Injected("restart-mongod", target, at, time.time())


async def _kill_broker(world: World, target: str, length: float) -> Injected:
    world.look_after(world.rabbitmq)
    at = time.time()
    await world.rabbitmq.kill()
    await asyncio.sleep(length / 3)
    await world.rabbitmq.start()
    await world.broker.confirms()
    return Injected("kill-broker", target, at, time.time())


async def _restart_broker(world: World, target: str, length: float) -> Injected:
    world.look_after(world.rabbitmq)
    at = time.time()
    await world.rabbitmq.stop()
    await world.rabbitmq.start()
    await world.broker.confirms()
    return Injected("restart-broker", target, at, time.time())


_SET_ALARM: Final = "rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []})."
_CLEAR_ALARM: Final = "rabbit_alarm:clear_alarm({resource_limit, disk, node()})."


async def _disk_alarm(world: World, target: str, length: float) -> Injected:
    at = time.time()
    await _erlang(world, _SET_ALARM)
    try:
        await asyncio.sleep(length)
    finally:
        await _erlang(world, _CLEAR_ALARM)
    return Injected("disk-alarm", target, at, time.time())


def _queues(world: World) -> Sequence[str]:
    waits = world.endpoints.settings.retry_waits
    retries = [retry_queue_name(name, wait) for name in QUEUES for wait in waits]
    return [*(queue_name(name) for name in QUEUES for _ in waits), *retries]


async def _delete_queue(world: World, target: str, length: float) -> Injected:
    at = time.time()

    async def erlang(expression: str) -> str:
        return await _erlang(world, expression)

    if not await delete_queue(world.endpoints.direct_rabbitmq_url, erlang, target, length):
        raise Impossible("it is never empty")
    return Injected("delete-queue", target, at, time.time())


async def _erlang(world: World, expression: str) -> str:
    for attempt in range(5):
        with suppress(RuntimeError):
            return await world.broker.erlang(expression)
        await asyncio.sleep(0.2 * (attempt + 1))
    raise Impossible("the broker does not evaluate Erlang")


def _clock(kind: str, shift: str) -> Action:
    async def act(world: World, target: str, length: float) -> Injected:
        everyone = list(world.processes.values())
        moved = everyone if target == CLOCKS else [world.processes[target]]
        at = time.time()
        for process in moved:
            process.set_clock(shift)
        try:
            await asyncio.sleep(length)
        finally:
            for process in moved:
                process.set_clock("+0")
        return Injected(kind, target, at, time.time())

    return act


FAULTS: Final[Mapping[str, Fault]] = {
    **{
        f"kill-{kind}": Fault("kill", _processes(kind), _kill)
        for kind in ("gateway", "users", "notifications", "scheduler")
    },
    "kill-mongod": Fault("kill", _only(MONGOD), _kill_mongod, rare=True),
    "kill-broker": Fault("kill", _only(BROKER), _kill_broker, rare=True),
    "term": Fault("term", _processes(*_RELAYS), _term),
    "restart-mongod": Fault("restart", _only(MONGOD), _restart_mongod, rare=True),
    "restart-broker": Fault("restart", _only(BROKER), _restart_broker, rare=True),
    "stop": Fault("stop", _processes(*_RELAYS), _stop),
    **{
        f"failpoint-{point}": Fault("failpoint", _only(point), _failpoint(point))
        for point in REACHED_BY
    },
    "link-cut": Fault("link", _links, _cut),
    "link-refused": Fault("link", _links, _link("refused", Proxy.refuse)),
    "link-black-hole": Fault("link", _links, _link("black-hole", Proxy.black_hole)),
    "link-swallowed-handshake": Fault("link", _links, _link("swallowed-handshake", _swallow)),
    "link-slow": Fault("link", _links, _link("slow", Proxy.slow)),
    "delete-queue": Fault("queue", _queues, _delete_queue, alone=True),
    "disk-alarm": Fault("disk", _only(BROKER), _disk_alarm),
    "clock-forward": Fault("clock", _processes(*_RELAYS), _clock("clock-forward", "+3600")),
    "clock-back": Fault("clock", _processes(*_RELAYS), _clock("clock-back", "-3600")),
    "clocks-forward": Fault("clock", _only(CLOCKS), _clock("clocks-forward", "+3600")),
    "clocks-back": Fault("clock", _only(CLOCKS), _clock("clocks-back", "-3600")),
}


_CLOCKS: Final = frozenset(kind for kind, fault in FAULTS.items() if fault.group == "clock")


def chosen(words: Sequence[str]) -> list[str]:
    """The kinds that are meant by kinds and groups of kinds; all, without any. ValueError."""
    if words and not can_move_clocks() and {"clock", *_CLOCKS} & set(words):
        raise ValueError("clocks can't be moved: apt-get install libfaketime")
    groups = {fault.group for fault in FAULTS.values()}
    if unknown := set(words) - groups - set(FAULTS):
        known = ", ".join([*sorted(groups), *FAULTS])
        raise ValueError(
            f"there is no fault called {', '.join(sorted(unknown))}; there are {known}"
        )
    kinds = [kind for kind, one in FAULTS.items() if not words or {kind, one.group} & set(words)]
    return [kind for kind in kinds if can_move_clocks() or FAULTS[kind].group != "clock"]
