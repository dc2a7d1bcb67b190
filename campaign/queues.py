"""A queue that is deleted, without breaking a promise that the broker has made.

With messages in it, its deletion would lose what was confirmed, by definition. So its events are
led to a shelter until the services have made it again, and it is deleted when it is empty.
RabbitMQ has no "if empty" for a quorum queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError

from services.shared.events import NOTIFICATIONS, QUEUES
from services.shared.topology import EVENTS, UNROUTED, queue_name

SHELTER: Final = "campaign.shelter"
_BACK_SECONDS: Final = 20.0
_BOUND_SECONDS: Final = 1.0  # from the queue's declaration until the services have bound it
# Deletes the queue if nothing is in it, neither waiting nor in a consumer's hands.
_DELETE_IF_EMPTY: Final = """
{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)),
{{ok, Total, _}} = ra:consistent_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_total/1),
case Total of
    0 -> {{ok, _}} = rabbit_amqqueue:delete(Q, false, false, <<"campaign">>), deleted;
    _ -> not_empty
end.
"""

Erlang = Callable[[str], Awaitable[str]]


async def delete_queue(url: str, erlang: Erlang, name: str, seconds: float) -> bool:
    """Whether it could be deleted: within so many seconds it has to be empty once."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        bindings = _bindings(name)
        await channel.declare_queue(SHELTER, durable=True, arguments={"x-queue-type": "quorum"})
        await _bind(channel, SHELTER, bindings)
        await _unbind(channel, name, bindings)
        deleted = await _deleted(erlang, name, seconds)
        if not deleted:
            await _bind(channel, name, bindings)
        if bindings:  # a retry queue is made again when it is needed
            await _until_back(connection, name)
        await _unbind(channel, SHELTER, bindings)
        await _empty(channel)
        await channel.queue_delete(SHELTER)
    return deleted


def _bindings(name: str) -> Sequence[tuple[str, str]]:
    """(exchange, routing key) of a queue of the services; none for a retry queue."""
    for queue, types in QUEUES.items():
        if queue_name(queue) == name:
            unrouted = [(UNROUTED, "")] if queue == NOTIFICATIONS else []
            return [*((EVENTS, data.type) for data in types), *unrouted]
    return ()


async def _bind(channel: AbstractChannel, name: str, bindings: Sequence[tuple[str, str]]) -> None:
    queue = await channel.get_queue(name, ensure=False)
    for exchange, key in bindings:
        await queue.bind(exchange, key)


async def _unbind(channel: AbstractChannel, name: str, bindings: Sequence[tuple[str, str]]) -> None:
    queue = await channel.get_queue(name, ensure=False)
    for exchange, key in bindings:
        await queue.unbind(exchange, key)


async def _deleted(erlang: Erlang, name: str, seconds: float) -> bool:
    late = time.monotonic() + seconds
    while "deleted" not in await erlang(_DELETE_IF_EMPTY.format(name=name)):
        if time.monotonic() > late:
            return False
        await asyncio.sleep(0.1)
    return True


async def _until_back(connection: AbstractConnection, name: str) -> None:
    """Raises TimeoutError when the services don't make it again."""
    async with asyncio.timeout(_BACK_SECONDS):
        while True:
            try:
                async with connection.channel() as channel:
                    await channel.declare_queue(name, passive=True)
                break
            except AMQPError:
                await asyncio.sleep(0.05)
        await asyncio.sleep(_BOUND_SECONDS)


async def _empty(channel: AbstractChannel) -> None:
    """Publish what has found shelter as it was published first."""
    shelter = await channel.get_queue(SHELTER, ensure=False)
    exchange = await channel.get_exchange(EVENTS, ensure=False)
    while (message := await shelter.get(fail=False)) is not None:
        assert message.routing_key is not None
        again = aio_pika.Message(
            message.body,
            headers=message.headers,
            content_type=message.content_type,
            delivery_mode=message.delivery_mode,
        )
        await exchange.publish(again, message.routing_key, mandatory=False)
        await message.ack()
