"""Notifications that expire, by themselves or as they are told to: at that instant, everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.shared.clock import SystemClock
from tests.kit import House, ShiftedClock, open_house, quick_settings
from tests.notices import Wire, create, customer, nodes, refused, unread_count, wired
from tests.servers import PrivateMongod, until

CHANGED = "subscription { notificationChanged { kind unreadCount notification { id read } } }"
COUNT = "subscription { unreadCount }"
CREATE = """mutation($input: CreateNotificationInput!) {
    createNotification(input: $input) { notification { id expiresAt sentAt } } }"""
A_DAY = timedelta(days=1)
SOON = timedelta(seconds=5)
LIVES = {"PROMOTION": 7 * A_DAY, "RECOMMENDATION": 14 * A_DAY, "ORDER_UPDATE": None}


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, access_token_seconds=10**7, refresh_token_seconds=10**7)
    async with open_house(settings, clock) as open_:
        yield open_


@pytest.fixture
async def fan(house: House) -> AsyncIterator[Wire]:
    """Somebody who accepts promotions; the welcome is read."""
    async with wired(await house.somebody()) as fan:
        await until(lambda: nodes(fan))
        await fan.ask("mutation { markAllNotificationsRead { marked } }")
        yield fan


async def made(backend: Wire, user_id: str, type_: str, **fields: Any) -> Any:
    fields = {"userId": user_id, "type": type_, "content": "c", **fields}
    return (await backend.ask(CREATE, input=fields))["createNotification"]["notification"]


@pytest.mark.parametrize("type_", LIVES)
async def test_a_type_has_its_life(
    clock: ShiftedClock, backend: Wire, fan: Wire, type_: str
) -> None:
    one = await made(backend, fan.id, type_)
    life = LIVES[type_]
    if life is None:
        assert one["expiresAt"] is None
        with clock.moved(90 * A_DAY):
            assert one["id"] in [node["id"] for node in await nodes(fan)]
        return
    lived = datetime.fromisoformat(one["expiresAt"]) - datetime.fromisoformat(one["sentAt"])
    assert lived == life
    for moved, there in ((life - A_DAY, True), (life + A_DAY, False)):
        with clock.moved(moved):
            assert (one["id"] in [node["id"] for node in await nodes(fan)]) is there
            assert await unread_count(fan) == int(there)


async def test_never_is_an_end_too(backend: Wire, ann: Wire) -> None:
    """What many write for it; and a screen that follows lives on. Ann has nothing that ends."""
    api = ann.somebody.api
    async with api.follow(CHANGED) as changes, api.follow(COUNT) as count:
        assert (await count.next())["unreadCount"] == 0
        never = "9999-12-31T23:59:59.999999Z"
        one = await made(backend, ann.id, "ORDER_UPDATE", expiresAt=never)
        assert one["expiresAt"] == "9999-12-31T23:59:59.999000+00:00"
        assert (await count.next())["unreadCount"] == 1
        await ann.ask("mutation($id: ID!) { markNotificationRead(id: $id) { id } }", id=one["id"])
        assert (await changes.next())["notificationChanged"]["kind"] == "READ"
    async with api.follow(COUNT) as again:
        assert (await again.next())["unreadCount"] == 0


async def test_an_end_is_told_in_utc(backend: Wire, fan: Wire) -> None:
    one = await made(backend, fan.id, "PROMOTION", expiresAt="2999-01-01T01:00:00+01:00")
    assert one["expiresAt"] == "2999-01-01T00:00:00+00:00"


async def test_the_same_again_is_a_duplicate_though_it_is_over(
    clock: ShiftedClock, backend: Wire, fan: Wire
) -> None:
    ends = (clock.now() + A_DAY).isoformat()
    asked = {"dedupKey": "once", "expiresAt": ends}
    first = await made(backend, fan.id, "PROMOTION", **asked)
    with clock.moved(2 * A_DAY):
        assert await made(backend, fan.id, "PROMOTION", **asked) == first


async def test_an_end_of_its_own_counts_more(backend: Wire, fan: Wire) -> None:
    ends = (SystemClock().now() + 2 * A_DAY).isoformat()
    for type_ in LIVES:
        one = await made(backend, fan.id, type_, expiresAt=ends)
        assert datetime.fromisoformat(one["expiresAt"]) == datetime.fromisoformat(ends)


@pytest.mark.parametrize(
    "ends", ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00", "9999-12-31T23:59:59-01:00"]
)
async def test_an_end_that_is_none_is_refused(backend: Wire, fan: Wire, ends: str) -> None:
    error = await refused(made(backend, fan.id, "PROMOTION", expiresAt=ends))
    assert (error.code, error.field) == ("BAD_USER_INPUT", "input.expiresAt")


async def test_open_screens_are_told_when_it_expires(backend: Wire, fan: Wire) -> None:
    """Those that were open before it came, and those that opened later."""
    api = fan.somebody.api
    async with api.follow(CHANGED) as early, api.follow(COUNT) as count:
        assert (await count.next())["unreadCount"] == 0
        ends = SystemClock().now() + SOON
        one = await made(backend, fan.id, "PROMOTION", expiresAt=ends.isoformat())
        stays = await made(backend, fan.id, "PROMOTION")
        while (await count.next())["unreadCount"] != 2:
            pass
        async with api.follow(CHANGED) as late:
            for screen in (early, late):
                change = (await screen.next())["notificationChanged"]
                assert change == {
                    "kind": "EXPIRED",
                    "unreadCount": 1,
                    "notification": {"id": one["id"], "read": False},
                }
            assert SystemClock().now() >= ends
            assert (await count.next())["unreadCount"] == 1
            assert [node["id"] for node in await nodes(fan)][:1] == [stays["id"]]


async def test_each_of_many_that_expire_together_is_told_once(house: House, backend: Wire) -> None:
    async with wired(await customer(house)) as ann, ann.somebody.api.follow(CHANGED) as screen:
        ends = SystemClock().now() + 2 * SOON
        many = [
            {
                "userId": ann.id,
                "type": "ORDER_UPDATE",
                "content": "c",
                "expiresAt": (ends + timedelta(milliseconds=n % 3)).isoformat(),
            }
            for n in range(40)
        ]
        answers = await backend.ask_all(CREATE, [{"input": one} for one in many])
        expected = {one["createNotification"]["notification"]["id"] for one in answers}
        last = (await create(backend, ann.id))["notification"]["id"]
        changes = [(await screen.next())["notificationChanged"] for _ in expected]
        assert {change["notification"]["id"] for change in changes} == expected
        assert {change["kind"] for change in changes} == {"EXPIRED"}
        read = "mutation($id: ID!) { markNotificationRead(id: $id) { id } }"
        await ann.ask(read, id=last)
        assert (await screen.next())["notificationChanged"]["kind"] == "READ"
