"""Seen, read, archived, snoozed: what one screen does, all of them show, and counts are exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from services.notifications.models import Notification
from services.notifications.states import States
from services.shared.clock import SystemClock
from tests.kit import Elsewhere, House, ShiftedClock, Stream, open_house, quick_settings
from tests.notices import Wire, create, customer, page, refused, row, store
from tests.servers import PrivateMongod, until

A_DAY = timedelta(days=1)
STATE = "id title read seen archived snoozedUntil"
LIST = f"""query(
    $archived: Boolean! = false, $snoozed: Boolean! = false, $unread: Boolean! = false) {{
    notifications(first: 50, archived: $archived, snoozed: $snoozed, unreadOnly: $unread) {{
      edges {{ node {{ {STATE} }} }} }} unreadCount unseenCount }}"""
SEE_ALL = """mutation($upTo: String) {
    markAllNotificationsSeen(upTo: $upTo) { marked unreadCount unseenCount } }"""
READ_ALL = "mutation { markAllNotificationsRead { marked unreadCount unseenCount } }"
READ = f"""mutation($id: ID!, $on: Boolean! = true) {{
    markNotificationRead(id: $id, read: $on) {{ {STATE} }} }}"""
ARCHIVE = f"""mutation($id: ID!, $on: Boolean! = true) {{
    archiveNotification(id: $id, archived: $on) {{ {STATE} }} }}"""
SNOOZE = f"""mutation($id: ID!, $until: DateTime) {{
    snoozeNotification(id: $id, until: $until) {{ {STATE} }} }}"""
CHANGED = (
    f"subscription {{ notificationChanged {{ kind unreadCount notification {{ {STATE} }} }} }}"
)
ADDED = f"subscription {{ notificationAdded {{ node {{ {STATE} }} }} }}"


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, access_token_seconds=10**8, refresh_token_seconds=10**8)
    async with open_house(settings, clock) as open_:
        yield open_


async def sent(backend: Wire, ann: Wire, *titles: str) -> list[str]:
    return [(await create(backend, ann.id, title=title))["notification"]["id"] for title in titles]


async def listed(ann: Wire, **which: Any) -> list[str]:
    """The titles, the newest first."""
    edges = (await ann.ask(LIST, **which))["notifications"]["edges"]
    return [edge["node"]["title"] for edge in edges]


async def counts(ann: Wire) -> tuple[int, int]:
    """How many are unread, and unseen."""
    found = await ann.ask(LIST)
    return found["unreadCount"], found["unseenCount"]


async def test_who_looks_has_seen_all_up_to_there(backend: Wire, ann: Wire) -> None:
    await sent(backend, ann, "one", "two")
    cursor = (await page(ann))["pageInfo"]["startCursor"]
    await sent(backend, ann, "three")
    assert await counts(ann) == (3, 3)
    answer = (await ann.ask(SEE_ALL, upTo=cursor))["markAllNotificationsSeen"]
    assert answer == {"marked": 2, "unreadCount": 3, "unseenCount": 1}
    answer = (await ann.ask(SEE_ALL))["markAllNotificationsSeen"]
    assert answer == {"marked": 1, "unreadCount": 3, "unseenCount": 0}
    assert (await ann.ask(SEE_ALL))["markAllNotificationsSeen"]["marked"] == 0


async def test_what_is_read_archived_or_snoozed_is_seen(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    ids = await sent(backend, ann, "read", "archived", "snoozed", "left")
    until_ = (clock.now() + A_DAY).isoformat()
    for document, id, more in (
        (READ, ids[0], {}),
        (ARCHIVE, ids[1], {}),
        (SNOOZE, ids[2], {"until": until_}),
    ):
        [changed] = (await ann.ask(document, id=id, **more)).values()
        assert changed["seen"] is True
    assert await counts(ann) == (1, 1)
    assert (await ann.ask(READ, id=ids[0], on=False))["markNotificationRead"]["seen"] is True
    answer = (await ann.ask(READ_ALL))["markAllNotificationsRead"]
    assert answer == {"marked": 3, "unreadCount": 0, "unseenCount": 0}


async def test_what_sleeps_is_on_no_page_and_in_no_count(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    [first, _] = await sent(backend, ann, "first", "second")
    until_ = clock.now() + A_DAY
    snoozed = (await ann.ask(SNOOZE, id=first, until=until_.isoformat()))["snoozeNotification"]
    assert snoozed["snoozedUntil"] == until_.isoformat()
    assert await listed(ann) == ["second"]
    assert await listed(ann, snoozed=True) == ["first"]
    assert await listed(ann, archived=True) == []
    assert await counts(ann) == (1, 1)
    await ann.ask(SNOOZE, id=first)
    assert await listed(ann) == ["second", "first"]
    assert await counts(ann) == (2, 1)


async def test_what_has_slept_comes_back_to_the_top_unread(
    house: House, clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    [first, _] = await sent(backend, ann, "first", "second")
    await ann.ask(READ_ALL)
    for until_ in (clock.now() + A_DAY, clock.now() + 2 * A_DAY):  # the last word counts
        await ann.ask(SNOOZE, id=first, until=until_.isoformat())
    with clock.moved(1.5 * A_DAY):
        await house.runtime.states.wake()
        assert await listed(ann) == ["second"]
    with clock.moved(2.5 * A_DAY):
        await until(lambda: listed(ann, unread=True))
        assert await listed(ann) == ["first", "second"]
        assert await counts(ann) == (1, 1)
        [back] = (await ann.ask(LIST, unread=True))["notifications"]["edges"]
        assert back["node"]["snoozedUntil"] is None


async def test_what_is_archived_sleeps_no_more(
    house: House, clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    [id] = await sent(backend, ann, "one")
    await ann.ask(SNOOZE, id=id, until=(clock.now() + A_DAY).isoformat())
    archived = (await ann.ask(ARCHIVE, id=id))["archiveNotification"]
    assert archived["snoozedUntil"] is None
    snoozed = await ann.ask(SNOOZE, id=id, until=(clock.now() + A_DAY).isoformat())
    assert snoozed["snoozeNotification"]["archived"] is False


async def test_a_newer_state_wakes_what_sleeps_unless_it_comes_quietly(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    first = await create(backend, ann.id, title="one", collapseKey="cart")
    id = first["notification"]["id"]
    await ann.ask(SNOOZE, id=id, until=(clock.now() + A_DAY).isoformat())
    await create(backend, ann.id, title="two", collapseKey="cart", unreadAgain=False)
    assert (await listed(ann), await listed(ann, snoozed=True)) == ([], ["two"])
    await create(backend, ann.id, title="three", collapseKey="cart")
    assert (await listed(ann), await listed(ann, snoozed=True)) == (["three"], [])
    assert await counts(ann) == (1, 1)


async def test_all_open_screens_are_told(
    house: House, clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    api = ann.somebody.api
    async with AsyncExitStack() as stack:
        screens = [await stack.enter_async_context(api.follow(CHANGED)) for _ in range(2)]
        added = await stack.enter_async_context(api.follow(ADDED))
        [id] = await sent(backend, ann, "one")
        await added.next()
        await until_all_hear(ann, id, screens)
        await ann.ask(SEE_ALL)
        await ann.ask(SNOOZE, id=id, until=(clock.now() + A_DAY).isoformat())
        with clock.moved(2 * A_DAY):
            await house.runtime.states.wake()
            again = (await added.next())["notificationAdded"]["node"]
            assert (again["id"], again["read"], again["snoozedUntil"]) == (id, False, None)
            for screen in screens:
                told = [(await screen.next())["notificationChanged"] for _ in range(3)]
                assert [(one["kind"], one["unreadCount"]) for one in told] == [
                    ("SEEN", 1),
                    ("SNOOZED", 0),
                    ("UNSNOOZED", 1),
                ]


async def until_all_hear(ann: Wire, id: str, screens: list[Stream]) -> None:
    """A screen that follows hears that it was marked unread, since it was read before."""
    await ann.ask(READ, id=id)
    for screen in screens:
        await screen.next()
    await ann.ask(READ, id=id, on=False)
    for screen in screens:
        await screen.next()
    # Not seen, as if it were new.
    await Notification.get_pymongo_collection().update_one(
        {"title": "one", "user_id": ann.id}, {"$set": {"seen": False}}
    )


async def test_a_time_to_sleep_until_is_checked(
    clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    [id] = await sent(backend, ann, "one")
    for until_, words in (
        (clock.now() - A_DAY, "past"),
        (clock.now() + 367 * A_DAY, "SNOOZE_SECONDS"),
        (SystemClock().now().replace(tzinfo=None), "zone"),
    ):
        error = await refused(ann.ask(SNOOZE, id=id, until=until_.isoformat()))
        assert (error.code, error.field) == ("BAD_USER_INPUT", "until")
        assert words in error.message
    assert (await refused(ann.ask(SNOOZE, id="6" * 24))).code == "NOT_FOUND"


async def test_what_was_stored_before_there_was_seen_counts_as_seen(ann: Wire) -> None:
    await store([row(ann.id, SystemClock().now(), title="old")])
    assert await counts(ann) == (1, 0)
    [old] = (await ann.ask(LIST))["notifications"]["edges"]
    assert old["node"]["seen"] is True


async def test_what_sleeps_wakes_once_whoever_wakes_it(
    house: House, clock: ShiftedClock, backend: Wire, ann: Wire
) -> None:
    runtime, count = house.runtime, 60
    due = clock.now() + A_DAY
    await store(
        row(ann.id, clock.now(), title=str(n), read=True, snoozed_until=due) for n in range(count)
    )
    wakers = [States(runtime.store, runtime.outbox, clock, runtime.settings) for _ in range(4)]
    async with ann.somebody.api.follow(ADDED) as added:
        await sent(backend, ann, "It is open")
        await added.next()
        with clock.moved(2 * A_DAY):
            await asyncio.gather(*(waker.wake() for waker in wakers))
            await sent(backend, ann, "The end")
            told: list[str] = []
            while "The end" not in told:
                told.append((await added.next())["notificationAdded"]["node"]["title"])
    assert sorted(told[:-1]) == sorted(map(str, range(count)))


async def test_what_another_version_stored_is_left_asleep_and_holds_up_nothing(
    house: House, clock: ShiftedClock, ann: Wire
) -> None:
    due = clock.now() + A_DAY
    await store(
        row(ann.id, clock.now(), title=type_, type=type_, snoozed_until=due)
        for type_ in ("hologram", "order_update")
    )
    with clock.moved(2 * A_DAY):
        await house.runtime.states.wake()
        assert await house.runtime.states.wake() == 0
        assert await listed(ann) == ["order_update"]


async def test_what_was_too_much_at_once_is_woken_in_smaller_steps(
    house: House, clock: ShiftedClock, ann: Wire
) -> None:
    async def is_slow() -> None:
        raise AutoReconnect("too slow")

    runtime = house.runtime
    settings = runtime.settings.model_copy(update={"fan_out_size": 8})
    states = States(Elsewhere(runtime.store, before=is_slow), runtime.outbox, clock, settings)
    asked: list[int] = []
    with clock.moved(2 * A_DAY):
        for _ in range(3):
            await store([row(ann.id, clock.now(), snoozed_until=clock.now() - A_DAY)])
            with suppress(AutoReconnect):
                await states.wake()
            asked.append(states._wakes_at_once)
    assert asked == [4, 2, 1]


async def test_a_page_that_is_left_at_once_has_still_said_what_is_read(house: House) -> None:
    somebody = await customer(house)
    await store(row(somebody.id, SystemClock().now() - A_DAY) for _ in range(200))
    async with somebody.api.socket() as socket:
        await socket.subscribe(READ_ALL)

    async def is_read() -> bool:
        return bool((await somebody.api.ask("{ unreadCount }"))["unreadCount"] == 0)

    await until(is_read)
