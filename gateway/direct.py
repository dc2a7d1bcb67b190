"""Websockets past ASGI and the library, which take more time than the system does."""

from __future__ import annotations

from asyncio.transports import Transport
from struct import Struct
from typing import Final

from websockets.protocol import Protocol, State

from gateway.idle import Gate

DIRECT: Final = "tidings.direct"  # among a socket's ASGI extensions

_TEXT: Final = 0x81  # final, opcode 1
_head_of_some: Final = Struct(">BBH").pack
_head_of_many: Final = Struct(">BBQ").pack


class DirectSocket:
    """One that is sent whole frames at once.

    It holds what that asks for and nothing else: where thousands are told the same, each is far
    from the processor.
    """

    __slots__ = ("_connection", "_transport", "_writable", "write")

    def __init__(self, connection: Protocol, writable: Gate, transport: Transport) -> None:
        self._connection = connection
        self._writable = writable
        self._transport = transport
        self.write = transport.write

    @property
    def is_free(self) -> bool:
        """Whether it is open, and nothing waits to be sent."""
        return (
            self._writable.is_set()  # until something waits (BoundedSocket.connection_made)
            and self._connection.state is State.OPEN  # until a close frame, whoever sends it
            and not self._transport.is_closing()
        )

    def cut(self) -> None:
        """End it, without a word."""
        self._transport.abort()


def text_frame(text: bytes) -> bytes:
    """A whole text message of a server: RFC 6455, 5.2."""
    length = len(text)
    if length < 126:
        return bytes((_TEXT, length)) + text
    if length < 65_536:
        return _head_of_some(_TEXT, 126, length) + text
    return _head_of_many(_TEXT, 127, length) + text
