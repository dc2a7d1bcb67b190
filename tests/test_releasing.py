"""What is held is decided anew when its time has come: once, with what holds then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from beanie import PydanticObjectId
from hypothesis import given
from hypothesis import strategies as st

from services import host
from services.notifications.deliveries import Delivery, Held
from services.notifications.dispatch import spread
from services.notifications.releasing import Releasing
from services.shared.store import Row
from services.shared.vocabulary import (
    Channel,
    DeliveryState,
    Outcome,
    OverCap,
    QuietAction,
    Role,
    Weekday,
)
from services.users.models import User
from services.users.preferences import Wishes
from services.users.quiet_hours import QuietChange, QuietWindow
from tests.kit import (
    Elsewhere,
    House,
    Killed,
    ShiftedClock,
    Somebody,
    killed,
    open_house,
    quick_settings,
)
from tests.other_channels import (
    announce,
    announcer,
    deliveries,
    offer,
    reached_by,
    releaser,
    spent,
    state,
    states,
    switch,
    switched,
)
from tests.servers import PrivateMongod, until

PUSH, EMAIL, IN_APP = Channel.WEB_PUSH, Channel.EMAIL, Channel.IN_APP
READY, HELD = DeliveryState.READY, DeliveryState.HELD
SUPPRESSED, DIGESTED = DeliveryState.SUPPRESSED, DeliveryState.DIGESTED
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
DIGEST: dict[str, Any] = {"over_cap": OverCap.DIGEST, "cap_web_push": 1}
WHY = """query($event: ID!, $user: ID!) { explainEvent(eventId: $event, userId: $user) {
    channels { channel outcome reason until state } } }"""


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    """In which nothing happens by itself."""
    settings = quick_settings(mongod.url, mongodb_connections=20)
    async with open_house(settings, clock, workers=()) as house:
        yield house


@pytest.fixture(autouse=True)
async def nothing_held(house: House) -> None:
    """What other tests left would be released with one's own."""
    await Delivery.delete_all()


def quiet(clock: ShiftedClock, *channels: Channel, after: timedelta = timedelta()) -> Any:
    """Quiet for about two hours from now on, or from then on, on these channels."""
    begins = clock.now() + after
    window = QuietWindow(
        days=tuple(Weekday),
        start=f"{begins:%H:%M}",
        end=f"{begins + 2 * HOUR:%H:%M}",
    )
    return [QuietChange(channel, QuietAction.DEFER, (window,)) for channel in channels]


async def held_one(house: House, clock: ShiftedClock) -> tuple[Somebody, Delivery]:
    """What waits for somebody's quiet hours to end."""
    ann = await reached_by(house, PUSH, quiet=quiet(clock, PUSH))
    await announce(announcer(house), offer(ann.id))
    [held] = await deliveries(ann.id)
    assert held.state is HELD
    return ann, held


async def released(house: House, clock: ShiftedClock, at: datetime, **settings: Any) -> None:
    """All that is due then."""
    with clock.moved(at - clock.now()):
        while await releaser(house, **settings).work():
            pass


async def test_what_falls_into_quiet_hours_waits_for_their_end_and_goes_out(
    house: House, clock: ShiftedClock
) -> None:
    ann = await reached_by(house, PUSH, EMAIL, quiet=quiet(clock, PUSH))
    [told] = await announce(announcer(house), draft := offer(ann.id))
    assert told.notification is not None  # the app waits for nothing
    until_ = told.channels[PUSH].until
    held, ready = await deliveries(ann.id, channel=PUSH) + await deliveries(ann.id, channel=EMAIL)
    assert (held.state, ready.state) == (HELD, READY)
    assert until_ is not None
    assert held.due_at is not None
    assert held.decision["until"] == until_
    assert held.due_at == until_ + spread((ann.id, draft.event), 600)
    assert await spent(ann.id) == [(draft.event, EMAIL)]
    await released(house, clock, held.due_at - timedelta(milliseconds=50))
    assert await states(ann.id, channel=PUSH) == [HELD]
    await released(house, clock, held.due_at)
    [now] = await deliveries(ann.id, channel=PUSH)
    assert (now.state, now.due_at, now.content) == (READY, None, draft.content)
    assert (now.decision["outcome"], now.decision["reason"]) == ("sent", "ACCEPTED")
    assert now.decision["at"] >= held.due_at
    assert await spent(ann.id) == [(draft.event, EMAIL), (draft.event, PUSH)]


@given(st.lists(st.uuids(), min_size=1, max_size=30, unique=True), st.sampled_from([0, 1, 600]))
def test_releases_are_spread_and_always_the_same(events: list[Any], seconds: int) -> None:
    for event in events:
        delay = spread(("ann", str(event)), seconds)
        assert timedelta() <= delay < timedelta(seconds=max(seconds, 0.001))
        assert delay == spread(("ann", str(event)), seconds)


