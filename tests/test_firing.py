"""Sending what was scheduled: once, whoever tries, dies or is overtaken meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from beanie import PydanticObjectId
from pymongo.errors import PyMongoError

from services.host import Runtime, open_runtime
from services.notifications.drafts import Asked
from services.notifications.firing import Firing
from services.notifications.models import Notification
from services.notifications.plan import Plan
from services.notifications.scheduled import ScheduledNotification
from services.shared.outbox import OutboxRow
from services.shared.store import Store
from services.shared.vocabulary import NotificationType, Role, ScheduledState
from services.users.models import User
from services.users.service import Registration
from tests.kit import (
    PASSWORD,
    Elsewhere,
    Killed,
    ShiftedClock,
    killed,
    open_house,
    quick_settings,
)
from tests.outages import away
from tests.servers import PrivateMongod, private_mongod_server, until

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def resting(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[Runtime]:
    """A runtime in which nothing happens by itself."""
    async with open_runtime(quick_settings(mongod.url), clock) as runtime:
        yield runtime
        await runtime.store.drop()


async def due(runtime: Runtime, count: int) -> list[str]:
    """So many whose time has come, for as many users; their ids."""
    ids = []
    for n in range(count):
        registration = Registration("Some Body", f"{n}@shop.example", PASSWORD)
        user = await runtime.users.create(registration, Role.USER)
        plan = Plan(
            Asked(str(user.id), NotificationType.ORDER_UPDATE, "Later"),
            at=runtime.clock.now() + HOUR,
        )
        _, scheduled = await runtime.scheduling.schedule(plan, "urn:test")
        ids.append(str(scheduled.id))
    await OutboxRow.delete_all()  # of the registrations
    return ids


def worker(runtime: Runtime, store: Store | None = None) -> Firing:
    return Firing(
        store or runtime.store,
        runtime.outbox,
        runtime.announcing,
        runtime.texts,
        runtime.clock,
        runtime.settings,
    )


async def state_of(id: str) -> ScheduledState:
    row = await ScheduledNotification.get(PydanticObjectId(id))
    assert row is not None
    return row.state


async def are_sent(ids: list[str]) -> bool:
    """Whether these are what was sent, each once."""
    of_these = {"event": {"$regex": "scheduled/"}}  # the others welcome somebody
    sent = [one.event.rpartition("/")[2] async for one in Notification.find(of_these)]
    return sorted(sent) == sorted(ids)


async def sent_once(ids: list[str]) -> bool:
    """Whether each is one notification, which is told once."""
    return await are_sent(ids) and await OutboxRow.find_all().count() == len(ids)


async def test_eight_workers_that_look_at_once_send_each_once(
    resting: Runtime, clock: ShiftedClock
) -> None:
    ids = await due(resting, 30)
    workers = [worker(resting) for _ in range(8)]
    await asyncio.gather(*(one.work() for one in workers))  # now each has its connection
    with clock.moved(HOUR):
        await asyncio.gather(*(one.work() for one in workers))
        assert await resting.firing.work() == 0
    assert {await state_of(id) for id in ids} == {ScheduledState.SENT}
    assert await sent_once(ids)


class Slow(Firing):
    """A worker that another overtakes between its look and its claim."""

    faster: Firing

    async def _claim(
        self, found: Sequence[ScheduledNotification], now: datetime
    ) -> Sequence[ScheduledNotification]:
        assert await self.faster.work() == len(found)
        return await super()._claim(found, now)


async def test_what_another_has_claimed_meanwhile_is_left_to_it(
    resting: Runtime, clock: ShiftedClock
) -> None:
    ids = await due(resting, 3)
    store = Elsewhere(resting.store, before=killed)
    slow = Slow(store, resting.outbox, resting.announcing, resting.texts, clock, resting.settings)
    slow.faster = worker(resting)
    with clock.moved(HOUR):
        await slow.work()
    assert await sent_once(ids)


async def test_what_one_worker_has_in_hand_no_other_takes_until_the_lease_is_over(
    resting: Runtime, clock: ShiftedClock
) -> None:
    ids = await due(resting, 3)
    found: list[int] = []

    async def others() -> None:
        found.append(await worker(resting).work())
        with clock.moved(timedelta(seconds=resting.settings.scheduled_lease_seconds)):
            found.append(await worker(resting).work())

    with clock.moved(HOUR):
        await worker(resting, Elsewhere(resting.store, before=others)).work()
    assert found == [0, 3]
    assert await sent_once(ids)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_worker_that_is_killed_leaves_each_to_be_sent_once(
    resting: Runtime, clock: ShiftedClock, moment: str
) -> None:
    ids = await due(resting, 3)
    with clock.moved(HOUR):
        with pytest.raises(Killed):
            await worker(resting, Elsewhere(resting.store, **{moment: killed})).work()
        with clock.moved(timedelta(seconds=resting.settings.scheduled_lease_seconds)):
            assert await worker(resting).work() == (3 if moment == "before" else 0)
    assert await sent_once(ids)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"content": 5}, {"content": "mended"}),
        ({"type": "of a later version"}, {"type": "promotion"}),
    ],
    ids=["sent", "read"],
)
async def test_one_that_can_not_be_sent_is_put_off_and_holds_up_nothing(
    resting: Runtime, clock: ShiftedClock, wrong: dict[str, Any], right: dict[str, Any]
) -> None:
    first, *others = await due(resting, 5)
    broken = {"_id": PydanticObjectId(first)}
    rows = ScheduledNotification.get_pymongo_collection()
    await rows.update_one(broken, {"$set": wrong})
    with clock.moved(HOUR):
        await resting.firing.work()
        assert await sent_once(others)
        assert await resting.firing.work() == 0
    await rows.update_one(broken, {"$set": right})
    with clock.moved(HOUR + timedelta(minutes=2)):
        await resting.firing.work()
    assert await sent_once([first, *others])


async def test_for_somebody_who_is_gone_it_is_cancelled(
    resting: Runtime, clock: ShiftedClock
) -> None:
    gone, still_there = await due(resting, 2)
    row = await ScheduledNotification.get(PydanticObjectId(gone))
    assert row is not None
    await User.find_one({"_id": PydanticObjectId(row.user_id)}).delete()
    with clock.moved(HOUR):
        await resting.firing.work()
    assert await state_of(gone) is ScheduledState.CANCELLED
    assert await sent_once([still_there])


async def test_finding_what_is_due_reads_only_what_is_due(
    resting: Runtime, clock: ShiftedClock
) -> None:
    [id] = await due(resting, 1)
    collection = ScheduledNotification.get_pymongo_collection()
    row = await collection.find_one({"_id": PydanticObjectId(id)})
    assert row is not None
    del row["_id"]
    later = {"at": clock.now() + DAY, "due_at": clock.now() + DAY}
    await collection.insert_many([row | later for _ in range(500)])
    await collection.insert_many([row | {"state": "sent"} for _ in range(500)])
    with clock.moved(HOUR):
        await resting.store.database.command("profile", 2)
        assert await resting.firing.work() == 1
        await resting.store.database.command("profile", 0)
    profile = resting.store.database["system.profile"]
    asked = [one async for one in profile.find({"ns": collection.full_name})]
    assert len(asked) >= 4
    assert max(one.get("docsExamined", 0) for one in asked) == 1


async def test_what_comes_due_while_the_database_is_away_goes_out_when_it_is_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    clock = ShiftedClock()
    async with (
        private_mongod_server(tmp_path_factory.mktemp("mongod")) as mongod,
        open_house(quick_settings(mongod.url), clock) as house,
    ):
        ids = await due(house.runtime, 3)
        async with away(mongod, "killed"):
            clock.shift += HOUR
            await asyncio.sleep(1)
        await until(lambda: all_are_sent(ids), timeout=20)


async def all_are_sent(ids: list[str]) -> bool:
    with suppress(PyMongoError):
        return await are_sent(ids)
    return False
