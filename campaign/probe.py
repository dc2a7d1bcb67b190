"""The prober: an order event every so often, and when it arrived. It measures recovery."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final

from campaign.deeds import Backend, Deed, Producer
from campaign.journal import Journal, Outcome, Person, Probe, Probed

READERS: Final = 2
PATHS: Final = tuple(
    f"{way} to reader {reader}" for reader in range(READERS) for way in ("mutation", "publish")
)
_AT_ONCE: Final = 64
_LEEWAY: Final = 0.1


class Prober:
    """Alternates between its users and between mutation and straight publish."""

    def __init__(
        self,
        people: Sequence[Person],
        backend: Backend,
        producer: Producer,
        perform: Callable[[Deed], Awaitable[Outcome]],
        now: Callable[[], datetime],
        journal: Journal,
        every: float = 0.1,
    ) -> None:
        self._people = people
        self._backend = backend
        self._producer = producer
        self._perform = perform
        self._now = now
        self._every = every
        self._journal = journal

    async def run(self) -> None:
        running: set[asyncio.Task[None]] = set()
        try:
            for number in itertools.count():
                if len(running) < _AT_ONCE:
                    task = asyncio.create_task(self._send(number))
                    running.add(task)
                    task.add_done_callback(running.discard)
                await asyncio.sleep(self._every)
        finally:
            for task in tuple(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def on_sight(self, node: dict[str, Any]) -> None:
        content = node.get("content")
        if isinstance(content, dict) and (id := content.get("orderId")):
            self._journal.note(Probed(id=id, path="", arrived=True, at=time.time()))

    async def _send(self, number: int) -> None:
        id, path = f"probe-{number}", PATHS[number % len(PATHS)]
        person = self._people[number // 2 % READERS]
        deed = (
            self._producer.order(id, person.id, "paid", self._now(), kind="probe")
            if number % 2
            else self._backend.order(id, person.id, "paid", kind="probe")
        )
        if await self._perform(deed) is Outcome.OK:
            self._journal.note(Probed(id=id, path=path, arrived=False, at=time.time()))


def recovery(probes: Sequence[Probe], healed_at: float) -> float | None:
    """Seconds from `healed_at` until all is well: every probe that was accepted until then has
    arrived, and on each of PATHS one that was accepted after. None when that never came.
    """
    latest = healed_at
    first: dict[str, float] = {}
    for probe in probes:
        if probe.accepted <= healed_at + _LEEWAY:
            if probe.arrived is None:
                return None
            latest = max(latest, probe.arrived)
        if probe.accepted > healed_at and probe.arrived is not None:
            first[probe.path] = min(probe.arrived, first.get(probe.path, probe.arrived))
    if set(first) != set(PATHS):
        return None
    return max(latest, *first.values()) - healed_at
