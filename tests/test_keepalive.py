"""Who answers no ping is asked to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.kit import House, open_house, quick_settings
from tests.servers import PrivateMongod

PING_SECONDS = 0.5


@pytest.fixture
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, socket_ping_seconds=PING_SECONDS)) as house:
        yield house


async def test_a_client_that_answers_no_ping_is_closed_with_a_code_to_come_back(
    house: House,
) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        socket.connection.transport.pause_reading()
        await asyncio.sleep(2 * PING_SECONDS + 0.3)  # then its answer is late, and the line is open
        socket.connection.transport.resume_reading()
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


async def test_a_client_that_answers_pings_stays(house: House) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=4 * PING_SECONDS)
        stream = await socket.subscribe("{ me { id } }")
        assert (await stream.next())["me"]["id"] == somebody.id