def test_releases_are_spread_evenly() -> None:
    delays = [spread((str(n), "urn:shop sale"), 600) for n in range(3000)]
    minutes = [sum(n * MINUTE <= one < (n + 1) * MINUTE for one in delays) for n in range(10)]
    assert min(minutes) > 200


async def test_what_was_refused_meanwhile_does_not_go_out(
    house: House, clock: ShiftedClock
) -> None:
    ann, held = await held_one(house, clock)
    await switch(house, ann.id, *switched(off=[PUSH]))
    await released(house, clock, clock.now() + 3 * HOUR)
    [now] = await deliveries(ann.id)
    assert (now.state, now.decision["reason"]) == (SUPPRESSED, "CHANNEL_OFF")
    assert now.decision["preferences_version"] > held.decision["preferences_version"]
    assert await spent(ann.id) == []


async def test_what_is_over_meanwhile_does_not_go_out(house: House, clock: ShiftedClock) -> None:
    ann = await reached_by(house, PUSH, quiet=quiet(clock, PUSH))
    await announce(announcer(house), offer(ann.id, expires_at=clock.now() + 5 * HOUR))
    await released(house, clock, clock.now() + 6 * HOUR)
    [now] = await deliveries(ann.id)
    assert (now.state, now.decision["reason"]) == (SUPPRESSED, "EXPIRED")


async def test_what_would_be_over_by_then_is_not_held(house: House, clock: ShiftedClock) -> None:
    ann = await reached_by(house, PUSH, quiet=quiet(clock, PUSH))
    [told] = await announce(announcer(house), offer(ann.id, expires_at=clock.now() + HOUR / 2))
    assert told.channels[PUSH].outcome is Outcome.SUPPRESSED
    assert await deliveries(ann.id) == []


async def test_releases_are_spread_over_less_where_it_is_over_soon(
    house: House, clock: ShiftedClock
) -> None:
    ann = await reached_by(house, PUSH, quiet=quiet(clock, PUSH))
    [told] = await announce(announcer(house), offer(ann.id))
    end = told.channels[PUSH].until
    assert end is not None
    over = end + timedelta(minutes=3)
    await announce(announcer(house), *(offer(ann.id, expires_at=over) for _ in range(20)))
    due = [one.due_at for one in await deliveries(ann.id, expires_at=over)]
    assert all(at is not None and end <= at < over for at in due)
    assert len(set(due)) > 10


async def test_who_is_disabled_meanwhile_gets_nothing(house: House, clock: ShiftedClock) -> None:
    ann, _ = await held_one(house, clock)
    await house.runtime.access.disable(ann.id, True)
    await released(house, clock, clock.now() + 3 * HOUR)
    assert await states(ann.id) == [DeliveryState.CANCELLED]


async def test_of_two_states_that_were_held_at_once_the_newer_goes_out(
    house: House, clock: ShiftedClock
) -> None:
    """Neither knew of the other."""
    ann, now = await reached_by(house, PUSH, quiet=quiet(clock, PUSH)), clock.now()
    for n in (2, 1):
        await announce(announcer(house), state(ann.id, n, now, key=f"cart {n}"))
    rows = Delivery.get_pymongo_collection()
    await rows.update_many({"user_id": ann.id}, {"$set": {"thing": f"{ann.id} promotion cart"}})
    await released(house, clock, clock.now() + 3 * HOUR)
    by_event = {one.event: one.state for one in await deliveries(ann.id)}
    assert sorted(by_event.items()) == [
        ("urn:shop cart 1 1", DeliveryState.SUPERSEDED),
        ("urn:shop cart 2 2", READY),
    ]


async def test_who_wants_quiet_at_other_times_now_is_left_alone_then(
    house: House, clock: ShiftedClock
) -> None:
    ann, held = await held_one(house, clock)
    await switch(house, ann.id, quiet_hours=tuple(quiet(clock, PUSH, after=2 * HOUR)))
    await released(house, clock, clock.now() + 3 * HOUR)
    [now] = await deliveries(ann.id)
    assert (now.state, now.decision["reason"]) == (HELD, "QUIET_HOURS")
    assert held.due_at is not None
    assert now.due_at is not None
    assert now.due_at > held.due_at + HOUR
    assert now.forget_at is None
    await released(house, clock, now.due_at)
    assert await states(ann.id) == [READY]


async def test_for_somebody_who_is_gone_it_is_cancelled(house: House, clock: ShiftedClock) -> None:
    ann, _ = await held_one(house, clock)
    bob, _ = await held_one(house, clock)
    await User.find_one({"_id": PydanticObjectId(ann.id)}).delete()
    await released(house, clock, clock.now() + 3 * HOUR)
    assert (await states(ann.id), await states(bob.id)) == ([DeliveryState.CANCELLED], [READY])


