"""Row `start`: what `make run` starts, on data that is there: until it is ready, and its memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import psutil

from bench.results import TIDINGS, Row
from bench.world import Program, World

_ROUNDS: Final = 3
_IDLE_SECONDS: Final = 5.0
_MEGABYTE: Final = 1_000_000


async def start(world: World) -> Sequence[Row]:
    """The first start makes the demo's data; those that follow are measured."""
    async with _everything(world):
        world.progress("the first start")
    seconds, memory = [], []
    for number in range(_ROUNDS):
        world.progress(f"start {number + 1} of {_ROUNDS}")
        began = time.monotonic()
        async with _everything(world) as program:
            seconds.append(time.monotonic() - began)
            await asyncio.sleep(_IDLE_SECONDS)
            memory.append(_resident(program))
    parts = ", ".join(f"{name} {size / _MEGABYTE:.0f} MB" for name, size in memory[-1].items())
    totals = [sum(one.values()) / _MEGABYTE for one in memory]
    return [
        Row("start", "everything in one process, to ready, not the first", "s", {TIDINGS: seconds}),
        Row(
            "start, memory", "of that when idle", "MB", {TIDINGS: totals}, notes={"of this": parts}
        ),
    ]


@asynccontextmanager
async def _everything(world: World) -> AsyncIterator[Program]:
    """With the demo's data and a database of its own, as `make run` has it."""
    nothing_else = {"MONGODB_URL": "", "RABBITMQ_URL": "", "DATA_DIR": world.folder / "start"}
    serving = world.service("serve", "tidings", DEMO_DATA="true", **nothing_else)
    async with serving as program:
        yield program


def _resident(program: Program) -> dict[str, int]:
    """Bytes, by the process's name: our own, and those that it has started."""
    ours = psutil.Process(program.process.pid)
    processes = (ours, *ours.children(recursive=True))
    return {one.name(): int(one.memory_info().rss) for one in processes}
