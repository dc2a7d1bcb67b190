"""Notifications for later: each goes out at its time, or is cancelled, and every answer is true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from beanie import PydanticObjectId

from services.notifications.drafts import Asked
from services.notifications.models import Notification
from services.notifications.plan import Plan
from services.notifications.scheduled import ScheduledNotification
from services.shared.events import Event, OrderStatusChanged
from services.shared.vocabulary import (
    CancelOutcome,
    NotificationType,
    Role,
    ScheduledState,
)
from services.shared.worker import when_back
from services.users.models import Activity
from services.users.preferences import TypeChange, Wishes
from tests.kit import House, ShiftedClock, open_house, quick_settings
from tests.notices import Asker, Wire, create, customer, nodes, refused
from tests.servers import PrivateMongod, until

FIELDS = "id userId type title at expiresAt state cancelKey createdAt"
SCHEDULE = f"""mutation($input: ScheduleNotificationInput!) {{
    scheduleNotification(input: $input) {{ outcome scheduled {{ {FIELDS} }} }} }}"""
CANCEL = """mutation($id: ID, $key: String) {
    cancelScheduled(id: $id, cancelKey: $key) { outcome } }"""
SHOWN = f"""query($userId: ID!, $first: Int! = 20) {{
    scheduledNotifications(userId: $userId, first: $first) {{ {FIELDS} }} }}"""
ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
TRACK = "mutation($input: ActivityInput!) { trackActivity(input: $input) }"
PREFER = "mutation($input: PreferencesInput!) { updatePreferences(input: $input) { version } }"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MOST_PER_USER, MOST_PER_KEY = 60, 5


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    """One in which logins last while a test moves the clock."""
    settings = quick_settings(
        mongod.url,
        access_token_seconds=10 * DAY.total_seconds(),
        scheduled_ahead_seconds=400 * DAY.total_seconds(),
        max_scheduled_per_user=MOST_PER_USER,
        max_scheduled_per_cancel_key=MOST_PER_KEY,
    )
    async with open_house(settings, clock) as open_:
        yield open_


async def schedule(backend: Asker, user_id: str, **fields: Any) -> Any:
    """What scheduleNotification answers; an ORDER_UPDATE if no other type is given."""
    fields = {"userId": user_id, "type": "ORDER_UPDATE", "content": "Later"} | fields
    return (await backend.ask(SCHEDULE, input=fields))["scheduleNotification"]


async def scheduled_id(backend: Asker, user_id: str, **fields: Any) -> str:
    answer = await schedule(backend, user_id, **fields)
    assert answer["outcome"] == "SCHEDULED"
    assert answer["scheduled"]["state"] == "WAITING"
    id: str = answer["scheduled"]["id"]
    return id


async def cancel(backend: Asker, **which: str) -> str:
    outcome: str = (await backend.ask(CANCEL, **which))["cancelScheduled"]["outcome"]
    return outcome


async def state_of(id: str) -> ScheduledState:
    row = await ScheduledNotification.get(PydanticObjectId(id))
    assert row is not None
    return row.state


async def has_ended(id: str) -> bool:
    return await state_of(id) is not ScheduledState.WAITING


def within(clock: ShiftedClock, ahead: timedelta) -> str:
    return (clock.now() + ahead).isoformat()


def last_sunday(month: int) -> datetime:
    """The next one at 01:00 UTC, when Europe's clocks change."""
    now = datetime.now(UTC)
    for year in (now.year, now.year + 1):
        day = datetime(year, month, 31, 1, tzinfo=UTC)
        day -= timedelta(days=(day.weekday() + 1) % 7)
        if day > now:
            return day
    raise AssertionError("unreachable")


