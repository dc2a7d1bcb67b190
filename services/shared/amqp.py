"""Connections to the broker: opened in bounded time, used in bounded time, closed without a word.

The library waits for answers that never come, closing included: whatever asks the broker for
something does so inside `bounded`, and what is broken is left to `abandon`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final, NamedTuple

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPError
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from services.shared.frames import Deliveries
from services.shared.settings import Settings

# What a connection that breaks may raise, wherever it is used.
FAULTS: Final = (AMQPError, OSError, TimeoutError, RuntimeError, asyncio.InvalidStateError)
_CLOSE_SECONDS: Final = 1
_MADE_UP_SECONDS: Final = 0.25
MOST_AT_ONCE: Final = 2**16 - 1  # messages that a consumer may have in hand, as AMQP counts
_CLOSED: Final = "the connection has closed meanwhile"
_closing: Final[set[asyncio.Task[None]]] = set()  # or they might be collected half done


class Connection(aio_pika.Connection):
    """One that can be cut: the library's own end waits until the broker has read all we wrote."""

    def __init__(self, url: URL, *args: Any, **kwargs: Any) -> None:
        super().__init__(url, *args, **kwargs)
        self._socket = _Socket(
            TLSTransportFactory if url.scheme == "amqps" else TCPTransportFactory
        )
        self.kwargs["transport_factory"] = self._socket

    def cut(self) -> None:
        self._socket.cut()

    @property
    def deliveries(self) -> Deliveries:
        assert self._socket.deliveries is not None, "it is open"
        return self._socket.deliveries


class _Socket(TransportFactory):
    """Opens a socket as the library would, and keeps hold of it."""

    def __init__(self, library: type[TransportFactory]) -> None:
        self._library = library()
        self._writer: asyncio.StreamWriter | None = None
        self.deliveries: Deliveries | None = None

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await self._library.create(url, **kwargs)
        self.deliveries = Deliveries(reader)
        return reader, self._writer

    def cut(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def connect(url: str, settings: Settings) -> Connection:
    """A new connection. Raises what FAULTS lists."""
    seconds = settings.rabbitmq_timeout_seconds
    async with bounded(seconds):
        opened = await aio_pika.connect(
            url,
            timeout=seconds,
            heartbeat=settings.rabbitmq_heartbeat_seconds,
            connection_class=Connection,
        )
    assert isinstance(opened, Connection)
    return opened


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Raises TimeoutError when the block takes longer.

    A connection that closes may cancel who waits for it, or raise a bare Exception, or in the
    middle of its handshake StopAsyncIteration: unless somebody cancelled this task, that is a
    ConnectionError.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError(_CLOSED) from error
    except Exception as error:
        if type(error) not in (Exception, StopAsyncIteration):
            raise
        raise ConnectionError(_CLOSED) from error


class Count(NamedTuple):
    messages: int  # that wait, without those that a consumer has in hand
    consumers: int


async def count(channel: aiormq.abc.AbstractChannel, queue: str) -> Count:
    """What a queue has, as soon as it answers: to be asked inside `bounded`. Raises what FAULTS
    lists.

    Of a quorum queue that does not answer within 250 ms RabbitMQ says that it has neither messages
    nor consumers (3.10 and 4). It says so of one whose leader is gone, too, but at once: that can't
    be told from one that is empty.
    """
    while True:
        began = monotonic()
        declared = await channel.queue_declare(queue, passive=True)
        found = Count(declared.message_count or 0, declared.consumer_count or 0)
        if found != (0, 0) or monotonic() - began < _MADE_UP_SECONDS:
            return found


async def pause(settings: Settings) -> None:
    """Between two attempts to reach the broker: not all processes knock at the same instant."""
    await asyncio.sleep(settings.reconnect_seconds * random.uniform(1, 1.25))  # noqa: S311


async def on_break(channel: AbstractChannel, then: Callable[[], None]) -> None:
    """Call `then` when the channel closes, or the broker ends its consumer (a deleted queue)."""
    channel.close_callbacks.add(lambda *_: then())
    underlay = await channel.get_underlay_channel()
    underlay.on_consumer_cancel_callbacks.add(lambda *_: then())


async def close(connection: Connection) -> None:
    """Close what may be broken already; it is waited for a second, and then left alone."""
    await asyncio.wait({abandon(connection)}, timeout=_CLOSE_SECONDS)


def abandon(connection: Connection) -> asyncio.Task[None]:
    """Close it without waiting: saying goodbye to somebody who does not answer takes a second."""
    task = asyncio.create_task(_close(connection))
    _closing.add(task)
    task.add_done_callback(_closing.discard)
    return task


async def _close(connection: Connection) -> None:
    """A broker that is blocked reads nothing, so all waits for it until the socket is cut."""
    cutting = asyncio.get_running_loop().call_later(_CLOSE_SECONDS, connection.cut)
    # A connection that is closing may say so by cancelling who closes it.
    with suppress(*FAULTS, asyncio.CancelledError):
        await connection.close()
    cutting.cancel()
