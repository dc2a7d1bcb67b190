"""Connections to the broker: opened in bounded time, closed without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError

from services.shared.settings import Settings
from services.shared.topology import declare_topology

# What a connection that breaks may raise, wherever it is used.
FAULTS: Final = (AMQPError, OSError, TimeoutError, RuntimeError, asyncio.InvalidStateError)
_CLOSE_SECONDS: Final = 1


async def connect(url: str, settings: Settings) -> AbstractConnection:
    """A new connection, with the topology declared. Raises what FAULTS lists."""
    seconds = settings.rabbitmq_timeout_seconds
    async with asyncio.timeout(seconds):
        connection = await aio_pika.connect(url, timeout=seconds)
    try:
        async with asyncio.timeout(seconds), connection.channel() as channel:
            await declare_topology(channel, settings)
    except BaseException:
        await close(connection)
        raise
    return connection


async def on_break(channel: AbstractChannel, then: Callable[[], None]) -> None:
    """Call `then` when the channel closes, or the broker ends its consumer (a deleted queue)."""
    channel.close_callbacks.add(lambda *_: then())
    underlay = await channel.get_underlay_channel()
    underlay.on_consumer_cancel_callbacks.add(lambda *_: then())


async def close(connection: AbstractConnection) -> None:
    """Close what may be broken already."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.close()
    except FAULTS:
        return
    except asyncio.CancelledError:
        # A connection that is closing may say so in this way too.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
