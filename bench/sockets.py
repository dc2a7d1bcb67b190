"""Thousands of subscriptions from one process, as light as can be: who measures a gateway must not
be what limits it. picows reads and writes the frames in C; of a message only its type is looked at.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Final

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

AT_ONCE: Final = 50
_PROTOCOL: Final = "graphql-transport-ws"
_ACK: Final = b'"connection_ack"'
_NEXT: Final = b'"next"'


class Crowd:
    """What came so far. `messages`: the `next` messages as they are, where that is wanted."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.received = 0
        self.last = 0.0  # perf_counter's
        self.messages: list[bytes] = []
        self.times: list[float] = []
        self.failed: str | None = None
        self._keeps = keeps
        self._wanted = 0
        self._enough = asyncio.Event()

    def expect(self, count: int) -> None:
        """Count from 0, up to so many."""
        self.received, self._wanted = 0, count
        self.messages.clear()
        self.times.clear()
        self._enough.clear()

    async def all_received(self, seconds: float = 60) -> float:
        """When the last of the expected was received. Raises TimeoutError and RuntimeError."""
        async with asyncio.timeout(seconds):
            await self._enough.wait()
        if self.failed:
            raise RuntimeError(self.failed)
        return self.last

    def take(self, message: bytes | None) -> None:
        self.received += 1
        if message is not None:
            self.messages.append(message)
            self.times.append(perf_counter())
        if self.received == self._wanted:
            self.last = perf_counter()
            self._enough.set()

    def fail(self, why: str) -> None:
        self.failed = why
        self._enough.set()

    def member(self) -> _Member:
        return _Member(self, keeps=self._keeps)


class _Member(WSListener):
    """One socket."""

    def __init__(self, crowd: Crowd, *, keeps: bool) -> None:
        self._crowd = crowd
        self._keeps = keeps
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            if frame.msg_type == WSMsgType.CLOSE:
                self._crowd.fail(f"closed: {frame.get_close_code()}")
            return
        message = frame.get_payload_as_bytes()
        if _NEXT in message:
            self._crowd.take(message if self._keeps else None)
        elif _ACK in message:
            self.acknowledged.set_result(None)
        elif b'"error"' in message:
            self._crowd.fail(message.decode())


@asynccontextmanager
async def subscribed(
    port: int,
    tokens: Sequence[str],
    document: str,
    variables: Mapping[str, Any],
    *,
    keeps: bool = False,
) -> AsyncIterator[Crowd]:
    """One socket and one subscription for each token, at `/graphql` of 127.0.0.1.

    Each has been acknowledged and has subscribed; whether the server follows by now, ask it.
    """
    _have_room(len(tokens) + 1000)
    crowd = Crowd(keeps=keeps)
    turns = asyncio.Semaphore(AT_ONCE)
    payload = {"query": document, "variables": dict(variables)}
    subscribe = msgspec.json.encode({"id": "1", "type": "subscribe", "payload": payload})

    async def join(token: str) -> WSTransport:
        member = crowd.member()
        async with turns:
            transport, _ = await ws_connect(
                lambda: member,
                f"ws://127.0.0.1:{port}/graphql",
                extra_headers={"Sec-WebSocket-Protocol": _PROTOCOL},
                read_buffer_init_size=4096,
                websocket_handshake_timeout=60,
                proxy=None,
            )
            init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}
            transport.send(WSMsgType.TEXT, msgspec.json.encode(init))
            async with asyncio.timeout(30):
                await member.acknowledged
            transport.send(WSMsgType.TEXT, subscribe)
            return transport

    joined = await asyncio.gather(*map(join, tokens))
    try:
        yield crowd
    finally:
        for transport in joined:
            transport.disconnect()


def _have_room(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
