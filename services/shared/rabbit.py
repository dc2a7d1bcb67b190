"""The bus between processes: RabbitMQ, laid out as `topology` draws it.

Connections are plain ones that this room opens again itself: every use of the broker says what
happens when it is away (a publisher fails at once, a consumer and a live feed come back).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

import aio_pika
from aio_pika import DeliveryMode

from services.shared.amqp import (
    FAULTS,
    MOST_AT_ONCE,
    Connection,
    abandon,
    bounded,
    close,
    connect,
    pause,
)
from services.shared.bus import (
    Ack,
    Dead,
    DeadLetter,
    Delivery,
    Depths,
    LiveFeed,
    PartlyPublished,
    PassOn,
    Retry,
    Verdict,
    shortened,
)
from services.shared.clock import Clock
from services.shared.errors import Unavailable
from services.shared.events import CONTENT_TYPE, Event, encode
from services.shared.frames import Received
from services.shared.inflow import Inflow
from services.shared.live_connection import LiveConnection
from services.shared.log import get_logger
from services.shared.publisher import Publisher
from services.shared.rabbit_depths import QueueDepths
from services.shared.rabbit_letters import DeadLetterQueue, burial, instant
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled, vital
from services.shared.topology import (
    DEAD,
    DELIVERY_LIMIT,
    EVENTS,
    declare_topology,
    queue_name,
    retry_queue_name,
)
from services.shared.worker import when_back

log = get_logger()

T = TypeVar("T")
_AGAIN: Final = "the broker delivers them again"
_SHORT_LIVED: Final = 1.0  # seconds; a consumer that was well for longer comes back at once
_PATIENCE: Final = 10  # of declaring some thirty things, each bounded by RABBITMQ_TIMEOUT_SECONDS


class RabbitBus:
    def __init__(self, url: str, clock: Clock, settings: Settings) -> None:
        self._url = url
        self._clock = clock
        self._settings = settings
        self._is_laid_out = False
        self.publisher = Publisher(self.connect, self.lay_out_again, settings)
        self._letters = DeadLetterQueue(self.connect, self._put_back, settings)
        self._depths = QueueDepths(self.connect, self.lay_out_again, settings)

    async def publish(self, events: Sequence[Event]) -> None:
        """Hints all at once: there are as many as notifications, and nobody waits for them."""
        hints = [place for place, event in enumerate(events) if event.data.live]
        others = [place for place, event in enumerate(events) if not event.data.live]
        try:
            if others:
                told = [events[place] for place in others]
                await self.publisher.send(
                    [(EVENTS, event.type, _message(encode(event))) for event in told]
                )
        except PartlyPublished as error:
            done = [others[place] for place in error.confirmed]
            raise PartlyPublished(str(error), frozenset(done)) from error
        if hints:
            try:
                await self.publisher.hint([events[place] for place in hints])
            except Unavailable as error:
                raise PartlyPublished(str(error), frozenset(others)) from error

    @asynccontextmanager
    async def subscribe(self, queue: str) -> AsyncIterator[_RabbitSubscription]:
        subscription = _RabbitSubscription(self, queue, self._clock, self._settings)
        try:
            yield subscription
        finally:
            await subscription.close()

    @asynccontextmanager
    async def live(
        self, on_event: Callable[[Event], None], on_gap: Callable[[], None]
    ) -> AsyncIterator[LiveFeed]:
        feed = LiveConnection(self.connect, on_event, on_gap, self._clock, self._settings)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(vital("the live feed", feed.follow))
            try:
                yield feed
            finally:
                following.cancel()

    async def dead_letters(self, limit: int, prefix: str = "") -> Sequence[DeadLetter]:
        return await self._letters.look(limit, prefix, lambda letter: letter)

    async def dead_letters_as(self, keep: Callable[[DeadLetter], T], limit: int) -> Sequence[T]:
        return await self._letters.look(limit, "", keep)

    async def replay(self, id: str | None = None) -> int:
        count = await self._letters.replay(id)
        self._depths.forget()
        return count

    async def discard(self, id: str | None = None) -> int:
        count = await self._letters.discard(id)
        self._depths.forget()
        return count

    async def depths(self) -> Depths:
        return await self._depths.latest()

    async def ping(self) -> None:
        await self.publisher.ping()

    async def close(self) -> None:
        await self.publisher.close()

    async def connect(self) -> Connection:
        """A new connection to a broker that is laid out. Raises what FAULTS lists."""
        connection = await connect(self._url, self._settings)
        if not self._is_laid_out:
            try:
                async with bounded(_PATIENCE * self._settings.rabbitmq_timeout_seconds):
                    channel = await connection.channel()
                    await declare_topology(channel, self._settings)
                    await channel.close()
            except BaseException:
                abandon(connection)
                raise
            self._is_laid_out = True
        return connection

    def lay_out_again(self) -> None:
        """Something was missing on the broker: the next connection declares everything."""
        self._is_laid_out = False

    async def _put_back(self, letter: DeadLetter) -> None:
        message = _message(letter.body, headers=_since(letter.first_seen))
        await self.publisher.send([("", queue_name(letter.queue), message)])


class _RabbitSubscription:
    """One queue's events, at first one at a time: until the first that is not suspect of having
    killed its consumers. What they held beside it would come to the delivery limit with it."""

    at_once = 1

    def __init__(self, bus: RabbitBus, queue: str, clock: Clock, settings: Settings) -> None:
        self._bus = bus
        self._queue = queue
        self._clock = clock
        self._settings = settings
        self._connection: Connection | None = None
        self._inflow: Inflow | None = None

    async def batches(self) -> AsyncIterator[Sequence[Delivery]]:
        loop = asyncio.get_running_loop()
        while True:
            end_if_cancelled()
            began = loop.time()
            try:
                inflow = await self._consume()
                is_careful = True
                while True:
                    end_if_cancelled()
                    messages = await inflow.take(self._settings.batch_size)
                    if is_careful and not _is_suspect(messages[0]):
                        most = self._settings.batches_at_once
                        size = (most + 1) * self._settings.batch_size
                        await inflow.widen(prefetch=min(size, MOST_AT_ONCE))
                        is_careful, self.at_once = False, most
                    now = self._clock.now()
                    yield [_delivery(message, now) for message in messages]
            except FAULTS as error:
                log.warning("consumer_waits", queue=self._queue, error=repr(error))
                self._give_up()
            if loop.time() - began < _SHORT_LIVED:
                await pause(self._settings)

    async def settle(self, settled: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Retries and dead letters are published elsewhere first, then the batch is acked."""
        moved = [
            self._moved(delivery, verdict)
            for delivery, verdict in settled
            if not isinstance(verdict, Ack)
        ]
        moved.sort(key=_expiration)  # a retry queue lets go of its head only
        last = settled[-1][0].receipt
        assert isinstance(last, Received)
        inflow = self._inflow if self._inflow and self._inflow.brought(last) else None
        try:
            if moved:
                await when_back(
                    lambda: self._move(moved, inflow), f"moving what failed in {self._queue}"
                )
            # What the batch before could not settle must not be acknowledged with this one.
            if inflow is None or inflow.ended:
                raise ConnectionError(_AGAIN)
            async with bounded(self._settings.rabbitmq_timeout_seconds):
                await last.ack(multiple=True)
        except (Unavailable, *FAULTS) as error:
            log.warning("settling_failed", queue=self._queue, error=repr(error))
            if inflow is not None:
                inflow.end()

    async def _move(
        self, moved: list[tuple[str, str, aio_pika.Message]], inflow: Inflow | None
    ) -> None:
        """Publish them. What is prefetched stays ours meanwhile: returned to the queue too often,
        it would count as poison."""
        if inflow is None or inflow.ended:
            raise ConnectionError(_AGAIN)
        try:
            await self._bus.publisher.send(moved)
        except PartlyPublished as error:
            moved[:] = [one for place, one in enumerate(moved) if place not in error.confirmed]
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await close(connection)

    async def _consume(self) -> Inflow:
        self.at_once = 1
        self._connection = await self._bus.connect()
        async with bounded(self._settings.rabbitmq_timeout_seconds):
            channel = await self._connection.channel()
        self._inflow = Inflow(self._connection, channel, queue_name(self._queue), self._settings)
        await self._inflow.start(prefetch=1)
        return self._inflow

    def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if not connection.is_closed:  # not the link's fault: the queue's, perhaps
                self._bus.lay_out_again()
            abandon(connection)

    def _moved(
        self, delivery: Delivery, verdict: Retry | Dead | PassOn
    ) -> tuple[str, str, aio_pika.Message]:
        if isinstance(verdict, PassOn):
            message = _message(delivery.body, headers=_since(delivery.first_seen))
            return "", queue_name(verdict.queue), message
        given_up = isinstance(verdict, Dead)
        headers = burial(
            self._queue, delivery, verdict.reason, self._clock.now(), given_up=given_up
        )
        if isinstance(verdict, Dead):
            return DEAD, self._queue, _message(delivery.body, headers=headers)
        wait = shortened(verdict.wait, self._settings.retry_jitter)
        message = _message(delivery.body, headers=headers, expiration=wait)
        return "", retry_queue_name(self._queue, verdict.wait), message


def _delivery(message: Received, now: datetime) -> Delivery:
    headers = message.headers
    failures = headers.get("x-tidings-failures", 0)
    return Delivery(
        body=message.body,
        failures=max(0, failures) if isinstance(failures, int) else 0,
        first_seen=instant(headers, "x-tidings-first-seen") or now,
        receipt=message,
    )


def _is_suspect(message: Received) -> bool:
    returned = message.headers.get("x-delivery-count", 0)
    return isinstance(returned, int) and returned >= DELIVERY_LIMIT // 4


def _since(first_seen: datetime) -> dict[str, Any]:
    return {"x-tidings-first-seen": first_seen.isoformat()}


def _expiration(moved: tuple[str, str, aio_pika.Message]) -> float:
    """Seconds; 0 for what does not expire."""
    expiration = moved[2].expiration
    return expiration if isinstance(expiration, float) else 0


def _message(
    body: bytes, *, headers: dict[str, Any] | None = None, expiration: float | None = None
) -> aio_pika.Message:
    """The library makes each a message id of its own, by which it finds what is returned."""
    return aio_pika.Message(
        body,
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        headers=headers,
        expiration=expiration,
    )
