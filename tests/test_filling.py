"""The rows of a bench's database are like those that the services store."""

from __future__ import annotations

from pathlib import Path

from pymongo import AsyncMongoClient

from bench.filling import fill_notifications, fill_users, session_id, user_id
from services.notifications.handlers import NotificationHandlers
from services.notifications.models import Notification
from services.shared.clock import SystemClock
from services.shared.events import Event, OrderStatusChanged, PromotionAnnounced
from services.shared.store import Row
from services.shared.vocabulary import NotificationType, Role
from services.users.credentials import Session
from services.users.models import User
from tests.kit import House
from tests.servers import private_mongod_server

USERS, EACH = 3, 60


async def _filled(house: House) -> None:
    await fill_notifications(house.runtime.store.database, USERS, EACH, lambda _: None)


async def test_every_row_is_what_its_model_reads(house: House) -> None:
    await _filled(house)
    assert await User.find_all().count() == USERS
    assert await Session.find_all().count() == USERS
    rows = await Notification.find_all().to_list()
    assert len(rows) == USERS * EACH
    assert {row.type for row in rows} == {*NotificationType}
    assert all(SystemClock().now().timestamp() - row.sent_at.timestamp() > 3600 for row in rows)


async def test_the_rows_have_the_fields_of_those_that_were_announced(house: House) -> None:
    runtime = house.runtime
    await fill_users(runtime.store.database, USERS)
    handlers = NotificationHandlers(
        runtime.announcing, runtime.scheduling, runtime.texts, runtime.clock, runtime.settings
    )
    order = OrderStatusChanged(order_id="1", user_id=user_id(0), status="shipped", details={})
    await handlers.on_order_status_changed([Event.of(order, time=runtime.clock.now())])
    promotion = PromotionAnnounced(title="Sale", body="All of it", user_ids=(user_id(0),))
    await handlers.on_promotion_announced([Event.of(promotion, time=runtime.clock.now())])
    announced = await _an_unread_one_of_each_type()
    await _filled(house)
    filled = await _an_unread_one_of_each_type()
    for type_, row in announced.items():
        assert row.keys() == filled[type_].keys()
        assert row["decision"].keys() == filled[type_]["decision"].keys()


async def test_whoever_was_filled_in_is_logged_in(house: House) -> None:
    await _filled(house)
    tokens = house.runtime.sessions._tokens
    token, _ = tokens.issue(user_id(1), Role.USER, session_id(1))
    shown = await house.api.as_(token).ask("{ me { id } notifications { edges { cursor } } }")
    assert shown["me"]["id"] == user_id(1)
    assert len(shown["notifications"]["edges"]) == 20


async def test_a_mongod_that_is_filled_standing_alone_is_a_replica_set_again(
    tmp_path: Path,
) -> None:
    async with (
        private_mongod_server(tmp_path) as mongod,
        AsyncMongoClient[Row](mongod.url) as client,
    ):
        async with mongod.standalone():
            assert "setName" not in await client.admin.command("hello")
            await fill_notifications(client["filled"], USERS, EACH, lambda _: None)
        assert "setName" in await client.admin.command("hello")
        rows = client["filled"][Notification.Settings.name]
        assert await rows.count_documents({}) == USERS * EACH
        assert len(await rows.index_information()) == len(Notification.Settings.indexes) + 1


async def _an_unread_one_of_each_type() -> dict[str, Row]:
    rows = Notification.get_pymongo_collection().find({"read": False})
    return {row["type"]: row async for row in rows}
