"""What was really published: a queue beside the product's, journalled before it is acked.

It is bound to the types that somebody wants, and not to `#`: with that nothing would be unroutable
any more, and the alternate exchange, which carries what nobody knows, would never be used.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec
from aio_pika.abc import AbstractIncomingMessage

from campaign.deeds import digest
from campaign.journal import Journal, Published
from services.shared import topology
from services.shared.amqp import FAULTS, close, connect, on_break
from services.shared.events import QUEUES
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled

QUEUE: Final = "campaign.audit"
_AGAIN_SECONDS: Final = 0.25


class Audit:
    def __init__(self, url: str, journal: Journal, settings: Settings) -> None:
        self._url = url
        self._journal = journal
        self._settings = settings
        self.declared = asyncio.Event()

    async def keep(self) -> None:
        """Consume until cancelled, whatever the broker does."""
        while True:
            try:
                await self._consume()
            except (*FAULTS, asyncio.CancelledError):
                end_if_cancelled()  # a connection that closes may cancel who waits for it
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _consume(self) -> None:
        connection = await connect(self._url, self._settings)  # declares the exchanges too
        try:
            broken = asyncio.Event()
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=500)
            await on_break(channel, broken.set)
            queue = await channel.declare_queue(
                QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
            )
            for types in QUEUES.values():
                for data in types:
                    await queue.bind(topology.EVENTS, data.type)
            await queue.consume(self._keep_one)
            self.declared.set()
            await broken.wait()
        finally:
            await close(connection)

    async def _keep_one(self, message: AbstractIncomingMessage) -> None:
        key, type_ = _name(message.body)
        self._journal.note(
            Published(key=key, type=type_, digest=digest(message.body), at=time.time())
        )
        await message.ack()


def _name(body: bytes) -> tuple[str, str]:
    try:
        event: Any = msgspec.json.decode(body)
        return f"{event['source']} {event['id']}", str(event["type"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "", ""
