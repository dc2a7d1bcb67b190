"""From a queue's batches to handlers and back: what both transports share.

A fault of the database is not the message's fault: the worker waits, and keeps what it holds.
A handler that fails is called again for each event alone, so that poison hurts nobody else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from services.shared.bus import Ack, Bus, Dead, Delivery, Handlers, Retry, Verdict
from services.shared.clock import Clock
from services.shared.errors import DomainError, Unavailable
from services.shared.events import QUEUES, Event, Malformed, decode
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import is_away
from services.shared.tasks import end_if_cancelled

log = get_logger()
T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_SOMEBODYS = tuple(data for types in QUEUES.values() for data in types)


async def work(bus: Bus, queue: str, handlers: Handlers, clock: Clock, settings: Settings) -> None:
    """Consume `queue` with `handlers` until cancelled."""
    async with bus.subscribe(queue) as subscription:
        async for batch in subscription.batches():
            verdicts = await deliver(handlers, batch, clock, settings)
            await subscription.settle(list(zip(batch, verdicts, strict=True)))
            _log_failures(queue, verdicts)


async def deliver(
    handlers: Handlers, batch: Sequence[Delivery], clock: Clock, settings: Settings
) -> list[Verdict]:
    """Hand a batch to the handlers of its events' types; the verdicts are in the batch's order.

    A known type that no queue wants is nothing to do. Handlers must stand being called again.
    """
    verdicts: list[Verdict] = [Ack()] * len(batch)
    by_type: dict[str, list[tuple[int, Event]]] = defaultdict(list)
    for index, delivery in enumerate(batch):
        try:
            event = _open(delivery, clock, settings)
        except Malformed as error:
            verdicts[index] = Dead(str(error))
        except Exception as error:  # reading is pure: it is the message's fault, whatever it is
            log.error("unreadable_event", exc_info=error)
            verdicts[index] = Dead(f"It can't be read: {error!r}")
        else:
            if event.type in handlers:
                by_type[event.type].append((index, event))
            elif isinstance(event.data, _SOMEBODYS):
                verdicts[index] = Dead(f"Publish it with the routing key {event.type}.")
    for type_, numbered in by_type.items():
        indexes, events = zip(*numbered, strict=True)
        failures = [batch[index].failures for index in indexes]
        outcome = await _handle(handlers, type_, events, failures, settings)
        for index, verdict in zip(indexes, outcome, strict=True):
            verdicts[index] = verdict
    return verdicts


async def when_back(action: Callable[[], Awaitable[T]], what: str) -> T:
    """The result of `action`, tried again with growing waits while database or broker is away."""
    wait = _FIRST_WAIT
    while True:
        end_if_cancelled()
        try:
            return await action()
        except Exception as error:
            if not (is_away(error) or isinstance(error, Unavailable)):
                raise
            log.warning("waiting", what=what, error=str(error), seconds=wait)
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def _open(delivery: Delivery, clock: Clock, settings: Settings) -> Event:
    if len(delivery.body) > settings.max_event_bytes:
        raise Malformed(
            f"The event has {len(delivery.body)} bytes; {settings.max_event_bytes} is the most "
            "(MAX_EVENT_BYTES)"
        )
    return decode(delivery.body, received=clock.now())


async def _handle(
    handlers: Handlers,
    type_: str,
    events: Sequence[Event],
    failures: Sequence[int],
    settings: Settings,
) -> list[Verdict]:
    try:
        await when_back(lambda: handlers[type_](events), type_)
    except Exception as error:
        if len(events) == 1:
            return [_verdict_on(error, failures[0], settings)]
    else:
        return [Ack()] * len(events)
    alone = [
        await _handle(handlers, type_, [event], [failed], settings)
        for event, failed in zip(events, failures, strict=True)
    ]
    return [verdict for [verdict] in alone]


def _verdict_on(error: Exception, failures: int, settings: Settings) -> Verdict:
    if isinstance(error, DomainError):
        return Dead(f"{error.code}: {error.message}")
    reason = f"{type(error).__name__}: {error}"
    log.error("handler_failed", error=reason, failures=failures + 1, exc_info=error)
    if failures < len(settings.retry_waits):
        return Retry(settings.retry_waits[failures], reason)
    return Dead(f"failed {failures + 1} times, the last time with {reason}")


def _log_failures(queue: str, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if isinstance(verdict, Dead):
            log.warning("dead_lettered", queue=queue, reason=verdict.reason)
