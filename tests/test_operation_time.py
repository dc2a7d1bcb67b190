"""An operation has so much time, over HTTP and on a socket, and a subscription has all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.entry import ME, refused
from tests.kit import House, open_house, quick_settings
from tests.servers import PrivateMongod


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    """One in which nothing that asks the database is quick enough."""
    async with open_house(quick_settings(mongod.url, operation_seconds=1e-6)) as open_:
        yield open_


async def test_a_query_that_takes_too_long_is_given_up(house: House) -> None:
    somebody = await house.somebody()
    with refused("SERVICE_UNAVAILABLE"):
        await somebody.api.ask(ME)


async def test_on_a_socket_it_is_given_up_too_and_a_subscription_is_not(house: House) -> None:
    somebody = await house.somebody()
    async with somebody.api.socket() as socket:
        with refused("SERVICE_UNAVAILABLE"):
            await (await socket.subscribe(ME)).next()
        assert (
            "unreadCount" in await (await socket.subscribe("subscription { unreadCount }")).next()
        )