async def test_a_newer_state_is_what_goes_out_after_quiet_hours(
    house: House, clock: ShiftedClock
) -> None:
    ann, now = await reached_by(house, PUSH, quiet=quiet(clock, PUSH)), clock.now()
    for n in (1, 2):
        await announce(announcer(house), state(ann.id, n, now))
    await released(house, clock, clock.now() + 3 * HOUR)
    assert await states(ann.id) == [DeliveryState.SUPERSEDED, READY]
    assert await spent(ann.id) == [("urn:shop cart 2", PUSH)]


class OneOfThem(Releasing):
    """A worker that takes one at a time, and not the one that the others take."""

    turn = 0

    def _due(self, now: datetime) -> AsyncIterable[Row]:
        return self._nth(now)

    async def _nth(self, now: datetime) -> AsyncIterator[Row]:
        rows = [row async for row in Held.due(now, 100)]
        if rows:
            yield rows[self.turn % len(rows)]


async def test_what_is_released_spends_and_the_rest_waits_for_room(
    house: House, clock: ShiftedClock
) -> None:
    """Of many for one user, who has no ledger yet, in the hands of as many workers."""
    ann = await reached_by(house, PUSH, quiet=quiet(clock, PUSH))
    for _ in range(12):
        await announce(announcer(house), offer(ann.id))
    runtime = house.runtime
    workers = [OneOfThem(runtime.store, runtime.texts, clock, runtime.settings) for _ in range(12)]
    for turn, worker in enumerate(workers):
        worker.turn = turn
    with clock.moved(3 * HOUR):
        now = clock.now()
        while sum(await asyncio.gather(*(worker.work() for worker in workers))):
            pass
    assert sorted(await states(ann.id)) == [HELD] * 10 + [READY] * 2
    for one in await deliveries(ann.id, state=HELD):
        assert one.due_at is not None
        assert one.decision["reason"] == "FREQUENCY_CAP"
        assert now + DAY <= one.due_at <= now + DAY + MINUTE
    first = {(one.event, PUSH) for one in await deliveries(ann.id, state=READY)}
    assert {*await spent(ann.id)} == first
    await released(house, clock, now + DAY + MINUTE)
    assert sorted(await states(ann.id)) == [HELD] * 8 + [READY] * 4
    both = {(one.event, PUSH) for one in await deliveries(ann.id, state=READY)}
    # The first two may count no more by now, to the millisecond.
    assert both - first <= {*await spent(ann.id)} <= both


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_worker_that_is_killed_leaves_each_to_be_released_once(
    house: House, clock: ShiftedClock, moment: str
) -> None:
    somebody = [await held_one(house, clock) for _ in range(3)]
    store = Elsewhere(house.runtime.store, **{moment: killed})
    with clock.moved(3 * HOUR):
        with pytest.raises(Killed):
            await releaser(house, store=store).work()
        assert await releaser(house).work() == 0
        with clock.moved(timedelta(seconds=house.runtime.settings.scheduled_lease_seconds)):
            assert await releaser(house).work() == (3 if moment == "before" else 0)
    for ann, held in somebody:
        assert await states(ann.id) == [READY]
        assert await spent(ann.id) == [(held.event, PUSH)]


async def test_what_a_worker_has_in_hand_may_be_superseded(
    house: House, clock: ShiftedClock
) -> None:
    ann, now = await reached_by(house, PUSH, quiet=quiet(clock, PUSH)), clock.now()
    await announce(announcer(house), state(ann.id, 1, now))
    newer = partial(announce, announcer(house), state(ann.id, 2, now))
    store = Elsewhere(house.runtime.store, before=newer)
    with clock.moved(3 * HOUR):
        assert await releaser(house, store=store).work() == 1
    assert await states(ann.id) == [DeliveryState.SUPERSEDED, READY]
    assert await spent(ann.id) == [("urn:shop cart 2", PUSH)]


async def test_one_that_can_not_be_released_is_put_off_and_holds_up_nothing(
    house: House, clock: ShiftedClock
) -> None:
    somebody = [await held_one(house, clock) for _ in range(3)]
    (ann, broken), *others = somebody
    for wrong in ({"type": "of a later version"}, {"decision.class": "of a later version"}):
        rows = Delivery.get_pymongo_collection()
        await rows.update_one({"_id": broken.id}, {"$set": wrong})
        await released(house, clock, clock.now() + 3 * HOUR)
        for other, _ in others:
            assert await states(other.id) == [READY]
        right = {"type": "promotion", "decision.class": "marketing"}
        await rows.update_one({"_id": broken.id}, {"$set": right})
    await released(house, clock, clock.now() + 4 * HOUR)
    assert await states(ann.id) == [READY]