async def test_it_goes_out_at_its_instant_and_not_before(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    at = within(clock, HOUR)
    answer = await schedule(
        backend, ann.id, at=at, title="Soon", content={"body": "Here", "n": None}
    )
    assert answer["outcome"] == "SCHEDULED"
    with clock.moved(HOUR - timedelta(minutes=1)):
        other = await scheduled_id(backend, ann.id, at=within(clock, timedelta(seconds=2)))
        await until(lambda: has_ended(other))
        assert not await has_ended(answer["scheduled"]["id"])
    with clock.moved(HOUR):
        await until(lambda: has_ended(answer["scheduled"]["id"]))
        newest, _ = await nodes(ann)
    assert (newest["title"], newest["body"]) == ("Soon", "Here")
    assert newest["content"] == {"body": "Here", "n": None}
    assert datetime.fromisoformat(newest["sentAt"]) >= datetime.fromisoformat(at)
    assert await state_of(answer["scheduled"]["id"]) is ScheduledState.SENT


async def test_open_screens_are_told_when_it_goes_out(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    added = "subscription { notificationAdded { node { body } } }"
    async with ann.somebody.api.follow(added) as stream:
        await create(backend, ann.id, "now")
        assert (await stream.next())["notificationAdded"]["node"]["body"] == "now"
        await schedule(backend, ann.id, at=within(clock, timedelta(seconds=2)))
        assert (await stream.next())["notificationAdded"]["node"]["body"] == "Later"


async def test_a_local_time_is_that_of_the_recipient_or_of_the_zone_that_is_given(
    clock: ShiftedClock, house: House, backend: Wire
) -> None:
    tomorrow = (clock.now() + DAY).date()
    tokyo = await house.somebody(timezone="Asia/Tokyo")
    local = f"{tomorrow}T18:00"
    own = await schedule(backend, tokyo.id, localAt=local)
    given = await schedule(backend, tokyo.id, localAt=f"{local}:30", timezone="Asia/Kolkata")
    assert own["scheduled"]["at"] == f"{tomorrow}T09:00:00+00:00"
    assert given["scheduled"]["at"] == f"{tomorrow}T12:30:30+00:00"
    with clock.moved(datetime.fromisoformat(own["scheduled"]["at"]) - clock.now()):
        await until(lambda: has_ended(own["scheduled"]["id"]))
    assert await state_of(given["scheduled"]["id"]) is ScheduledState.WAITING


async def test_a_local_time_that_clocks_skip_is_the_next_instant_there_is(
    house: House, backend: Wire
) -> None:
    spring = last_sunday(3)
    bert = await house.somebody(timezone="Europe/Berlin")
    for local in ("02:00", "02:30", "03:00"):
        answer = await schedule(backend, bert.id, localAt=f"{spring.date()}T{local}")
        assert answer["scheduled"]["at"] == spring.isoformat()


async def test_a_local_time_that_clocks_show_twice_is_the_first(
    house: House, backend: Wire
) -> None:
    autumn = last_sunday(10)
    bert = await house.somebody(timezone="Europe/Berlin")
    answer = await schedule(backend, bert.id, localAt=f"{autumn.date()}T02:30")
    assert answer["scheduled"]["at"] == (autumn - HOUR / 2).isoformat()


async def test_what_is_cancelled_in_time_does_not_go_out(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    key = {"cancelKey": "cart:1"}
    by_id = await scheduled_id(backend, ann.id, at=within(clock, HOUR))
    by_key = [await scheduled_id(backend, ann.id, at=within(clock, HOUR), **key) for _ in "ab"]
    other = await scheduled_id(backend, ann.id, at=within(clock, HOUR), cancelKey="cart:2")
    assert await cancel(backend, id=by_id) == "CANCELLED"
    assert await cancel(backend, key="cart:1") == "CANCELLED"
    with clock.moved(HOUR):
        await until(lambda: has_ended(other))
        assert len(await nodes(ann)) == 1
        assert await cancel(backend, id=by_id) == "CANCELLED"
        assert await cancel(backend, key="cart:1") == "CANCELLED"
    assert {await state_of(id) for id in (by_id, *by_key)} == {ScheduledState.CANCELLED}


async def test_a_cancel_that_is_too_late_says_so(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    key = "too late"
    id = await scheduled_id(backend, ann.id, at=within(clock, HOUR), cancelKey=key)
    with clock.moved(HOUR):
        await until(lambda: has_ended(id))
        assert await cancel(backend, id=id) == "TOO_LATE"
        assert await cancel(backend, key=key) == "TOO_LATE"
        assert len(await nodes(ann)) == 1


async def test_of_a_series_a_cancel_by_key_stops_what_still_waits(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    first, second = [
        await scheduled_id(backend, ann.id, at=within(clock, n * HOUR), cancelKey="series")
        for n in (1, 2)
    ]
    with clock.moved(HOUR):
        await until(lambda: has_ended(first))
        for _ in "ab":
            assert await cancel(backend, key="series") == "CANCELLED"
    assert await state_of(first) is ScheduledState.SENT
    assert await state_of(second) is ScheduledState.CANCELLED


async def test_what_was_cancelled_before_says_nothing_of_what_went_out_since(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    earlier = await scheduled_id(backend, ann.id, at=within(clock, HOUR), cancelKey="again")
    assert await cancel(backend, id=earlier) == "CANCELLED"
    later = await scheduled_id(backend, ann.id, at=within(clock, HOUR), cancelKey="again")
    with clock.moved(HOUR):
        await until(lambda: has_ended(later))
        for _ in "ab":
            assert await cancel(backend, key="again") == "TOO_LATE"


async def test_a_cancel_that_comes_first_wins_for_a_day(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    async def scheduled() -> Any:
        return await schedule(backend, ann.id, at=within(clock, HOUR), cancelKey="early")

    assert await cancel(backend, key="early") == "CANCELLED"
    answer = await scheduled()
    assert answer["outcome"] == answer["scheduled"]["state"] == "CANCELLED"
    with clock.moved(DAY - timedelta(minutes=1)):
        assert (await scheduled())["outcome"] == "CANCELLED"
        assert await cancel(backend, id=answer["scheduled"]["id"]) == "CANCELLED"
    with clock.moved(DAY):
        assert (await scheduled())["outcome"] == "SCHEDULED"
    assert not await nodes(ann)


async def test_keys_are_the_callers_own(
    clock: ShiftedClock, house: House, backend: Wire, ann: Wire
) -> None:
    other = (await house.somebody(Role.SERVICE)).api
    keys = {"cancelKey": "shared", "dedupKey": "shared"}
    at = within(clock, HOUR)
    mine = await scheduled_id(backend, ann.id, at=at, **keys)
    theirs = await scheduled_id(other, ann.id, at=at, **keys)
    assert await cancel(other, key="shared") == "CANCELLED"
    assert await state_of(theirs) is ScheduledState.CANCELLED
    assert await state_of(mine) is ScheduledState.WAITING


async def test_an_id_that_never_was_is_not_found(backend: Wire) -> None:
    for id in ("0123456789abcdef01234567", "no id at all"):
        assert (await refused(cancel(backend, id=id))).code == "NOT_FOUND"
    assert (await refused(backend.ask(CANCEL))).field == "id"
    both = backend.ask(CANCEL, id="0123456789abcdef01234567", key="k")
    assert (await refused(both)).field == "cancelKey"
    assert (await refused(cancel(backend, key=""))).field == "cancelKey"


async def test_an_order_cancels_what_was_to_be_cancelled_on_it(
    clock: ShiftedClock, house: House, backend: Wire, ann: Wire
) -> None:
    async def waits_for(user_id: str, **cancel_on: str) -> str:
        return await scheduled_id(backend, user_id, at=within(clock, HOUR), cancelOn=cancel_on)

    bert = await customer(house)
    met = [
        await waits_for(ann.id, orderStatus="placed"),
        await waits_for(ann.id, orderStatus="PLACED", orderId="7"),
        await waits_for(ann.id, orderStatus="placed", productId="tent"),
    ]
    unmet = [
        await waits_for(ann.id, orderStatus="placed", orderId="8"),
        await waits_for(ann.id, orderStatus="paid"),
        await waits_for(bert.id, orderStatus="placed"),
        await scheduled_id(backend, ann.id, at=within(clock, HOUR)),
    ]
    await backend.ask(ORDER, input={"orderId": "7", "userId": ann.id, "status": "Placed"})
    await until(lambda: all_have(met, ScheduledState.CANCELLED))
    with clock.moved(HOUR):
        await until(lambda: all_have(unmet, ScheduledState.SENT))


async def test_orders_that_come_together_cancel_each_their_own(
    clock: ShiftedClock, house: House, backend: Wire, ann: Wire
) -> None:
    bert = await customer(house)
    ids = [
        await scheduled_id(
            backend, user_id, at=within(clock, HOUR), cancelOn={"orderStatus": status}
        )
        for user_id in (ann.id, bert.id)
        for status in ("placed", "paid")
    ]
    orders = (
        OrderStatusChanged(order_id="1", user_id=ann.id, status="placed"),
        OrderStatusChanged(order_id="2", user_id=bert.id, status="paid"),
    )
    events = [Event.of(order, time=clock.now()) for order in orders]
    await house.runtime.scheduling.cancel_on_orders(events)
    assert [await has_ended(id) for id in ids] == [True, False, False, True]


async def test_an_order_that_was_older_than_the_schedule_cancels_nothing(
    clock: ShiftedClock, house: House, backend: Wire, ann: Wire
) -> None:
    on_placed = {"cancelOn": {"orderStatus": "placed"}}
    id = await scheduled_id(backend, ann.id, at=within(clock, HOUR), **on_placed)
    order = OrderStatusChanged(order_id="9", user_id=ann.id, status="placed")
    old = Event.of(order, time=clock.now() - HOUR)
    await house.runtime.bus.publish([old])
    await until(lambda: nodes(ann))
    assert await state_of(id) is ScheduledState.WAITING


async def test_a_purchase_cancels_what_was_to_be_cancelled_on_it(
    clock: ShiftedClock, house: House, backend: Wire, ann: Wire
) -> None:
    async def does(kind: str, product: str) -> None:
        await ann.ask(TRACK, input={"kind": kind, "productId": product})
        await until(
            lambda: Activity.find_one(
                {"user_id": ann.id, "product_id": product, "kind": kind.lower()}
            )
        )

    async def waits_for(user_id: str, product: str) -> str:
        on = {"productId": product}
        return await scheduled_id(backend, user_id, at=within(clock, HOUR), cancelOn=on)

    early = await waits_for(ann.id, "nothing of that")
    await does("PURCHASE", "bought before")
    bert = await customer(house)
    met = [await waits_for(ann.id, "tent"), await waits_for(ann.id, "tent")]
    unmet = [
        early,
        await waits_for(ann.id, "bought before"),
        await waits_for(ann.id, "only looked at"),
        await waits_for(bert.id, "tent"),
    ]
    await does("PURCHASE", "tent")
    await does("VIEW", "only looked at")
    with clock.moved(HOUR):
        await until(lambda: all_have(met, ScheduledState.CANCELLED))
        await until(lambda: all_have(unmet, ScheduledState.SENT))
        assert await cancel(backend, id=met[0]) == "CANCELLED"


async def all_have(ids: list[str], state: ScheduledState) -> bool:
    return {await state_of(id) for id in ids} == {state}


async def test_the_same_dedup_key_again_answers_with_the_first(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    asked = {"at": within(clock, HOUR), "dedupKey": "once", "cancelOn": {"orderStatus": "Paid"}}
    first = await schedule(backend, ann.id, **asked)
    many = [{"input": _input(ann.id, **asked | {"dedupKey": "at once"})}] * 20
    answers = [one["scheduleNotification"] for one in await backend.ask_all(SCHEDULE, many)]
    assert sorted(one["outcome"] for one in answers) == ["DUPLICATE"] * 19 + ["SCHEDULED"]
    assert len({one["scheduled"]["id"] for one in answers}) == 1
    for change in (
        {"content": "Other"},
        {"at": within(clock, 2 * HOUR)},
        {"expiresAt": within(clock, 2 * HOUR)},
        {"cancelOn": None},
    ):
        failure = await refused(schedule(backend, ann.id, **asked | change))
        assert failure.code == "CONFLICT"
    with clock.moved(HOUR):
        await until(lambda: has_ended(first["scheduled"]["id"]))
        again = await schedule(backend, ann.id, **asked)
        assert again["outcome"] == "DUPLICATE"
        assert again["scheduled"] == first["scheduled"] | {"state": "SENT"}


def _input(user_id: str, **fields: Any) -> dict[str, Any]:
    return {"userId": user_id, "type": "ORDER_UPDATE", "content": "Later"} | fields


async def test_it_is_over_when_it_was_said_to_be(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    ends = within(clock, 3 * HOUR)
    answer = await schedule(backend, ann.id, at=within(clock, 2 * HOUR), expiresAt=ends)
    assert answer["scheduled"]["expiresAt"] == ends
    with clock.moved(2 * HOUR):
        await until(lambda: nodes(ann))
    with clock.moved(3 * HOUR):
        assert await nodes(ann) == []


async def test_whether_it_is_wanted_is_decided_when_it_goes_out(
    clock: ShiftedClock, house: House, backend: Wire
) -> None:
    wants = TypeChange(NotificationType.PROMOTION, True, ())
    ann, bert = await house.somebody(preferences=Wishes(types=(wants,))), await customer(house)
    late = {"type": "PROMOTION", "at": within(clock, HOUR)}
    ids = [await scheduled_id(backend, user.id, **late) for user in (ann, bert)]
    for user, enabled in ((ann, False), (bert, True)):
        change = {"types": [{"type": "PROMOTION", "enabled": enabled}]}
        await user.api.ask(PREFER, input=change)
    with clock.moved(HOUR):
        await until(lambda: all_ended(ids))
        assert "Later" not in [one["body"] for one in await nodes(ann.api)]
        assert "Later" in [one["body"] for one in await nodes(bert.api)]
        assert [await cancel(backend, id=id) for id in ids] == ["TOO_LATE"] * 2
    assert [await state_of(id) for id in ids] == [ScheduledState.SUPPRESSED, ScheduledState.SENT]


async def test_operators_see_what_waits(
    clock: ShiftedClock, house: House, backend: Wire, ann: Wire
) -> None:
    second, first, gone = [
        await scheduled_id(backend, ann.id, at=within(clock, n * HOUR), title=f"in {n} h")
        for n in (2, 1, 3)
    ]
    await cancel(backend, id=gone)
    admin = (await house.somebody(Role.ADMIN)).api
    shown = (await admin.ask(SHOWN, userId=ann.id))["scheduledNotifications"]
    assert [one["id"] for one in shown] == [first, second]
    assert (shown[0]["title"], shown[0]["state"]) == ("in 1 h", "WAITING")
    assert len((await admin.ask(SHOWN, userId=ann.id, first=1))["scheduledNotifications"]) == 1
    assert (await admin.ask(SHOWN, userId=ann.id, first=0))["scheduledNotifications"] == []
    assert (await refused(admin.ask(SHOWN, userId=ann.id, first=101))).field == "first"


AT = {"at": "2999-01-01T00:00:00Z"}  # checked last
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "input.at"),
    ({"at": "2020-01-01T00:00:00Z"}, "input.at"),
    (AT, "input.at"),
    ({"at": "2999-01-01T00:00:00"}, "input.at"),
    ({"at": "9999-12-31T23:59:59-12:00"}, "input.at"),
    (AT | {"localAt": "2999-01-01T00:00"}, "input.localAt"),
    (AT | {"timezone": "Europe/Berlin"}, "input.timezone"),
    ({"localAt": "2999-01-01T00:00", "timezone": "Europe/Atlantis"}, "input.timezone"),
    ({"localAt": "2999-01-01T00:00", "timezone": ""}, "input.timezone"),
    ({"localAt": "2999-01-01T00:00"}, "input.localAt"),
    ({"localAt": "2020-01-01T00:00"}, "input.localAt"),
    ({"localAt": "2026-12-24"}, "input.localAt"),
    ({"localAt": "2026-12-24T18:00Z"}, "input.localAt"),
    ({"localAt": "2026-13-24T18:00"}, "input.localAt"),
    ({"localAt": "9999-12-31T23:59", "timezone": "Pacific/Honolulu"}, "input.localAt"),
    (AT | {"content": 5}, "input.content"),
    (AT | {"content": "x" * 70_000}, "input.content"),
    (AT | {"content": {"$a": 1}}, "input.content"),
    (AT | {"title": ""}, "input.title"),
    (AT | {"expiresAt": AT["at"]}, "input.expiresAt"),
    (AT | {"dedupKey": ""}, "input.dedupKey"),
    (AT | {"cancelKey": "k" * 201}, "input.cancelKey"),
    (AT | {"cancelOn": {}}, "input.cancelOn"),
    (AT | {"cancelOn": {"orderId": "1"}}, "input.cancelOn.orderStatus"),
    (AT | {"cancelOn": {"orderStatus": ""}}, "input.cancelOn.orderStatus"),
    (AT | {"cancelOn": {"productId": "p" * 201}}, "input.cancelOn.productId"),
]


@pytest.mark.parametrize(("fields", "place"), BAD, ids=lambda one: str(one)[:60])
async def test_what_can_not_be_is_refused_with_its_place(
    backend: Wire, ann: Wire, fields: dict[str, Any], place: str
) -> None:
    failure = await refused(schedule(backend, ann.id, **fields))
    assert (failure.code, failure.field) == ("BAD_USER_INPUT", place)
    assert (await backend.ask(SHOWN, userId=ann.id))["scheduledNotifications"] == []


async def test_nobody_is_not_found(clock: ShiftedClock, backend: Wire) -> None:
    asked = schedule(backend, "0123456789abcdef01234567", at=within(clock, HOUR))
    assert (await refused(asked)).code == "NOT_FOUND"


async def test_so_many_wait_for_a_user_and_under_a_key_and_no_more(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    at = within(clock, HOUR)
    ids = [await scheduled_id(backend, ann.id, at=at, cancelKey="k") for _ in range(MOST_PER_KEY)]
    full = await refused(schedule(backend, ann.id, at=at, cancelKey="k"))
    assert (full.code, full.field) == ("BAD_USER_INPUT", "input.cancelKey")
    for _ in range(MOST_PER_USER - MOST_PER_KEY):
        await scheduled_id(backend, ann.id, at=at)
    full = await refused(schedule(backend, ann.id, at=at))
    assert (full.code, full.field) == ("BAD_USER_INPUT", "input.userId")
    await cancel(backend, id=ids[0])
    await scheduled_id(backend, ann.id, at=at)


async def test_cancels_and_sending_race_a_thousand_times_and_each_answer_is_true(
    clock: ShiftedClock, house: House
) -> None:
    """Each is cancelled at about the moment when it goes out, by id or by key."""
    scheduling, source = house.runtime.scheduling, "urn:test:race"
    users = [str((await customer(house)).id) for _ in range(20)]
    start = clock.now() + HOUR
    ids: list[str] = []
    for n in range(1000):
        at = start + timedelta(milliseconds=4 * n)
        plan = Plan(_asked(users[n % 20]), at=at, cancel_key=f"race {n}")
        _, scheduled = await scheduling.schedule(plan, source)
        ids.append(str(scheduled.id))
    chance = random.Random(7)

    async def cancelled(n: int) -> CancelOutcome:
        due = start + timedelta(milliseconds=4 * n) - clock.now()
        await asyncio.sleep(due.total_seconds() + chance.uniform(-0.05, 0.1))
        if n % 2:
            return await when_back(lambda: scheduling.cancel(ids[n]), "a cancel")
        return await when_back(lambda: scheduling.cancel_by_key(f"race {n}", source), "a cancel")

    with clock.moved(start - clock.now() - timedelta(seconds=0.2)):
        answers = await asyncio.gather(*map(cancelled, range(1000)))
        await until(lambda: all_ended(ids))
    too_late = [n for n, answer in enumerate(answers) if answer is CancelOutcome.TOO_LATE]
    sent = [one async for one in Notification.find({"user_id": {"$in": users}})]
    assert sorted((one.user_id, one.event.rpartition("/")[2]) for one in sent) == sorted(
        (users[n % 20], ids[n]) for n in too_late
    )
    assert 0 < len(sent) < 1000, "that was no race"


async def all_ended(ids: list[str]) -> bool:
    waiting = {"_id": {"$in": [PydanticObjectId(id) for id in ids]}, "state": "waiting"}
    return await ScheduledNotification.find(waiting).count() == 0


async def test_a_cancel_by_key_wins_whichever_comes_first(
    clock: ShiftedClock, house: House
) -> None:
    scheduling, source = house.runtime.scheduling, "urn:test:keys"
    ann = (await customer(house)).id
    at = clock.now() + HOUR

    async def race(n: int) -> None:
        key = f"key {n}"
        plan = Plan(_asked(ann), at=at, cancel_key=key)
        if n % 2:  # a key that is known already
            await scheduling.schedule(plan, source)
        _, answer = await asyncio.gather(
            scheduling.schedule(plan, source), scheduling.cancel_by_key(key, source)
        )
        assert answer is CancelOutcome.CANCELLED

    with clock.stopped():  # so that no write is new by its time alone
        for start in range(0, 200, 20):
            await asyncio.gather(*map(race, range(start, start + 20)))
    assert await ScheduledNotification.count_of_user(ann, 200) == 0
    assert await ScheduledNotification.find({"user_id": ann}).count() == 300


def _asked(user_id: str) -> Asked:
    return Asked(user_id, NotificationType.ORDER_UPDATE, "Later")
