"""The life of an event: from a schedule's tick to a `next` on a websocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import uuid4

import aio_pika
import msgspec
import pytest

from services.shared.clock import SystemClock
from services.shared.topology import EVENTS
from services.shared.vocabulary import Role
from tests.kit import Api, House, ShiftedClock, forget_queues, open_house, quick_settings
from tests.servers import PrivateMongod, PrivateRabbitMQ, until

ADDED = """subscription($after: String, $types: [NotificationType!]) {
  notificationAdded(after: $after, types: $types) { cursor node { id type title body content } }
}"""
CREATE_SCHEDULE = """mutation($input: ScheduleInput!) {
  createSchedule(input: $input) { id nextFireAt }
}"""
TRACK = "mutation($input: ActivityInput!) { trackActivity(input: $input) }"
PUBLISH_PRODUCT = "mutation($input: ProductInput!) { publishProduct(input: $input) { eventId } }"


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def on_embedded(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, access_token_seconds=10**6), clock) as house:
        yield house


@pytest.fixture
async def on_rabbitmq(
    mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ, clock: ShiftedClock
) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, rabbitmq_url=rabbitmq.url, access_token_seconds=10**6)
    await forget_queues(rabbitmq.url, settings)
    async with open_house(settings, clock) as house:
        yield house


@pytest.fixture(params=["on_embedded", "on_rabbitmq"])
def anywhere(request: pytest.FixtureRequest) -> House:
    house: House = request.getfixturevalue(request.param)
    return house


@pytest.mark.parametrize("type_", ["ORDER_UPDATE", "PROMOTION", "RECOMMENDATION"])
async def test_a_tick_of_a_schedule_becomes_a_next_on_a_websocket(
    anywhere: House, clock: ShiftedClock, type_: str
) -> None:
    alice = await anywhere.somebody()
    admin = await anywhere.somebody(Role.ADMIN)
    await _stock(admin.api, alice.api)
    event = {
        "ORDER_UPDATE": {
            "type": "order.status_changed",
            "data": {"orderId": "4711", "userId": alice.id, "status": "shipped"},
        },
        "PROMOTION": {
            "type": "promotion.announced",
            "data": {"title": "Rain is coming", "body": "Jackets are 20 % off."},
        },
        "RECOMMENDATION": {"type": "recommendations.requested", "data": {}},
    }[type_]
    async with alice.api.follow(ADDED, types=[type_]) as stream:
        schedule = {"name": uuid4().hex, "cron": "0 4 * * *", "event": event}
        made = await admin.api.ask(CREATE_SCHEDULE, input=schedule)
        due = datetime.fromisoformat(made["createSchedule"]["nextFireAt"])
        clock.shift = due - SystemClock().now() + timedelta(seconds=1)
        node = (await stream.next())["notificationAdded"]["node"]
        if node["title"].startswith("Welcome"):
            node = (await stream.next())["notificationAdded"]["node"]
    assert node["type"] == type_
    assert (
        node["title"]
        == {
            "ORDER_UPDATE": "Order 4711 is on its way",
            "PROMOTION": "Rain is coming",
            "RECOMMENDATION": "Picked for you",
        }[type_]
    )


async def test_a_foreign_producer_is_served_like_our_own(
    on_rabbitmq: House, rabbitmq: PrivateRabbitMQ
) -> None:
    alice = await on_rabbitmq.somebody()
    event = {
        "specversion": "1.0",
        "id": "a-foreign-id",
        "source": "/shop/orders",
        "type": "order.status_changed",
        "time": "2026-11-22T12:00:00+01:00",
        "data": {"orderId": "9", "userId": alice.id, "status": "delivered", "unknown": True},
    }
    async with alice.api.follow(ADDED, types=["ORDER_UPDATE"]) as stream:
        async with await aio_pika.connect(rabbitmq.url) as connection:
            exchange = await (await connection.channel()).get_exchange(EVENTS)
            for _ in range(2):  # sent again it changes nothing
                message = aio_pika.Message(msgspec.json.encode(event))
                await exchange.publish(message, "order.status_changed")
        edge = (await stream.next())["notificationAdded"]
    assert edge["node"]["title"] == "Order 9 was delivered"
    assert edge["node"]["content"] == {"orderId": "9", "status": "delivered"}
    page = await alice.api.ask("{ notifications(types: [ORDER_UPDATE]) { edges { node { id } } } }")
    assert [edge["node"]["id"]] == [one["node"]["id"] for one in page["notifications"]["edges"]]


async def test_a_foreign_activity_counts_for_recommendations(
    on_rabbitmq: House, rabbitmq: PrivateRabbitMQ
) -> None:
    alice = await on_rabbitmq.somebody()
    admin = await on_rabbitmq.somebody(Role.ADMIN)
    for number in range(6):
        await _publish_product(admin.api, f"p{number}", f"category {number}")
    async with await aio_pika.connect(rabbitmq.url) as connection:
        exchange = await (await connection.channel()).get_exchange(EVENTS)
        for number in range(6):
            event = {
                "specversion": "1.0",
                "id": f"activity-{number}",
                "source": "/shop/web",
                "type": "user.activity",
                "data": {"userId": "somebody else", "kind": "purchase", "productId": f"p{number}"},
            }
            message = aio_pika.Message(msgspec.json.encode(event))
            await exchange.publish(message, "user.activity")
    await _until_recommended(alice.api)


async def _stock(admin: Api, customer: Api) -> None:
    """A catalogue that is popular, so that there is something to recommend."""
    products = [f"product {number}" for number in range(6)]
    for number, product in enumerate(products):
        await _publish_product(admin, product, f"category {number}")
        await admin.ask(TRACK, input={"kind": "PURCHASE", "productId": product})
    await customer.ask(TRACK, input={"kind": "VIEW", "productId": products[0]})
    await _until_recommended(customer)


async def _publish_product(admin: Api, product_id: str, category: str) -> None:
    product = {"productId": product_id, "name": product_id, "category": category}
    await admin.ask(PUBLISH_PRODUCT, input=product)


async def _until_recommended(customer: Api) -> None:
    async def recommended() -> bool:
        found = await customer.ask("{ recommendations { productId } }")
        return len(found["recommendations"]) >= 3

    await until(recommended)