async def test_what_is_over_the_cap_goes_out_in_one_digest(
    house: House, clock: ShiftedClock
) -> None:
    """With what is held for another cap, and without what is over by then."""
    ann = await reached_by(house, PUSH, EMAIL)
    announcing = announcer(house, **DIGEST)
    first, *drafts = [offer(ann.id) for _ in range(4)]
    short = offer(ann.id, expires_at=clock.now() + DAY + HOUR / 2)
    await announce(announcing, first, *drafts, short)
    held = await deliveries(ann.id, channel=PUSH, state=HELD)
    assert [one.event for one in held] == [one.event for one in (*drafts, short)]
    rows = Delivery.get_pymongo_collection()
    await rows.update_one({"_id": held[0].id}, {"$set": {"due_at": clock.now() + 7 * DAY}})
    await released(house, clock, clock.now() + DAY + HOUR, **DIGEST)
    by_event = {one.event: one for one in await deliveries(ann.id, channel=PUSH)}
    assert by_event.pop(first.event).state is READY
    assert by_event.pop(short.event).state is SUPPRESSED
    parts = [by_event.pop(one.event) for one in drafts]
    [(event, digest)] = by_event.items()
    assert {(one.state, one.digest) for one in parts} == {(DIGESTED, digest.id)}
    assert (digest.state, digest.title) == (READY, "3 things for you")
    assert digest.body == "- Sale\n- Sale\n- Sale"
    assert digest.content == {"titles": ["Sale"] * 3}
    assert digest.expires_at == max(one.expires_at for one in parts if one.expires_at)
    assert (event, PUSH) in await spent(ann.id)
    assert [unit for unit in await spent(ann.id) if unit[1] is PUSH] == [(event, PUSH)]
    admin = await house.somebody(Role.ADMIN)
    id = drafts[0].event.partition(" ")[2]
    [found] = (await admin.api.ask(WHY, event=id, user=ann.id))["explainEvent"]
    push = next(one for one in found["channels"] if one["channel"] == "WEB_PUSH")
    assert (push["outcome"], push["state"]) == ("SENT", "DIGESTED")


async def test_one_alone_makes_no_digest_and_a_digest_is_bounded(
    house: House, clock: ShiftedClock
) -> None:
    ann, bob = await reached_by(house, PUSH), await reached_by(house, PUSH)
    announcing = announcer(house, **DIGEST)
    await announce(
        announcing, *(offer(ann.id) for _ in range(2)), *(offer(bob.id) for _ in range(6))
    )
    await released(house, clock, clock.now() + DAY + HOUR, **DIGEST, digest_size=3)
    assert await states(ann.id) == [READY, READY]
    assert await states(bob.id) == [READY, *[DIGESTED] * 3, *[HELD] * 2, READY]


async def test_a_digest_is_in_its_readers_words(house: House, clock: ShiftedClock) -> None:
    ann = await house.somebody(preferences=Wishes(switched(PUSH)), locale="de-AT")
    await announce(announcer(house, **DIGEST), *(offer(ann.id) for _ in range(3)))
    await released(house, clock, clock.now() + DAY + HOUR, **DIGEST)
    assert (await deliveries(ann.id))[-1].title == "2 Neuigkeiten für Sie"


async def test_workers_release_by_themselves(house: House, clock: ShiftedClock) -> None:
    _, held = await held_one(house, clock)

    async def is_ready() -> bool:
        row = await Delivery.get(PydanticObjectId(held.id))
        return row is not None and row.state is READY

    working = asyncio.create_task(host.run(house.runtime, (host.NOTIFICATIONS,)))
    try:
        with clock.moved(3 * HOUR):
            await until(is_ready)
    finally:
        working.cancel()
        await asyncio.wait([working])


async def test_finding_what_is_due_reads_only_what_is_due(
    house: House, clock: ShiftedClock
) -> None:
    """Also where it seeks what else is held for the same cap."""
    ann = await reached_by(house, PUSH)
    await announce(announcer(house, **DIGEST), offer(ann.id), offer(ann.id))
    rows = Delivery.get_pymongo_collection()
    row = await rows.find_one({"user_id": ann.id, "state": "held"})
    assert row is not None
    del row["_id"]
    others = [
        row | {"event": uuid4().hex, "user_id": user_id, **fields}
        for _ in range(200)
        for user_id, fields in (
            (ann.id, {"state": "ready"}),
            (uuid4().hex, {"due_at": clock.now() + 30 * DAY}),
        )
    ]
    await rows.insert_many(others)
    database = house.runtime.store.database
    with clock.moved(2 * DAY):
        await database.command("profile", 2)
        assert await releaser(house, **DIGEST).work() == 1
        await database.command("profile", 0)
    profile = database["system.profile"].find({"ns": rows.full_name})
    asked = [one async for one in profile]
    await database["system.profile"].drop()
    assert len(asked) >= 5
    assert max(one.get("docsExamined", 0) for one in asked) == 1
