"""With the broker away the outbox takes what is told, and all is caught up when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.live import Live
from services.shared.vocabulary import Role
from tests.kit import House, Socket, Stream, open_house, quick_settings
from tests.notices import create, customer
from tests.outages import MOST_SECONDS, away, is_ready, readiness
from tests.servers import PrivateMongod, PrivateRabbitMQ, need_rabbitmq, private_rabbitmq, until

ADDED = """subscription {
    notificationAdded(types: [ORDER_UPDATE]) { cursor node { id content } } }"""
ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateRabbitMQ]:
    """One of our own, since it is killed."""
    need_rabbitmq()
    async with private_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, broker: PrivateRabbitMQ) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, rabbitmq_url=broker.url)) as house:
        yield house


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_a_subscription_outlives_the_broker_and_gets_everything_once(
    house: House, broker: PrivateRabbitMQ, way: str
) -> None:
    ann, backend = await customer(house), await house.somebody(Role.SERVICE)
    await until(lambda: is_ready(house))

    async def order(number: int) -> None:
        order = {"orderId": str(number), "userId": ann.id, "status": "paid"}
        began = time.monotonic()
        await backend.api.ask(ORDER, input=order)
        assert time.monotonic() - began < MOST_SECONDS

    async with ann.api.socket() as socket:
        stream = await _following(socket)
        await order(1)
        seen = [await _order(stream)]
        async with away(broker, way):
            await until(lambda: _is_away(house), 20)
            _, answer, seconds = await readiness(house)
            assert list(answer["away"]) == ["broker"]
            assert seconds < MOST_SECONDS
            await asyncio.gather(*map(order, range(2, 6)))
            created = (await create(backend.api, ann.id, {"orderId": "6"}))["notification"]["id"]
            page = await ann.api.ask("{ notifications(first: 1) { edges { node { id } } } }")
            assert page["notifications"]["edges"][0]["node"]["id"] == created
        await until(lambda: is_ready(house), 20)
        await order(7)
        while len(seen) < 7:
            seen.append(await _order(stream))
        assert sorted(seen) == [str(number) for number in range(1, 8)]
        await order(8)
        assert await _order(stream) == "8"


async def test_a_gateway_is_not_ready_before_live_events_get_through(house: House) -> None:
    await until(lambda: is_ready(house))
    live = Live(house.runtime.bus, house.runtime.clock, house.runtime.settings)
    app = create_app(house.runtime, live, asyncio.Event())

    async def told() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return (await client.get("/readyz")).json()

    assert list((await told())["away"]) == ["live"]
    async with live.running():
        await until(lambda: live.is_heard)
        assert await told() == {"status": "ready"}


async def _following(socket: Socket) -> Stream:
    """A subscription that has begun: a question asked after it was answered."""
    stream = await socket.subscribe(ADDED)
    question = await socket.subscribe("{ me { name preferences { version } } }")
    while (await socket.receive()) != {"id": question.id, "type": "complete"}:
        pass
    return stream


async def _order(stream: Stream) -> Any:
    return (await stream.next())["notificationAdded"]["node"]["content"]["orderId"]


async def _is_away(house: House) -> bool:
    return not await is_ready(house)
