"""The campaign's links: whole, cut, refused, black-holed, slow and with swallowed handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from campaign.proxy import HOST, SLOW_SECONDS, Proxy
from tests.servers import until

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Ends]]


class Upstream:
    """Answers every byte with itself, and counts its connections."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.received = 0
        self.hears = asyncio.Event()
        self.hears.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def leave(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self.hears.wait() and (data := await reader.read(65536)):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.connections -= 1
            self._writers.discard(writer)
            writer.close()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    echo = Upstream()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[Proxy]:
    link = Proxy("a link", upstream.port)
    await link.start()
    yield link
    await link.close()
    await until(lambda: upstream.connections == 0)


@pytest.fixture
async def dial(proxy: Proxy) -> AsyncIterator[Dial]:
    """Connects through the proxy; all is closed at the end."""
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Ends:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        opened.append(writer)
        return reader, writer

    yield connect
    for writer in opened:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def echoes(ends: Ends, data: bytes = b"hello", timeout: float = 5) -> bool:
    reader, writer = ends
    writer.write(data)
    async with asyncio.timeout(timeout):
        return await reader.readexactly(len(data)) == data


async def is_silent(ends: Ends) -> bool:
    with pytest.raises(TimeoutError):
        await echoes(ends, timeout=0.2)
    return True


async def is_over(ends: Ends) -> bool:
    try:
        async with asyncio.timeout(5):
            return await ends[0].read(1) == b""
    except ConnectionError:
        return True


async def test_what_is_sent_arrives_whole_both_ways(proxy: Proxy, dial: Dial) -> None:
    ends = await dial()
    assert await echoes(ends, bytes(range(256)) * 20_000)
    ends[1].close()
    await until(lambda: proxy.connections == 0)


async def test_a_cut_ends_what_is_open_and_nothing_else(proxy: Proxy, dial: Dial) -> None:
    ends = await dial()
    assert await echoes(ends)
    proxy.cut()
    assert await is_over(ends)
    assert await echoes(await dial())


async def test_who_is_muted_hears_nothing_even_when_its_server_has_ended(
    proxy: Proxy, upstream: Upstream, dial: Dial
) -> None:
    muted = await dial()
    assert await echoes(muted)
    proxy.mute()
    assert await is_silent(muted)
    assert await echoes(await dial())
    assert (upstream.received, proxy.taken) == (10, 2)
    upstream.leave()
    await until(lambda: upstream.connections == 0)
    assert await is_silent(muted)


async def test_a_refusing_link_has_no_listener_until_it_is_healed(proxy: Proxy, dial: Dial) -> None:
    ends, port = await dial(), proxy.port
    proxy.refuse()
    assert await is_over(ends)
    with pytest.raises(ConnectionRefusedError):
        await dial()
    await proxy.heal()
    assert proxy.port == port
    assert await echoes(await dial())


async def test_out_of_a_black_hole_everything_flows_on(
    proxy: Proxy, upstream: Upstream, dial: Dial
) -> None:
    old = await dial()
    assert await echoes(old)
    proxy.black_hole()
    new = await dial()
    assert await is_silent(old)
    assert await is_silent(new)
    assert upstream.received == 5
    await proxy.heal()
    for reader, _ in (old, new):
        async with asyncio.timeout(5):
            assert await reader.readexactly(5) == b"hello"
    assert await echoes(old)


async def test_a_swallowed_handshake_hurts_only_new_connections(proxy: Proxy, dial: Dial) -> None:
    old = await dial()
    assert await echoes(old)
    proxy.swallow_handshakes()
    new = await dial()
    assert await is_silent(new)
    assert await echoes(old)
    await proxy.heal()
    assert await is_over(new)
    assert await echoes(await dial())


async def test_a_slow_link_delivers_late_whole_and_in_order(proxy: Proxy, dial: Dial) -> None:
    loop = asyncio.get_running_loop()
    old = await dial()
    proxy.slow()
    for ends in (old, await dial()):
        began = loop.time()
        assert await echoes(ends, bytes(range(256)) * 20_000)
        assert loop.time() - began >= 2 * SLOW_SECONDS
    old[1].write(b"on its way")
    await asyncio.sleep(SLOW_SECONDS / 2)
    await proxy.heal()
    async with asyncio.timeout(5):
        assert await old[0].readexactly(10) == b"on its way"
    began = loop.time()
    assert await echoes(old)
    assert loop.time() - began < SLOW_SECONDS


async def test_what_a_slow_link_holds_arrives_before_its_end(
    proxy: Proxy, upstream: Upstream, dial: Dial
) -> None:
    reader, writer = await dial()
    proxy.slow()
    writer.write(b"last words")
    writer.write_eof()
    await is_over((reader, writer))
    await until(lambda: upstream.received == len(b"last words"))


async def test_a_link_to_nobody_is_reset(proxy: Proxy, upstream: Upstream, dial: Dial) -> None:
    proxy.upstream = 1
    assert await is_over(await dial())


async def test_a_flood_that_nobody_reads_stays_with_its_sender(
    proxy: Proxy, upstream: Upstream, dial: Dial
) -> None:
    upstream.hears.clear()
    _, writer = await dial()
    flood = bytes(64 * 1024 * 1024)
    writer.write(flood)
    await until(lambda: upstream.connections == 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await writer.drain()
    assert proxy.held < 1024 * 1024
    assert writer.transport.get_write_buffer_size() > 32 * 1024 * 1024
    proxy.cut()
    upstream.hears.set()
