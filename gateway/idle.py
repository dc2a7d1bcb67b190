"""A queue and a gate for websockets: as asyncio's are, but small while nothing happens.

An asyncio.Queue holds four deques, an Event one, and an empty deque takes 0.7 KB: of a websocket
that waits for the next notification, that was a tenth.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Mailbox:
    """For one reader."""

    __slots__ = ("_messages", "_waiting")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiting: asyncio.Future[None] | None = None

    def empty(self) -> bool:
        return not self._messages

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> Any:
        while not self._messages:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._messages.pop(0)


class Gate:
    """Open at first."""

    __slots__ = ("_is_open", "_waiting")

    def __init__(self) -> None:
        self._is_open = True
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        return self._is_open

    def clear(self) -> None:
        self._is_open = False

    def set(self) -> None:
        self._is_open = True
        waiting, self._waiting = self._waiting, None
        for one in waiting or ():
            if not one.done():
                one.set_result(None)

    async def wait(self) -> None:
        if self._is_open:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting = [*(self._waiting or ()), future]
        await future
