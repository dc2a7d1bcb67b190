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
from asyncio import TimerHandle
from asyncio.transports import BaseTransport
from fcntl import ioctl
from socket import SO_SNDBUF, SOL_SOCKET
from termios import TIOCOUTQ
from typing import Any, ClassVar, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.shared.log import get_logger

TRY_AGAIN_LATER: Final = 1013
LAST_SECONDS: Final = 1.0
SYSTEM_BYTES: Final = 131_072  # Linux would hold 4 MB, and tell us of every third of it

log = get_logger()


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket with bounds on what is unsent and for how long."""

    patience: ClassVar[float] = 5

    _watch: TimerHandle | None = None
    _unsent = 0
    _unsent_at_ping = 0

    @classmethod
    def lasting(cls, seconds: float) -> type[BoundedSocket]:
        """Sockets whose clients may take nothing for so many seconds."""
        return type(cls.__name__, (cls,), {"patience": seconds})

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.close_timeout = LAST_SECONDS  # uvicorn would wait ten for the answer to its close
        self.transport.set_write_buffer_limits(high=0)  # whatever the system does not take, waits
        self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, SYSTEM_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self._not_taken()
        self._watch = self.loop.call_later(self.patience, self._look)

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def handle_ping(self) -> None:
        """Answer, unless earlier answers still wait: who pings without reading gets no more."""
        answer = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(answer))

    def send_keepalive_ping(self) -> None:
        self._unsent_at_ping = self._not_taken()
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Who is slow has the ping yet to come; whether he takes anything is watched elsewhere."""
        self.pong_timer = self.pending_ping_payload = None  # an answer that is late is none
        if self.close_sent or self.transport.is_closing():
            return
        if not self.writable.is_set() or self._not_taken() < self._unsent_at_ping:
            self.schedule_ping()
        else:
            self._give_up("ping_unanswered", "No ping was answered")

    async def send(self, message: Any) -> None:
        while not (self.writable.is_set() or self.disconnected):
            await self.writable.wait()  # one at a time: the first that goes makes the others wait
        await super().send(message)

    def _look(self) -> None:
        """Go on waiting for a client that has taken something since the last look."""
        before, self._unsent = self._unsent, self._not_taken()
        if self._unsent < before:
            self._watch = self.loop.call_later(self.patience, self._look)
        else:
            self._give_up("reader_stalled", "Nothing was read for too long")

    def _not_taken(self) -> int:
        """Bytes that wait here, or in our system until the client's has acknowledged them."""
        here = self.transport.get_write_buffer_size()
        try:
            answer = ioctl(self.transport.get_extra_info("socket"), TIOCOUTQ, bytes(4))
        except OSError:  # only Linux tells: elsewhere a client has to take more to be seen
            return here
        return here + int.from_bytes(answer, sys.byteorder)

    def _give_up(self, event: str, reason: str) -> None:
        log.warning(event, unsent=self._not_taken())
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
        self._watch = self.loop.call_later(LAST_SECONDS, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
