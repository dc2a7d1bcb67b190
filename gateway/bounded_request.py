"""An HTTP connection that is of no use costs little, and not for long.

uvicorn waits for ever for the end of a request's headers, of a body that nobody reads and of an
answer that is not taken, and keeps all headers. Here a client has REQUEST_SECONDS for the head of
the next request, from whatever it sends behind the last one (408), MAX_HEADER_BYTES for the URL and
the headers, or for the trailers (431), and SOCKET_SEND_SECONDS to take something of its answer. And
websockets find no room (503) when nine tenths of MAX_CONNECTIONS are taken: requests still do.
"""

from __future__ import annotations

from asyncio import TimerHandle
from asyncio.transports import BaseTransport
from http import HTTPStatus
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.back_pressure import SYSTEM_BYTES, StallWatch
from services.shared.settings import Settings


class BoundedRequest(HttpToolsProtocol):
    """uvicorn's HTTP with bounds."""

    request_seconds: ClassVar[float]
    send_seconds: ClassVar[float]
    most_bytes: ClassVar[int]
    most_with_sockets: ClassVar[int]

    _deadline: TimerHandle | None = None
    _stalled: StallWatch | None = None
    _unparsed = 0  # bytes since the parser last had something to tell
    _head_size = 0
    _in_body = False

    @classmethod
    def within(cls, settings: Settings) -> type[BoundedRequest]:
        bounds = {
            "request_seconds": settings.request_seconds,
            "send_seconds": settings.socket_send_seconds,
            "most_bytes": settings.max_header_bytes,
            "most_with_sockets": settings.max_connections * 9 // 10,
        }
        return type(cls.__name__, (cls,), bounds)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, SYSTEM_BYTES)
        self._stalled = StallWatch(self.loop, transport, self.send_seconds, transport.abort)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # a websocket by now
            self.parser = None  # type: ignore[assignment]  # it holds us, as we hold it
            return
        if self.transport.is_closing():
            return
        if not self._is_answering:
            self._await_head()
        if self._unparsed > self.most_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_size = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        self._head_size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._head_size += len(name) + len(value)
        if self._head_size <= self.most_bytes:
            super().on_header(name, value)
        else:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        if self._should_upgrade() and len(self.connections) > self.most_with_sockets:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        self._unparsed, self._in_body = 0, True
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed, self._in_body = 0, False
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is not None:
            self._stalled.start()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.stop()
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        """Hang up on a socket behind an answer that was not taken: of its bytes the socket would
        not know, and we would not hear when they are."""
        if self._is_answering or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().handle_websocket_upgrade()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _should_upgrade(self) -> bool:
        """Not what was refused."""
        return not self.transport.is_closing() and super()._should_upgrade()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.request_seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        if self._is_answering:  # it came close behind one that is not answered yet
            self._await_head()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Say so, unless it is about what stands behind a request, or another answer is on its way,
        and hang up."""
        self._stop_waiting()
        transport: BaseTransport = self.transport
        if transport.is_closing():
            return
        if not (self._in_body or self._is_answering):
            line = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            self.transport.write(f"{line}content-length: 0\r\nconnection: close\r\n\r\n".encode())
        transport.close()
