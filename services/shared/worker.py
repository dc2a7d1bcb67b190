"""From a queue's batches to handlers and back: what both transports share.

A fault of the database is not the message's fault: the worker waits, and keeps what it holds.
A database that is too slow for a batch can't be told from one that is away, so the batch is handled
in halves; an event that times out alone is tried until the database is quick enough.
So is one that its handler refuses, so that poison hurts nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

from services.shared.bus import Ack, Bus, Dead, Delivery, Handlers, PassOn, Retry, Verdict
from services.shared.clock import Clock
from services.shared.errors import Conflict, DomainError, Unavailable
from services.shared.events import QUEUES, Event, Malformed, decode
from services.shared.failpoints import Failpoint, reach
from services.shared.inbox import OTHER_CONTENT, Inbox
from services.shared.log import get_logger
from services.shared.pulse import Counts
from services.shared.settings import Settings
from services.shared.store import is_away
from services.shared.tasks import end_if_cancelled

log = get_logger()
T = TypeVar("T")

_LARGE, _MOMENT = 50, 0.02  # events, seconds
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.2
_SECONDS_BETWEEN_WARNINGS = 5.0
_QUEUE_OF = {data.type: queue for queue, types in QUEUES.items() for data in types}


async def work(
    bus: Bus,
    queue: str,
    handlers: Handlers,
    inbox: Inbox,
    clock: Clock,
    settings: Settings,
    stop: asyncio.Event | None = None,
    counts: Counts | None = None,
) -> None:
    """Consume `queue` with `handlers` until cancelled.

    While the database stores some batches the next one is made ready, where the transport hands it
    out: as if several workers shared the queue. They are settled in their order. After a small one
    it waits for those before it, and for a moment until it has ended, too: more is there by then,
    and a batch costs much the same whatever is in it. When `stop` is set, it ends as soon as what
    is in hand is handled and settled. What became of it is added to `counts`.
    """
    stop, counts = stop or asyncio.Event(), counts or Counts()

    async def handle(batch: Sequence[Delivery], before: asyncio.Task[None] | None) -> None:
        verdicts = await deliver(handlers, batch, inbox, clock, settings)
        if before is not None:
            await before
        reach(Failpoint.BEFORE_ACK)
        await subscription.settle(list(zip(batch, verdicts, strict=True)))
        _count(queue, verdicts, counts)

    async with bus.subscribe(queue) as subscription, asyncio.TaskGroup() as group:
        batches, before = subscription.batches(), None
        in_hand: deque[asyncio.Task[None]] = deque()
        while (batch := await _unless(stop, anext(batches))) is not None:
            before = group.create_task(handle(batch, before))
            in_hand.append(before)
            is_small = len(batch) < min(_LARGE, settings.batch_size)
            most = min(2, subscription.at_once) if is_small else subscription.at_once
            while len(in_hand) >= most:
                await in_hand.popleft()
            if is_small:
                await asyncio.wait([before], timeout=_MOMENT)


async def _unless(stop: asyncio.Event, waited_for: Awaitable[T]) -> T | None:
    """What is waited for, or None when the stop comes first. What comes too late is left."""
    end_if_cancelled()
    waiting, stopping = asyncio.ensure_future(waited_for), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        stopping.cancel()
        await asyncio.gather(waiting, stopping, return_exceptions=True)
    return None if stop.is_set() else waiting.result()


async def deliver(
    handlers: Handlers,
    batch: Sequence[Delivery],
    inbox: Inbox,
    clock: Clock,
    settings: Settings,
) -> list[Verdict]:
    """Hand a batch to the handlers of its events' types; the verdicts are in the batch's order.

    A known type that no queue wants is nothing to do. One that another queue wants came here since
    it had a wrong routing key, or that queue was missing. An event whose id was used with other
    content is dead. Handlers must stand being called again.
    """
    now = clock.now()
    ours = {_QUEUE_OF.get(type_) for type_ in handlers}
    verdicts: list[Verdict] = [Ack()] * len(batch)
    wanted: dict[int, Event] = {}
    for index, delivery in enumerate(batch):
        try:
            event = _open(delivery, now, settings)
        except Malformed as error:
            verdicts[index] = Dead(str(error))
        except Exception as error:  # reading is pure: it is the message's fault, whatever it is
            log.error("unreadable_event", exc_info=error)
            verdicts[index] = Dead(f"It can't be read: {error!r}")
        else:
            if event.type in handlers:
                wanted[index] = event
            elif (queue := _QUEUE_OF.get(event.type)) and queue not in ours:
                verdicts[index] = PassOn(queue)
            elif queue:
                verdicts[index] = Dead(f"This consumer has no handler for {event.type}.")
    by_type: dict[str, list[tuple[int, Event]]] = defaultdict(list)
    admitted = list(wanted.items())
    conflicting = await when_back(
        lambda: inbox.conflicting([event for _, event in admitted]), "the inbox"
    )
    for position, (index, event) in enumerate(admitted):
        if position in conflicting:
            verdicts[index] = Dead(f"{Conflict.code}: {OTHER_CONTENT}")
        else:
            by_type[event.type].append((index, event))
    for type_, numbered in by_type.items():
        indexes, events = zip(*numbered, strict=True)
        failures = [batch[index].failures for index in indexes]
        outcome = await _handle(handlers, type_, events, failures, settings)
        for index, verdict in zip(indexes, outcome, strict=True):
            verdicts[index] = verdict
    return verdicts


async def when_back(action: Callable[[], Awaitable[T]], what: str) -> T:
    """The result of `action`, tried again with growing waits while database or broker is away."""
    wait, began, told = _FIRST_WAIT, time.monotonic(), float("-inf")
    while True:
        end_if_cancelled()
        try:
            result = await action()
        except Exception as error:
            if not is_passing(error):
                raise
            now = time.monotonic()
            if now - told >= _SECONDS_BETWEEN_WARNINGS:
                log.warning("waiting", what=what, error=str(error), seconds=round(now - began, 1))
                told = now
        else:
            end_if_cancelled()
            return result
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


async def keep_doing(action: Callable[[], Awaitable[int]], what: str, pause: float) -> None:
    """Do it until cancelled; again at once while it finds something to do, else after `pause`
    seconds. Waits while the database is away."""
    while True:
        found = await when_back(action, what)
        end_if_cancelled()
        if not found:
            await asyncio.sleep(pause)


def _open(delivery: Delivery, now: datetime, settings: Settings) -> Event:
    if len(delivery.body) > settings.max_event_bytes:
        raise Malformed(
            f"The event has {len(delivery.body)} bytes; {settings.max_event_bytes} is the most "
            "(MAX_EVENT_BYTES)"
        )
    return decode(delivery.body, received=now)


def is_passing(error: Exception) -> bool:
    """Whether database or broker is away, or too slow."""
    return is_away(error) or isinstance(error, Unavailable)


async def _handle(
    handlers: Handlers,
    type_: str,
    events: Sequence[Event],
    failures: Sequence[int],
    settings: Settings,
) -> list[Verdict]:
    end_if_cancelled()
    if len(events) == 1:
        return [await _handle_one(handlers, type_, events[0], failures[0], settings)]
    try:
        await handlers[type_](events)
    except Exception as error:
        log.warning("handled_in_halves", type=type_, events=len(events), exc_info=error)
    else:
        return [Ack()] * len(events)
    verdicts: list[Verdict] = []
    half = len(events) // 2
    for part in (slice(half), slice(half, None)):
        verdicts += await _handle(handlers, type_, events[part], failures[part], settings)
    return verdicts


async def _handle_one(
    handlers: Handlers, type_: str, event: Event, failures: int, settings: Settings
) -> Verdict:
    try:
        await when_back(lambda: handlers[type_]([event]), type_)
    except Exception as error:
        return _verdict_on(error, failures, settings)
    return Ack()


def _verdict_on(error: Exception, failures: int, settings: Settings) -> Verdict:
    if isinstance(error, DomainError):
        return Dead(f"{error.code}: {error.message}")
    reason = f"{type(error).__name__}: {error}"
    log.error("handler_failed", failures=failures + 1, exc_info=error)
    if failures < len(settings.retry_waits):
        return Retry(settings.retry_waits[failures], reason)
    return Dead(f"failed {failures + 1} times, the last time with {reason}")


def _count(queue: str, verdicts: Sequence[Verdict], counts: Counts) -> None:
    """What became of a batch; the log has what died."""
    others = [verdict for verdict in verdicts if not isinstance(verdict, Ack)]
    counts.events += len(verdicts) - len(others)
    for verdict in others:
        counts.failed += isinstance(verdict, Dead | Retry)
        if isinstance(verdict, Dead):
            # The rest may quote the event; `dead-letters show` has it.
            log.warning("dead_lettered", queue=queue, reason=verdict.reason.partition(": ")[0])
