"""Follows a plan of faults: what is broken at the same time, and what alone."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from campaign.faults import BROKER, FAULTS, Impossible, Injected
from campaign.plan import Step
from campaign.world import World
from tests.servers import until

AT_ONCE: Final = 2
WELL_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.25
_MOST_POSTPONED: Final = 10
_APART_SECONDS: Final = 2.5  # from the end of other faults to one that is alone


class Injector:
    """Follows a plan, at most AT_ONCE faults at a time and never two on the same thing.

    `is_well(at)`: whether all that a fault broke, which was healed then, works again.
    """

    def __init__(
        self, world: World, steps: Iterator[Step], is_well: Callable[[float], bool]
    ) -> None:
        self.injected: list[Injected] = []
        self.impossible: Counter[str] = Counter()
        self._world = world
        self._steps = steps
        self._is_well = is_well
        self._busy: set[str] = set()
        self._postponed: deque[Step] = deque()
        self._room = asyncio.Semaphore(AT_ONCE)

    @property
    def active(self) -> Sequence[str]:
        return sorted(self._busy)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then every fault is healed before it returns."""
        async with asyncio.TaskGroup() as group:
            for drawn in self._coming():
                step = replace(drawn, alone=drawn.alone or FAULTS[drawn.kind].alone)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), step.delay)
                await self._enter(step)
                if stop.is_set():
                    return
                targets = FAULTS[step.kind].targets(self._world)
                free = [one for one in targets if _thing(step.kind, one) not in self._busy]
                if not free:
                    self._postpone(step)
                    self._leave(step)
                    continue
                target = step.choose(free)
                self._busy.add(_thing(step.kind, target))
                group.create_task(self._inject(step, target))

    async def _inject(self, step: Step, target: str) -> None:
        try:
            injected = await FAULTS[step.kind].act(self._world, target, step.length)
        except Impossible:
            self._postpone(step)
        else:
            injected.alone = step.alone
            self.injected.append(injected)
            if step.alone:
                await self._until_well(injected)
        finally:
            self._busy.discard(_thing(step.kind, target))
            self._leave(step)

    def _coming(self) -> Iterator[Step]:
        """The plan, with what was not possible when its time came tried again."""
        while True:
            yield self._postponed.popleft() if self._postponed else next(self._steps)

    def _postpone(self, step: Step) -> None:
        self.impossible[step.kind] += 1
        if self.impossible[step.kind] < _MOST_POSTPONED:
            self._postponed.append(step)

    async def _enter(self, step: Step) -> None:
        for _ in range(AT_ONCE if step.alone else 1):
            await self._room.acquire()
        if step.alone:
            await asyncio.sleep(_APART_SECONDS)

    async def _until_well(self, injected: Injected) -> None:
        """Or until it is too late: then it counts as never."""
        with suppress(AssertionError):
            await until(lambda: self._is_well(injected.healed_at), WELL_SECONDS, _LOOK_SECONDS)

    def _leave(self, step: Step) -> None:
        for _ in range(AT_ONCE if step.alone else 1):
            self._room.release()


def _thing(kind: str, target: str) -> str:
    """What must not be hit twice at once: the clocks are apart from the processes."""
    group = FAULTS[kind].group
    if group == "failpoint":
        return "failpoints"
    if group == "clock":
        return "clocks"
    return BROKER if group in ("queue", "disk") else target
