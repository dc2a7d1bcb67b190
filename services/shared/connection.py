"""A connection to MongoDB that is written and read by the task that asks.

PyMongo's own makes three tasks for each command: one that writes, one that reads, and one that
looks every half second whether the command was called off. That is a fifth of what a small question
costs, and some turns of the loop. Everything else is PyMongo's.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from pymongo import _csot
from pymongo.asynchronous.pool import AsyncConnection
from pymongo.errors import ProtocolError, _OperationCancelled
from pymongo.message import _UNPACK_REPLY, _OpMsg


class Connection(AsyncConnection):
    async def send_message(self, message: bytes, max_doc_size: int) -> None:
        if self.max_bson_size is not None and max_doc_size > self.max_bson_size:
            await super().send_message(message, max_doc_size)  # it is refused there
        try:
            await self.conn.get_conn.write(message)  # to a buffer: this never waits
        except BaseException as error:
            await self._broken(error)

    async def receive_message(self, request_id: int | None) -> _OpMsg:
        """The answer, within the operation's time (pymongo.timeout, timeoutMS)."""
        protocol, seconds = self.conn.get_conn, _csot.remaining()
        try:
            async with asyncio.timeout(protocol.gettimeout if seconds is None else seconds):
                data, code = await protocol.read(request_id, self.max_message_size)
            unpack = _UNPACK_REPLY.get(code)
            if unpack is None:
                raise ProtocolError(f"An answer of the unknown kind {code}")
            return unpack(data)
        except TimeoutError:
            await self._broken(TimeoutError("timed out"))
        except BaseException as error:
            await self._broken(error)

    def call_off(self) -> None:
        """Break it: whoever waits for an answer is told at once."""
        self.conn.get_conn.close(_OperationCancelled("operation cancelled"))

    async def _broken(self, error: BaseException) -> NoReturn:
        await self._raise_connection_failure(error)
