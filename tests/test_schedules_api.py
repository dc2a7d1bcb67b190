"""Schedules as an admin handles them, through GraphQL."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

import pytest

from services.notifications.models import Notification
from services.shared.vocabulary import NotificationType, Role
from tests.kit import GraphQLFailed, House, Somebody
from tests.servers import until

FIELDS = "id name cron timezone event paused nextFireAt lastFiredAt"
CREATE = f"mutation($input: ScheduleInput!) {{ createSchedule(input: $input) {{ {FIELDS} }} }}"
PROMOTION = {"type": "promotion.announced", "data": {"title": "Sale", "body": "All of it"}}


@pytest.fixture(scope="module")
async def admin(house: House) -> Somebody:
    return await house.somebody(Role.ADMIN)


async def test_a_schedule_is_made_shown_changed_and_deleted(admin: Somebody) -> None:
    made = (await admin.api.ask(CREATE, input=_input("made")))["createSchedule"]
    assert made["event"] == PROMOTION
    assert made["paused"] is False
    assert made["lastFiredAt"] is None
    changed = await admin.api.ask(
        f"mutation($id: ID!, $input: ScheduleInput!) "
        f"{{ updateSchedule(id: $id, input: $input) {{ {FIELDS} }} }}",
        id=made["id"],
        input=_input("changed", cron="30 2 * * *", timezone="Europe/Vienna"),
    )
    assert changed["updateSchedule"]["timezone"] == "Europe/Vienna"
    paused = await admin.api.ask(
        "mutation($id: ID!) { pauseSchedule(id: $id) { paused nextFireAt } }", id=made["id"]
    )
    assert paused["pauseSchedule"] == {"paused": True, "nextFireAt": None}
    shown = (await admin.api.ask(f"{{ schedules {{ {FIELDS} }} }}"))["schedules"]
    assert "changed" in [schedule["name"] for schedule in shown]
    deleted = await admin.api.ask("mutation($id: ID!) { deleteSchedule(id: $id) }", id=made["id"])
    assert deleted == {"deleteSchedule": True}
    with pytest.raises(GraphQLFailed) as refused:
        await admin.api.ask("mutation($id: ID!) { deleteSchedule(id: $id) }", id=made["id"])
    assert refused.value.code == "NOT_FOUND"


async def test_long_integers_come_back_as_they_were_given_and_can_be_published(
    house: House, admin: Somebody
) -> None:
    alice = await house.somebody()
    details = {"barcode": 4006381333931, "small": 1}
    order = {"orderId": "1", "userId": alice.id, "status": "paid", "details": details}
    event = {"type": "order.status_changed", "data": order}
    made = (await admin.api.ask(CREATE, input=_input("long") | {"event": event}))["createSchedule"]
    shown = (await admin.api.ask("{ schedules { name event } }"))["schedules"]
    assert event in [schedule["event"] for schedule in shown]
    await admin.api.ask("mutation($id: ID!) { runSchedule(id: $id) { eventId } }", id=made["id"])

    async def stored() -> Notification | None:
        return await Notification.find_one({"user_id": alice.id, "type": "order_update"})

    notification = await until(stored)
    assert notification is not None
    assert notification.content["details"] == details


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_two_schedules_do_not_share_a_name(
    admin: Somebody, form: Literal["NFC", "NFD"]
) -> None:
    name = f"caf\u00e9 {form}"
    made = await admin.api.ask(CREATE, input=_input(unicodedata.normalize(form, name)))
    assert made["createSchedule"]["name"] == name
    for other in ("NFC", "NFD"):
        with pytest.raises(GraphQLFailed) as refused:
            await admin.api.ask(CREATE, input=_input(unicodedata.normalize(other, name)))
        assert refused.value.code == "CONFLICT"


async def test_a_schedule_can_be_run_by_hand(house: House, admin: Somebody) -> None:
    alice = await house.somebody()
    made = (await admin.api.ask(CREATE, input=_input("by hand", cron="0 0 1 1 *")))[
        "createSchedule"
    ]
    ran = await admin.api.ask(
        "mutation($id: ID!) { runSchedule(id: $id) { eventId } }", id=made["id"]
    )
    assert ran["runSchedule"]["eventId"].startswith(made["id"])

    async def titles() -> list[str]:
        rows = Notification.find({"user_id": alice.id, "type": NotificationType.PROMOTION})
        return [row.title async for row in rows]

    await until(lambda: _contains(titles, "Sale"))


async def _contains(titles: Any, title: str) -> bool:
    return title in await titles()


def _input(name: str, cron: str = "* * * * *", timezone: str = "UTC") -> dict[str, Any]:
    return {"name": name, "cron": cron, "timezone": timezone, "event": PROMOTION}
