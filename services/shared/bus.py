"""How events travel, whatever carries them: the interface of both transports.

`rabbit` carries them between processes, `embedded` inside one; tests/test_bus.py holds both to
the same contract. An event is delivered at least once to every queue that QUEUES names for it;
consumers make it once by the event's key.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from services.shared.errors import Unavailable
from services.shared.events import Event

T = TypeVar("T")
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


@dataclass(frozen=True, slots=True)
class PassOn:
    """Another queue wants it: hand it on to that one."""

    queue: str


Verdict = Ack | Retry | Dead | PassOn


class PartlyPublished(Unavailable):
    """Some were not confirmed. `confirmed`: the positions of those that were, durable by now."""

    def __init__(self, message: str, confirmed: frozenset[int]) -> None:
        super().__init__(message)
        self.confirmed = confirmed


def shortened(wait: float, jitter: float) -> float:
    """`wait` less a random part of it, at most `jitter` (0 to 1): what failed together, because
    something was overrun, does not come back together."""
    return wait * (1 - jitter * random.random())  # noqa: S311


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, as it lies in the dead-letter queue.

    `id`: 32 hex digits, its own since it was given up. `reason`: of the last failure. `failures`:
    how often it failed, the last time included.
    """

    id: str
    queue: str
    body: bytes
    reason: str
    failures: int
    first_seen: datetime
    died_at: datetime


class QueueDepth(NamedTuple):
    """How much waits in a queue of QUEUES: `waiting` to be handled now, `retrying` to be tried
    again later."""

    name: str
    waiting: int
    retrying: int
    consumers: int


class Depths(NamedTuple):
    queues: Sequence[QueueDepth]
    dead_letters: int


class Subscription(Protocol):
    """One consumer of one queue. `at_once`: how many batches it hands out before the first of them
    is settled."""

    at_once: int

    def batches(self) -> AsyncIterator[Sequence[Delivery]]:
        """What waits in the queue, up to `batch_size` at once; never ends, never empty."""

    async def settle(self, settled: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts. What can't be settled is delivered again."""


class LiveFeed(Protocol):
    """The live events of those users that somebody here looks at, and perhaps of others."""

    async def watch(self, user_id: str) -> None: ...

    def unwatch(self, user_id: str) -> None: ...

    @property
    def hears(self) -> bool:
        """Whether live events get through now."""
        ...


class Bus(Protocol):
    async def publish(self, events: Sequence[Event]) -> None:
        """Returns when all are durable (live events: when handed on). Raises Unavailable.

        The events of one call reach a queue in their order. After Unavailable some of them may
        have arrived (PartlyPublished names those that have); publishing them again is safe, since
        consumers know an event by its key.
        """

    def subscribe(self, queue: str) -> AbstractAsyncContextManager[Subscription]:
        """Consume a queue of QUEUES; several consumers share its messages."""

    def live(
        self, on_event: Callable[[Event], None], on_gap: Callable[[], None]
    ) -> AbstractAsyncContextManager[LiveFeed]:
        """Hear live events; `on_gap` says that some may have been missed. Some
        tell only of users whom nobody here looks at."""

    async def dead_letters(self, limit: int, prefix: str = "") -> Sequence[DeadLetter]:
        """The oldest dead letters whose id starts so; they stay where they are."""

    async def dead_letters_as(self, keep: Callable[[DeadLetter], T], limit: int) -> Sequence[T]:
        """The oldest, of which only what `keep` makes of each is held: it may be long."""

    async def replay(self, id: str | None = None) -> int:
        """Put a dead letter, or all, back in its queue as if it had never failed; how many.

        It is in its queue before it is no dead letter any more, so none is lost. Raises NotFound
        when it came from a queue that is no more; of several, those before it have been put back.
        """

    async def discard(self, id: str | None = None) -> int:
        """Delete a dead letter, or all; how many there were."""

    async def depths(self) -> Depths:
        """How much waits. Raises Unavailable."""

    async def ping(self) -> None:
        """Raises Unavailable when the transport is away."""
