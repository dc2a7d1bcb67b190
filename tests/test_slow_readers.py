"""Readers that stop reading: what they cost, how they end, and what they miss."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError

from gateway.back_pressure import BoundedSocket
from services.shared.log import set_up_logging
from tests.kit import House, Socket, Stream, open_house, quick_settings, raw_socket
from tests.notices import Wire, ago, create, page, row, store
from tests.servers import PrivateMongod, until

ADDED = """subscription($after: String) {
    notificationAdded(after: $after) { cursor node { id content } } }"""
PATIENCE = 0.5
HEAVY = "x" * 200_000
ONE_MESSAGE = len(HEAVY) + 1000
LATEST = 10.0  # seconds: much is asked of this machine meanwhile, and uvicorn would take 20
COUNT = 20  # more than the network holds
NARROW = 65_536  # what a client's system takes ahead of it, bytes
NARROWER = 16_384  # what is read is acknowledged in steps of that size
SEGMENT = 1400  # as on a real network; loopback's are larger than that
A_LITTLE = 4096


@dataclass
class Stalled:
    """A client that has taken one notification and takes no more."""

    connection: ClientConnection
    socket: socket.socket
    stream: Stream
    served: BoundedSocket
    cursor: str
    seen: list[str]


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, socket_send_seconds=PATIENCE)
    async with open_house(settings) as house:
        yield house


async def test_a_reader_that_stops_is_closed_in_time_at_a_bounded_cost_and_misses_nothing(
    backend: Wire, ann: Wire
) -> None:
    tasks = _serving()
    stored, cursor = await _much_to_read(ann)
    async with _stalled(ann, cursor) as stalled, ann.somebody.api.follow(ADDED) as other:
        await until(lambda: _unsent(stalled) > 0)
        began = time.monotonic()
        most, rounds = 0, 0
        while _is_served(stalled):
            created = (await create(backend, ann.id, "y" * 60_000))["notification"]["id"]
            got = (await other.next(1))["notificationAdded"]  # a reader beside it is not held up
            assert got["node"]["id"] == created
            stored.append(created)
            most = max(most, _unsent(stalled))
            rounds += 1
            assert time.monotonic() - began < LATEST
        assert rounds > 1
        assert most < 2 * ONE_MESSAGE
    await until(lambda: _serving() <= tasks)
    async with ann.somebody.api.follow(ADDED, after=stalled.cursor) as stream:
        seen = [stalled.seen[0]]
        while len(seen) < len(stored):
            seen.append((await stream.next())["notificationAdded"]["node"]["id"])
    assert seen == stored


async def test_a_reader_that_wakes_up_late_learns_why_it_was_closed(ann: Wire) -> None:
    _, cursor = await _much_to_read(ann)
    async with _stalled(ann, cursor) as stalled:
        await until(lambda: stalled.served.close_sent)
        with pytest.raises(ConnectionClosedError) as closed:
            await _read_on(stalled)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


async def test_a_slow_reader_that_goes_on_reading_is_left_alone(ann: Wire) -> None:
    _, cursor = await _much_to_read(ann, "z" * 2_000_000, 2)
    async with _stalled(ann, cursor) as stalled:
        began = time.monotonic()
        reading = asyncio.create_task(stalled.stream.next())
        while not reading.done():
            stalled.connection.transport.pause_reading()
            await asyncio.sleep(PATIENCE / 5)
            stalled.connection.transport.resume_reading()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await reading
        assert time.monotonic() - began > 2 * PATIENCE  # for a single message


async def test_a_reader_that_takes_a_little_at_a_time_is_left_alone(ann: Wire) -> None:
    """So little that what waits in this process does not get less within its patience, nor does
    a ping get through."""
    _, cursor = await _much_to_read(ann)
    async with _stalled(ann, cursor, NARROWER) as stalled:
        await until(lambda: _unsent(stalled) > 0)
        stalled.connection.transport.pause_reading()
        stalled.served.ping_interval = stalled.served.ping_timeout = PATIENCE
        stalled.served.send_keepalive_ping()
        for _ in range(60):
            stalled.socket.recv(A_LITTLE)
            await asyncio.sleep(PATIENCE / 10)
            assert not stalled.served.close_sent


async def test_pings_of_a_client_that_does_not_read_are_not_hoarded(ann: Wire) -> None:
    _, cursor = await _much_to_read(ann)
    async with _stalled(ann, cursor) as stalled:
        await until(lambda: _unsent(stalled) > 0)
        most = 0
        for number in range(4000):
            await stalled.connection.ping(f"{number:0125}")
            most = max(most, _unsent(stalled))
        while _is_served(stalled):
            most = max(most, _unsent(stalled))
            await asyncio.sleep(0)
        assert most < ONE_MESSAGE + 100_000


async def test_operations_that_wait_for_the_same_client_send_one_after_another(ann: Wire) -> None:
    _, cursor = await _much_to_read(ann)
    async with _stalled(ann, cursor) as stalled:
        for _ in range(20):
            await stalled.stream.socket.subscribe(ADDED, after=cursor)
        most = 0
        for _ in range(20):  # it takes a little, so that what waits may go on
            await stalled.connection.recv()
            most = max(most, _unsent(stalled))
        while _is_served(stalled):
            most = max(most, _unsent(stalled))
            await asyncio.sleep(0)
        assert 0 < most < 2 * ONE_MESSAGE


@pytest.mark.usefixtures("_log_put_back")
async def test_a_session_that_ends_while_operations_wait_is_no_fault(
    house: House, ann: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("INFO")
    _, cursor = await _much_to_read(ann)
    async with _stalled(ann, cursor) as stalled:
        for _ in range(20):
            await stalled.stream.socket.subscribe(ADDED, after=cursor)
        await until(lambda: _unsent(stalled) > 0)
        await house.runtime.access.log_out_everywhere(ann.id)
        with suppress(ConnectionClosedError):
            while True:
                await stalled.connection.recv()
        assert stalled.connection.close_code == 4403
        await until(lambda: not _is_served(stalled))
    logged = capfd.readouterr().err
    assert "unexpected_error" not in logged
    assert "Exception in ASGI" not in logged


@pytest.mark.parametrize("waits", [True, False], ids=["answered", "being answered"])
async def test_no_socket_is_opened_behind_an_answer_that_was_not_taken(
    ann: Wire, waits: bool
) -> None:
    await _much_to_read(ann)
    api, loop = ann.somebody.api, asyncio.get_running_loop()
    address = urlsplit(api.url)
    body = json.dumps({"query": "{ notifications(first: 20) { edges { node { content } } } }"})
    lines = [f"host: {address.netloc}", *(f"{name}: {it}" for name, it in api.headers.items())]
    asks = ["POST /graphql HTTP/1.1", "content-type: application/json"]
    asks += [*lines, f"content-length: {len(body)}", "", body]
    opens = ["GET /graphql HTTP/1.1", *lines, "connection: Upgrade", "upgrade: websocket"]
    opens += ["sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""]
    with _narrow(api.url) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, "\r\n".join(asks).encode())
        taken = await loop.sock_recv(client, A_LITTLE) if waits else b""
        await loop.sock_sendall(client, "\r\n".join(opens).encode())
        with suppress(ConnectionError):
            async with asyncio.timeout(LATEST):
                while more := await loop.sock_recv(client, NARROW):
                    taken += more
    assert b"HTTP/1.1 101" not in taken
    assert taken.startswith(b"HTTP/1.1 200") == waits


@asynccontextmanager
async def _stalled(somebody: Wire, cursor: str, room: int = NARROW) -> AsyncIterator[Stalled]:
    """A client that subscribes, takes the first notification and no more."""
    api = somebody.somebody.api
    before = _served()
    narrow = _narrow(api.url, room)
    async with raw_socket(
        api.url, sock=narrow, max_size=None, max_queue=1, close_timeout=0.1
    ) as connection:
        [served] = _served() - before
        client = Socket(connection)
        await client.send({"type": "connection_init", "payload": api.headers})
        assert (await client.receive())["type"] == "connection_ack"
        stream = await client.subscribe(ADDED, after=cursor)
        first = (await stream.next())["notificationAdded"]
        yield Stalled(connection, narrow, stream, served, first["cursor"], [first["node"]["id"]])


def _narrow(url: str, room: int = NARROW) -> socket.socket:
    """Connected. Its system takes no more than `room` bytes ahead of it."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    narrow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    narrow.connect(("127.0.0.1", urlsplit(url).port))
    return narrow


async def _read_on(stalled: Stalled) -> None:
    while True:
        await stalled.stream.next()


def _served() -> set[BoundedSocket]:
    """The websockets that this process serves."""
    found = [one for one in gc.get_objects() if issubclass(type(one), BoundedSocket)]
    return {one for one in found if one in one.connections}


def _serving() -> int:
    """The tasks that serve somebody; the database's driver has others, which come and go."""
    codes = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
    files = [code.co_filename for code in codes if code is not None]
    return sum("strawberry" in file or "uvicorn" in file for file in files)


def _is_served(stalled: Stalled) -> bool:
    return stalled.served in stalled.served.connections


def _unsent(stalled: Stalled) -> int:
    return stalled.served.transport.get_write_buffer_size()


async def _much_to_read(
    somebody: Wire, content: str = HEAVY, count: int = COUNT
) -> tuple[list[str], str]:
    """The ids of more than the network holds, and a cursor before them."""
    await store([row(somebody.id, ago(2000))])
    cursor = (await page(somebody, last=1))["pageInfo"]["endCursor"]
    rows = [row(somebody.id, ago(1000 - n), content=content) for n in range(count)]
    return await store(rows), cursor
