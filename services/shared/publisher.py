"""What goes to the broker: published in order over one connection, durable once confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPChannelError
from aiormq import spec
from aiormq.abc import DeliveredMessage

from services.shared.amqp import FAULTS, Connection, abandon, bounded, close
from services.shared.bus import PartlyPublished
from services.shared.errors import Unavailable
from services.shared.events import (
    BATCH_CONTENT_TYPE,
    CONTENT_TYPE,
    Event,
    NotificationsCreated,
    encode,
    encode_batch,
)
from services.shared.failpoints import Failpoint, reach
from services.shared.frames import Outgoing, publish_all
from services.shared.settings import Settings
from services.shared.topology import EVENTS, EVERYBODY, LIVE

MOST_USERS: Final = 50  # whom a message names to RabbitMQ; what is for more goes to everybody
_MOST_BYTES: Final = 2**16


class Publisher:
    """Opens its connection when it is used, and again after whatever went wrong."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        lay_out_again: Callable[[], None],
        settings: Settings,
    ) -> None:
        self._connect = connect
        self._lay_out_again = lay_out_again
        self._settings = settings
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    async def send(self, destined: Sequence[tuple[str, str, aio_pika.Message]]) -> None:
        """Publish (exchange, routing key, message), in order, with confirms.

        Raises Unavailable; PartlyPublished when it did not confirm all. A message that no queue
        took is not durable, whatever the broker confirms.
        """
        channel = await self._open()
        seconds = self._settings.rabbitmq_timeout_seconds
        exchanges = {"": channel.default_exchange}
        for name in {name for name, _, _ in destined} - {""}:
            exchanges[name] = await channel.get_exchange(name, ensure=False)

        async def publish(name: str, key: str, message: aio_pika.Message) -> object:
            async with bounded(seconds):
                result = await exchanges[name].publish(message, key, mandatory=True)
            reach(Failpoint.AFTER_CONFIRM)
            return result

        results: Sequence[object]
        try:
            async with bounded(2 * seconds):
                results = await asyncio.gather(
                    *(publish(*one) for one in destined), return_exceptions=True
                )
        except FAULTS as error:
            results = [error]
        if not all(isinstance(result, spec.Basic.Ack) for result in results):
            raise self._unconfirmed(channel, results)

    async def hint(self, hints: Sequence[Event]) -> None:
        """Publish live events, in order, to whoever listens: perhaps nobody.

        Raises PartlyPublished, of none, when the broker did not confirm all.
        """
        channel = await self._open()
        try:
            async with bounded(2 * self._settings.rabbitmq_timeout_seconds):
                underlay = await channel.get_underlay_channel()
                await publish_all(underlay, LIVE, list(_messages(hints)))
        except FAULTS as error:
            raise self._unconfirmed(channel, [error]) from error
        reach(Failpoint.AFTER_CONFIRM)

    async def ping(self) -> None:
        """A round trip: a link that swallows everything looks open."""
        channel = await self._open()
        try:
            async with bounded(self._settings.rabbitmq_timeout_seconds):
                await channel.declare_exchange(EVENTS, passive=True)
        except FAULTS as error:
            self._give_up(channel, error)
            raise Unavailable(f"RabbitMQ does not answer: {error!r}") from error

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await close(connection)

    def _unconfirmed(self, channel: AbstractChannel, results: Sequence[object]) -> Exception:
        """What to raise for these results of publishing, of which not all are confirms."""
        confirmed = frozenset(
            place for place, result in enumerate(results) if isinstance(result, spec.Basic.Ack)
        )
        if any(isinstance(result, DeliveredMessage) for result in results):
            self._lay_out_again()
            self._give_up(channel)
            return PartlyPublished("RabbitMQ has lost a queue, which is made again now", confirmed)
        errors = [result for result in results if isinstance(result, BaseException)]
        for error in errors:
            if not isinstance(error, FAULTS):
                raise error
        self._give_up(channel, *errors)
        return PartlyPublished(f"RabbitMQ did not confirm: {errors[0]!r}", confirmed)

    def _give_up(self, channel: AbstractChannel, *errors: BaseException) -> None:
        """Publish on a new connection next time, and don't wait for the end of this one."""
        if any(isinstance(error, AMQPChannelError) for error in errors):
            self._lay_out_again()
        if self._channel is channel and self._connection is not None:
            abandon(self._connection)
            self._connection = self._channel = None

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is not None and not self._channel.is_closed:
                return self._channel
            if self._connection is not None:
                abandon(self._connection)
                self._connection = None
            try:
                self._connection = await self._connect()
                async with bounded(self._settings.rabbitmq_timeout_seconds):
                    channel = await self._connection.channel(publisher_confirms=True)
                    self._connection.deliveries.confirm(await channel.get_underlay_channel())
                    self._channel = channel
            except FAULTS as error:
                raise Unavailable(f"RabbitMQ is away: {error!r}") from error
            return self._channel


def _messages(hints: Sequence[Event]) -> Iterator[Outgoing]:
    """Some hints in one message, since to the broker each message costs more than a few users in
    it. No more than some: each gateway that hears of one of its users reads all of it. An event for
    more users than that goes to every gateway: RabbitMQ would look for each of them, and of
    hundreds each gateway of a large shop has some."""
    users: dict[str, None] = {}
    bodies: list[bytes] = []
    size = 0
    for hint in hints:
        told, body = _users(hint), encode(hint)
        if bodies and (len(users) + len(told) > MOST_USERS or size + len(body) > _MOST_BYTES):
            yield _message([*users], bodies)
            users, bodies, size = {}, [], 0
        if len(told) > MOST_USERS:
            yield _message([EVERYBODY], [body])
            continue
        users |= dict.fromkeys(told)
        bodies.append(body)
        size += len(body)
    if bodies:
        yield _message([*users], bodies)


def _message(users: Sequence[str], bodies: Sequence[bytes]) -> Outgoing:
    """One that holds a single event is the event: whoever reads no batches can read that."""
    if len(bodies) == 1:
        return Outgoing(users, CONTENT_TYPE, bodies[0])
    return Outgoing(users, BATCH_CONTENT_TYPE, encode_batch(bodies))


def _users(hint: Event) -> Sequence[str]:
    """The ids of those whom it is for: RabbitMQ routes a message by further keys, too, which its
    header CC names, and hands it once to each gateway that hears of any of them."""
    if isinstance(hint.data, NotificationsCreated):
        return [one.user_id for one in hint.data.recipients]
    return [hint.subject]
