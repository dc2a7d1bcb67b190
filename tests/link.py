"""A link to a server that can be made bad: a TCP proxy on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Link:
    """Forwards, until it is told otherwise.

    `swallowing`: a new connection is taken, and nobody ever answers on it. `mute()`: so for those
    that are open, even when the server ends them. `cut()`: they are reset. What its client closes,
    it closes at the server.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.taken = 0
        self.swallowing = False
        self._target = target
        self._muted: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def mute(self) -> None:
        self._muted |= self._clients

    def cut(self) -> None:
        for client in self._clients:
            client.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.add(client)
        self.taken += 1
        try:
            if self.swallowing:
                self._muted.add(client)
                await self._pump(reader, None, client)
            else:
                await self._forward(reader, client)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            client.close()
            self._clients.discard(client)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        there, server = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.create_task(self._pump(there, client, client))
        try:
            await self._pump(reader, server, client)
        finally:
            server.close()
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter | None,
        client: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while some := await reader.read(65536):
                if writer is not None and client not in self._muted:
                    writer.write(some)
                    await writer.drain()
        if writer is client and client not in self._muted:
            client.close()

    async def end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def link(target: int) -> AsyncIterator[Link]:
    """A link to `target`, a port of 127.0.0.1."""
    made = Link(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.end()
