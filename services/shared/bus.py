"""How events travel, whatever carries them: the interface of both transports.

`rabbit` carries them between processes, `embedded` inside one; tests/test_bus.py holds both to
the same contract. An event is delivered at least once to every queue that QUEUES names for it;
consumers make it once by the event's key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.shared.events import Event

Handler = Callable[[Sequence[Event]], Awaitable[None]]
Handlers = Mapping[str, Handler]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of a queue, in hand. `failures`: how often handling it has failed so far."""

    body: bytes
    failures: int
    first_seen: datetime
    receipt: object


@dataclass(frozen=True, slots=True)
class Ack:
    """Done: forget the message."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Give it back after so many seconds."""

    wait: float
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """Nobody can handle it: keep it aside with the reason."""

    reason: str


Verdict = Ack | Retry | Dead


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, as it lies in the dead-letter queue."""

    queue: str
    body: bytes
    reason: str
    first_seen: datetime


class Subscription(Protocol):
    """One consumer of one queue."""

    def batches(self) -> AsyncIterator[Sequence[Delivery]]:
        """What waits in the queue, up to `batch_size` at once; never ends, never empty."""

    async def settle(self, settled: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts. What can't be settled is delivered again."""


class LiveFeed(Protocol):
    """The live events of those users that somebody here looks at."""

    async def watch(self, user_id: str) -> None: ...

    async def unwatch(self, user_id: str) -> None: ...


class Bus(Protocol):
    async def publish(self, events: Sequence[Event]) -> None:
        """Returns when all are durable (live events: when handed on). Raises Unavailable."""

    def subscribe(self, queue: str) -> AbstractAsyncContextManager[Subscription]:
        """Consume a queue of QUEUES; several consumers share its messages."""

    def live(
        self, on_event: Callable[[Event], None], on_gap: Callable[[], None]
    ) -> AbstractAsyncContextManager[LiveFeed]:
        """Hear live events; `on_gap` says that some may have been missed."""

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest dead letters, which stay where they are."""

    async def ping(self) -> None:
        """Raises Unavailable when the transport is away."""
