"""A websocket whose client stops reading costs one message, and ends in bounded time.

uvicorn lets a message wait while more than 64 KiB lie unsent, but then lets all that wait go at
once, waits for ever, and answers pings without end. Here the next message waits until the system
has taken the last, and a client that takes nothing for SOCKET_SEND_SECONDS is closed with 1013.
So is one that answers no ping for SOCKET_PING_SECONDS, unless it is still taking what waits before
the ping: uvicorn's own code for that, 1011, tells clients not to come back.
Any byte counts that the client's system acknowledges: ours takes more from us only when a third of
its room is free, which at 20 KB/s takes longer than that.
The close frame stands behind what the client did not take, so it is seen only by one that wakes up
within LAST_SECONDS; then the connection is cut.
"""

from __future__ import annotations

import sys
from asyncio import AbstractEventLoop, TimerHandle
from asyncio.transports import BaseTransport, Transport
from collections.abc import Callable
from fcntl import ioctl
from socket import SO_SNDBUF, SOL_SOCKET
from termios import TIOCOUTQ
from typing import Any, ClassVar, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from gateway.direct import DIRECT, DirectSocket
from gateway.idle import Gate, Mailbox
from services.shared.log import get_logger

TRY_AGAIN_LATER: Final = 1013
LAST_SECONDS: Final = 1.0
SYSTEM_BYTES: Final = 131_072  # Linux would hold 4 MB, and tell us of every third of it

_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_SWITCHING: Final = 101

log = get_logger()


class StallWatch:
    """Looks at a transport again and again, and calls `stalled` when nothing of what waits in it
    was taken for so many seconds."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        transport: Transport,
        seconds: float,
        stalled: Callable[[], object],
    ) -> None:
        self._loop, self._transport = loop, transport
        self._seconds, self._stalled = seconds, stalled
        self._timer: TimerHandle | None = None

    def start(self) -> None:
        self.stop()
        self._timer = self._loop.call_later(self._seconds, self._look, unsent(self._transport))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, before: int) -> None:
        if unsent(self._transport) < before:
            self.start()
        else:
            self._stalled()


def unsent(transport: Transport) -> int:
    """Bytes that wait here, or in our system until the client's has acknowledged them."""
    here = transport.get_write_buffer_size()
    try:
        answer = ioctl(transport.get_extra_info("socket"), TIOCOUTQ, bytes(4))
    except OSError:  # only Linux tells: elsewhere a client has to take more to be seen
        return here
    return here + int.from_bytes(answer, sys.byteorder)


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket with bounds on what is unsent and for how long."""

    patience: ClassVar[float] = 5

    _watch: StallWatch | None = None
    _last: TimerHandle | None = None
    _unsent_at_ping = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = Mailbox()  # type: ignore[assignment]
        self.writable = Gate()  # type: ignore[assignment]

    @classmethod
    def lasting(cls, seconds: float) -> type[BoundedSocket]:
        """Sockets whose clients may take nothing for so many seconds."""
        return type(cls.__name__, (cls,), {"patience": seconds})

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.close_timeout = LAST_SECONDS  # uvicorn would wait ten for the answer to its close
        # Whatever the system does not take, waits, and closes the gate. Nothing waits yet: HTTP
        # hands over no connection with something unsent.
        self.transport.set_write_buffer_limits(high=0)
        self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, SYSTEM_BYTES)
        self._watch = StallWatch(
            self.loop,
            self.transport,
            self.patience,
            lambda: self._give_up("reader_stalled", "Nothing was read for too long"),
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)
        if self.handshake_initiated and hasattr(self, "scope"):
            self.scope["extensions"].pop(DIRECT, None)  # a circle, by its transport

    def data_received(self, data: bytes) -> None:
        """A request that websockets refuses is answered and ends: uvicorn would wait for ever."""
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_REQUEST)
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._watch is not None:
            self._watch.start()

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def handle_ping(self) -> None:
        """Answer, unless earlier answers still wait: who pings without reading gets no more."""
        answer = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(answer))

    def send_keepalive_ping(self) -> None:
        self._unsent_at_ping = unsent(self.transport)
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Who is slow has the ping yet to come; whether he takes anything is watched elsewhere."""
        self.pong_timer = self.pending_ping_payload = None  # an answer that is late is none
        if self.close_sent or self.transport.is_closing():
            return
        if not self.writable.is_set() or unsent(self.transport) < self._unsent_at_ping:
            self.schedule_ping()
        else:
            self._give_up("ping_unanswered", "No ping was answered")

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == _SWITCHING:
            direct = DirectSocket(self.conn, self.writable, self.transport)  # type: ignore[arg-type]
            self.scope["extensions"][DIRECT] = direct  # type: ignore[assignment]

    async def send(self, message: Any) -> None:
        while not (self.writable.is_set() or self.disconnected):
            await self.writable.wait()  # one at a time: the first that goes makes the others wait
        await super().send(message)
        if message["type"] == "websocket.accept":
            for handshake in (self.request, self.response):  # the library keeps them
                handshake.headers.clear()

    def _give_up(self, event: str, reason: str) -> None:
        log.warning(event, unsent=unsent(self.transport))
        if self.handshake_complete and not self.close_sent and not self.transport.is_closing():
            self.conn.send_close(TRY_AGAIN_LATER, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": TRY_AGAIN_LATER, "reason": reason}
            )
        self.disconnected = True
        self.writable.set()
        self._stop_watching()
        self._last = self.loop.call_later(LAST_SECONDS, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._last is not None:
            self._last.cancel()
            self._last = None
