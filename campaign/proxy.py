"""A link that can be broken: a TCP proxy, one for each link of the campaign.

What may not be forwarded is not read; a slow link holds what it has read for SLOW_SECONDS.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from enum import Enum

HOST = "127.0.0.1"
SLOW_SECONDS = 0.1  # each way
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Mode(Enum):
    FORWARD = "forward"
    REFUSE = "refuse"
    BLACK_HOLE = "black hole"
    SWALLOW = "swallowed handshake"
    SLOW = "slow"


class Proxy:
    """Listens on `port`, which it keeps for life, and forwards to `upstream` on this machine.

    `taken`: how many clients have connected so far.
    """

    def __init__(self, name: str, upstream: int) -> None:
        self.name = name
        self.upstream = upstream
        self.port = 0
        self.taken = 0
        self._mode = _Mode.FORWARD
        self._server: asyncio.Server | None = None
        self._sides: set[_Side] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Side(self), HOST, self.port, reuse_address=True, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._stop_listening()
        self.cut()
        for task in self._tasks:
            task.cancel()

    def cut(self) -> None:
        """Reset every connection; new ones are forwarded as before."""
        for side in tuple(self._sides):
            side.reset()

    def mute(self) -> None:
        """Clients that are connected hear nothing any more, nor their server of them, but for
        their end; new ones are forwarded as before."""
        for side in self._sides:
            side.muted = True

    def refuse(self) -> None:
        """Reset every connection and listen no more, until healed."""
        self._mode = _Mode.REFUSE
        self._stop_listening()
        self.cut()

    def black_hole(self) -> None:
        """Keep every connection, and take new ones, but move nothing either way until healed."""
        self._mode = _Mode.BLACK_HOLE
        self._update()

    def swallow_handshakes(self) -> None:
        """Take new connections and never answer them; the others go on."""
        self._mode = _Mode.SWALLOW

    def slow(self) -> None:
        """Forward everything SLOW_SECONDS late."""
        self._mode = _Mode.SLOW

    async def heal(self) -> None:
        """Forward again: what was held flows on, what was swallowed is reset."""
        former, self._mode = self._mode, _Mode.FORWARD
        if former is _Mode.REFUSE:
            await self.start()
        for side in tuple(self._sides):
            if side.swallowed:
                side.reset()
        self._update()

    @property
    def connections(self) -> int:
        """How many clients it serves."""
        return sum(side.is_client for side in self._sides)

    @property
    def held(self) -> int:
        """Bytes that were read and not yet passed on."""
        return sum(side.unwritten for side in self._sides)

    @property
    def moves(self) -> bool:
        return self._mode is not _Mode.BLACK_HOLE

    @property
    def is_slow(self) -> bool:
        return self._mode is _Mode.SLOW

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _update(self) -> None:
        for side in tuple(self._sides):
            side.update()

    def joined(self, side: _Side) -> None:
        """A connection was made, by a client or to the upstream."""
        self._sides.add(side)
        if not side.is_client:
            return
        self.taken += 1
        if self._mode is _Mode.SWALLOW:
            side.swallowed = True
            return
        task = asyncio.get_running_loop().create_task(self._connect(side))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def left(self, side: _Side) -> None:
        self._sides.discard(side)

    async def _connect(self, client: _Side) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Side(self, client), HOST, self.upstream)
        except OSError:
            client.reset()


class _Side(asyncio.Protocol):
    """One end of a forwarded connection; reads only while the other end takes what it reads."""

    def __init__(self, proxy: Proxy, peer: _Side | None = None) -> None:
        self.swallowed = False
        self.muted = False
        self.is_client = peer is None
        self._proxy = proxy
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self._gone = False
        self._late: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()
        self._proxy.joined(self)
        if self._peer is None:
            return
        if self._peer._gone:
            self.reset()
            return
        self._peer._peer = self
        self.muted = self._peer.muted
        self.update()
        self._peer.update()

    def data_received(self, data: bytes) -> None:
        self._late.append(data)
        if self._proxy.is_slow:
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._pass_on)
        else:
            self._pass_all_on()

    def pause_writing(self) -> None:
        self._is_full = True
        if self._peer is not None:
            self._peer.update()

    def resume_writing(self) -> None:
        self._is_full = False
        if self._peer is not None:
            self._peer.update()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._proxy.left(self)
        self._pass_all_on()
        if self.muted and not self.is_client:
            return
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.close()

    @property
    def unwritten(self) -> int:
        late = sum(map(len, self._late))
        return late + (self._transport.get_write_buffer_size() if self._transport else 0)

    def update(self) -> None:
        """Read, or don't."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._proxy.moves and self._peer is not None and not self._peer._is_full:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
        if not self._proxy.is_slow:
            self._pass_all_on()

    def _pass_on(self) -> None:
        """What came first. The order of the timers does not matter, as they are all alike."""
        if self._late and self._peer is not None and self._peer._transport is not None:
            late = self._late.popleft()
            if not self.muted:
                self._peer._transport.write(late)

    def _pass_all_on(self) -> None:
        for _ in tuple(self._late):
            self._pass_on()

    def reset(self) -> None:
        if self._transport is None or self._gone:
            return
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()
