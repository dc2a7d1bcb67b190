"""The campaign's broker: asked what lies in it, and made to do what no client may."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import aio_pika

from campaign.audit import QUEUE as AUDIT
from tests.servers import PrivateRabbitMQ, until

BROKER_FAULTS: Final = (
    aio_pika.exceptions.AMQPError,
    OSError,
    TimeoutError,
    RuntimeError,
    asyncio.InvalidStateError,
)
_ERL_CALL_SECONDS: Final = 10.0


class Broker:
    """What a broker may raise while it is broken is in BROKER_FAULTS."""

    def __init__(self, server: PrivateRabbitMQ) -> None:
        self._server = server

    async def consumers(self, queue: str) -> int | None:
        async with asyncio.timeout(5):
            async with await aio_pika.connect(self._server.url, timeout=3) as connection:
                channel = await connection.channel()
                found = await channel.declare_queue(queue, passive=True)
                return found.declaration_result.consumer_count

    async def waiting(self, queues: Sequence[str]) -> Mapping[str, int]:
        """How many messages of each no consumer has in hand."""
        counts = {}
        async with asyncio.timeout(5):
            async with await aio_pika.connect(self._server.url, timeout=3) as connection:
                for name in queues:
                    try:
                        channel = await connection.channel()
                        found = await channel.declare_queue(name, passive=True)
                        counts[name] = found.declaration_result.message_count or 0
                        await channel.close()
                    except aio_pika.exceptions.ChannelClosed:
                        counts[name] = 0  # deleted, and nobody has made it again yet
        return counts

    async def confirms(self) -> None:
        """Return when the broker has confirmed a message to a quorum queue, the audit's."""

        async def confirmed() -> bool:
            with suppress(*BROKER_FAULTS):
                async with asyncio.timeout(2):
                    async with await aio_pika.connect(self._server.url, timeout=2) as connection:
                        channel = await connection.channel(publisher_confirms=True)
                        message = aio_pika.Message(b"?")
                        await channel.default_exchange.publish(message, AUDIT)
                        return True
            return False

        await until(confirmed, 60)

    async def erlang(self, expression: str) -> str:
        """Evaluate Erlang in the broker. Raises RuntimeError when it can't."""
        process = await asyncio.create_subprocess_exec(
            *(_erl_call(), "-n", f"tidings-{self._server.port}@localhost"),
            *("-c", self._server.cookie, "-e", "-timeout", "8"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "ERL_EPMD_PORT": str(self._server.epmd_port)},
        )
        try:
            async with asyncio.timeout(_ERL_CALL_SECONDS):
                output, _ = await process.communicate(expression.strip().encode() + b"\n")
        except TimeoutError:
            process.kill()
            await process.wait()
            raise RuntimeError("erl_call does not answer") from None
        answer = output.decode(errors="replace")
        if process.returncode or not answer.startswith("{ok"):
            raise RuntimeError(answer)
        return answer


def _erl_call() -> str:
    found = shutil.which("erl_call") or next(Path("/usr/lib/erlang").glob("**/erl_call"), None)
    assert found is not None, "there is no erl_call: it comes with Erlang"
    return str(found)
