"""The bus between processes: RabbitMQ, laid out as `topology` draws it.

Connections are plain ones that this room opens again itself: every use of the broker says what
happens when it is away (a publisher fails at once, a consumer and a live feed come back).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Final

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, HeadersType

from services.shared.amqp import FAULTS, close, connect, on_break
from services.shared.bus import Ack, Dead, DeadLetter, Delivery, LiveFeed, Retry, Verdict
from services.shared.clock import Clock
from services.shared.errors import Unavailable
from services.shared.events import Event, encode
from services.shared.live_connection import LiveConnection
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled
from services.shared.topology import (
    DEAD,
    DEAD_LETTERS,
    EVENTS,
    LIVE,
    queue_name,
    retry_queue_name,
)

log = get_logger()

CONTENT_TYPE: Final = "application/cloudevents+json"
_RECONNECT_SECONDS: Final = 0.5


class RabbitBus:
    def __init__(self, url: str, clock: Clock, settings: Settings) -> None:
        self._url = url
        self._clock = clock
        self._settings = settings
        self._connection: AbstractConnection | None = None
        self._publisher: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    async def publish(self, events: Sequence[Event]) -> None:
        await self.send(
            [
                (
                    LIVE if event.data.live else EVENTS,
                    event.subject if event.data.live else event.type,
                    _message(encode(event), message_id=event.id),
                )
                for event in events
            ]
        )

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
            following = group.create_task(feed.follow())
            try:
                yield feed
            finally:
                following.cancel()

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        letters: list[DeadLetter] = []
        try:
            connection = await self.connect()
            async with connection:
                channel = await connection.channel()
                queue = await channel.get_queue(DEAD_LETTERS, ensure=False)
                while len(letters) < limit:
                    message = await queue.get(fail=False)
                    if message is None:
                        break
                    letters.append(_dead_letter(message, self._clock.now()))
        except FAULTS as error:
            raise Unavailable(f"RabbitMQ is away: {error!r}") from error
        return letters

    async def ping(self) -> None:
        await self._open_publisher()

    async def close(self) -> None:
        connection, self._connection, self._publisher = self._connection, None, None
        if connection is not None:
            await close(connection)

    async def connect(self) -> AbstractConnection:
        """A new connection with the topology declared. Raises what FAULTS lists."""
        return await connect(self._url, self._settings)

    async def send(self, destined: Sequence[tuple[str, str, aio_pika.Message]]) -> None:
        """Publish (exchange, routing key, message) with confirms. Raises Unavailable."""
        channel = await self._open_publisher()
        seconds = self._settings.rabbitmq_timeout_seconds
        exchanges = {"": channel.default_exchange}
        for name in {name for name, _, _ in destined} - {""}:
            exchanges[name] = await channel.get_exchange(name, ensure=False)
        try:
            await asyncio.gather(
                *(
                    exchanges[name].publish(message, key, mandatory=False, timeout=seconds)
                    for name, key, message in destined
                )
            )
        except FAULTS as error:
            if self._publisher is channel:
                await self.close()
            raise Unavailable(f"RabbitMQ did not confirm: {error!r}") from error

    async def _open_publisher(self) -> AbstractChannel:
        async with self._opening:
            if self._publisher is not None and not self._publisher.is_closed:
                return self._publisher
            await self.close()
            try:
                self._connection = await self.connect()
                self._publisher = await self._connection.channel(publisher_confirms=True)
            except FAULTS as error:
                raise Unavailable(f"RabbitMQ is away: {error!r}") from error
            return self._publisher


class _RabbitSubscription:
    def __init__(self, bus: RabbitBus, queue: str, clock: Clock, settings: Settings) -> None:
        self._bus = bus
        self._queue = queue
        self._clock = clock
        self._settings = settings
        self._connection: AbstractConnection | None = None

    async def batches(self) -> AsyncIterator[Sequence[Delivery]]:
        while True:
            try:
                arrived = await self._consume()
            except FAULTS as error:
                log.warning("consumer_waits", queue=self._queue, error=repr(error))
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            while True:
                end_if_cancelled()
                messages = await _take(arrived, self._settings.batch_size)
                if messages is None:
                    break
                yield [self._delivery(message) for message in messages]
            await self.close()

    async def settle(self, settled: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Retries and dead letters are published elsewhere first, then the batch is acked."""
        moved = [
            self._moved(delivery, verdict)
            for delivery, verdict in settled
            if not isinstance(verdict, Ack)
        ]
        try:
            if moved:
                await self._bus.send(moved)
            last = settled[-1][0].receipt
            assert isinstance(last, AbstractIncomingMessage)
            await last.ack(multiple=True)
        except (Unavailable, *FAULTS) as error:
            log.warning("settling_failed", queue=self._queue, error=repr(error))
            await self.close()

    async def close(self) -> None:
        if self._connection is not None:
            await close(self._connection)

    async def _consume(self) -> asyncio.Queue[AbstractIncomingMessage | None]:
        arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        await self.close()
        self._connection = await self._bus.connect()
        channel = await self._connection.channel()
        await channel.set_qos(prefetch_count=2 * self._settings.batch_size)
        await on_break(channel, lambda: arrived.put_nowait(None))
        queue = await channel.get_queue(queue_name(self._queue), ensure=False)
        await queue.consume(arrived.put)
        return arrived

    def _delivery(self, message: AbstractIncomingMessage) -> Delivery:
        headers = message.headers
        failures = headers.get("x-tidings-failures", 0)
        return Delivery(
            body=message.body,
            failures=failures if isinstance(failures, int) else 0,
            first_seen=_instant(headers, self._clock.now()),
            receipt=message,
        )

    def _moved(
        self, delivery: Delivery, verdict: Retry | Dead
    ) -> tuple[str, str, aio_pika.Message]:
        headers: dict[str, Any] = {
            "x-tidings-queue": self._queue,
            "x-tidings-reason": verdict.reason[:2000],
            "x-tidings-first-seen": delivery.first_seen.isoformat(),
            "x-tidings-failures": delivery.failures + 1,
        }
        message = _message(delivery.body, headers=headers)
        if isinstance(verdict, Retry):
            return "", retry_queue_name(self._queue, verdict.wait), message
        return DEAD, self._queue, message


def _message(
    body: bytes, *, message_id: str | None = None, headers: HeadersType | None = None
) -> aio_pika.Message:
    return aio_pika.Message(
        body,
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=message_id,
        headers=headers,
    )


async def _take(
    arrived: asyncio.Queue[AbstractIncomingMessage | None], size: int
) -> list[AbstractIncomingMessage] | None:
    """What is there, at least one and at most `size`; None when the channel has closed."""
    first = await arrived.get()
    if first is None:
        return None
    messages = [first]
    while len(messages) < size and not arrived.empty():
        message = arrived.get_nowait()
        if message is None:
            return None
        messages.append(message)
    return messages


def _dead_letter(message: AbstractIncomingMessage, now: datetime) -> DeadLetter:
    headers = message.headers
    queue = headers.get("x-tidings-queue") or headers.get("x-first-death-queue") or ""
    reason = headers.get("x-tidings-reason") or headers.get("x-first-death-reason") or ""
    return DeadLetter(
        str(queue).removeprefix("tidings."), message.body, str(reason), _instant(headers, now)
    )


def _instant(headers: HeadersType, default: datetime) -> datetime:
    with suppress(ValueError):
        return datetime.fromisoformat(str(headers.get("x-tidings-first-seen")))
    return default
