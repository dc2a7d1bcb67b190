"""Clients that ask over HTTP/1.1 as fast as they are answered: light, so that servers show."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httptools


def request(path: str, body: Mapping[str, Any], token: str) -> bytes:
    """A POST of JSON, ready to be written."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\naccept: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@dataclass
class Load:
    """What clients saw: seconds of every answer, and how long it took in all."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, part: float) -> float:
        """Seconds within which that part of the answers came."""
        return sorted(self.latencies)[min(int(len(self.latencies) * part), len(self.latencies) - 1)]


async def ask(port: int, message: bytes) -> bytes:
    """One answer's body. Raises AssertionError when it is not 200, or has errors of GraphQL."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    client = _Client(iter([message]), Load(), time.monotonic(), answer)
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    body = await answer
    assert b'"errors"' not in body, body[:2000]
    return body


async def load(port: int, messages: Iterator[bytes], clients: int, seconds: float) -> Load:
    """So many clients, each on a connection of its own, for so long: each sends the next."""
    loop = asyncio.get_running_loop()
    result = Load()
    began = time.monotonic()
    ends: list[asyncio.Future[bytes]] = [loop.create_future() for _ in range(clients)]
    for end in ends:
        client = _Client(messages, result, began + seconds, end)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*ends)
    result.seconds = time.monotonic() - began
    return result


class _Client(asyncio.Protocol):
    """Sends the next message as soon as the last is answered, until the deadline."""

    def __init__(
        self,
        messages: Iterator[bytes],
        result: Load,
        deadline: float,
        end: asyncio.Future[bytes],
    ) -> None:
        self._messages = messages
        self._result = result
        self._deadline = deadline
        self._end = end
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        now = time.monotonic()
        self._result.latencies.append(now - self._sent_at)
        status = self._parser.get_status_code()
        if status != 200:
            self._fail(f"{status}: {bytes(self._body[:500])!r}")
        elif now < self._deadline:
            self._body.clear()
            self._send()
        else:
            self._transport.close()
            self._end.set_result(bytes(self._body))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"The connection was closed: {error}")

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        self._transport.write(next(self._messages))

    def _fail(self, why: str) -> None:
        if not self._end.done():
            self._end.set_exception(AssertionError(why))
            self._transport.close()
