"""What goes out on other channels: decided with the app, stored once, and never beyond a cap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from bson import ObjectId
from msgspec import structs

from services.notifications.caps import Allowance
from services.notifications.deliveries import Delivery
from services.notifications.drafts import Asked
from services.notifications.ledgers import CapLedger
from services.notifications.models import Notification
from services.notifications.plan import Plan
from services.notifications.scheduled import ScheduledNotification
from services.notifications.traces import Trace
from services.shared.errors import BadInput
from services.shared.store import PART_BYTES
from services.shared.vocabulary import (
    Channel,
    DeliveryState,
    NotificationType,
    Outcome,
    OverCap,
    Role,
    ScheduledState,
)
from services.shared.worker import when_back
from services.users.models import User
from services.users.preferences import ChannelChange, TypeChange, Wishes
from tests.kit import Elsewhere, House, ShiftedClock, Somebody, open_house, quick_settings
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
from tests.servers import PrivateMongod

PUSH, EMAIL, WEBHOOK, IN_APP = Channel.WEB_PUSH, Channel.EMAIL, Channel.WEBHOOK, Channel.IN_APP
READY, HELD = DeliveryState.READY, DeliveryState.HELD
SUPERSEDED = DeliveryState.SUPERSEDED
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CHANNELS = "channels { channel outcome reason until state }"
CREATE = f"""mutation($input: CreateNotificationInput!) {{ createNotification(input: $input) {{
    notification {{ id }} decision {{ outcome reason }} {CHANNELS} }} }}"""
EXPLAIN = f"query($id: ID!) {{ explain(notificationId: $id) {{ outcome {CHANNELS} }} }}"
DECISIONS = f"{{ decisions {{ edges {{ node {{ outcome reason {CHANNELS} }} }} }} }}"
EVENT = f"""query($event: ID!, $user: ID!) {{
    explainEvent(eventId: $event, userId: $user) {{ outcome {CHANNELS} }} }}"""
DRY_RUN = """query($user: ID!, $channel: Channel!) {
    decideDryRun(userId: $user, type: PROMOTION, channel: $channel) {
      outcome reason until steps { rule spoke words } } }"""


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    """In which nothing happens by itself, and many may ask the database at once."""
    settings = quick_settings(mongod.url, mongodb_connections=40)
    async with open_house(settings, clock, workers=()) as house:
        yield house


@pytest.fixture(scope="module")
async def admin(house: House) -> Somebody:
    return await house.somebody(Role.ADMIN)


async def ask_for(admin: Somebody, user_id: str, **fields: Any) -> Any:
    """What createNotification answers about a promotion."""
    fields = {"userId": user_id, "type": "PROMOTION", "content": "Hello"} | fields
    return (await admin.api.ask(CREATE, input=fields))["createNotification"]


def decided(channel: str, outcome: str, reason: str, **fields: Any) -> dict[str, Any]:
    """A ChannelDecision as GraphQL shows it."""
    shown = {"channel": channel, "outcome": outcome, "reason": reason}
    return shown | {"until": None, "state": None} | fields


SENT_BY_MAIL = decided("EMAIL", "SENT", "ACCEPTED", state="READY")


async def test_what_is_on_gets_a_delivery_that_says_all(house: House, admin: Somebody) -> None:
    ann = await reached_by(house, EMAIL)
    answer = await ask_for(admin, ann.id, title="Sale", content={"body": "Half", "url": "/sale"})
    assert answer["decision"] == {"outcome": "SENT", "reason": "ACCEPTED"}
    assert answer["channels"] == [SENT_BY_MAIL]
    [one] = await deliveries(ann.id)
    assert (one.channel, one.state, one.type) == (EMAIL, READY, NotificationType.PROMOTION)
    assert (one.title, one.body, one.content) == ("Sale", "Half", {"body": "Half", "url": "/sale"})
    assert (one.decision["class"], one.decision["channel"]) == ("marketing", "email")
    stored = await Notification.get(ObjectId(answer["notification"]["id"]))
    assert stored is not None
    assert (one.event, one.expires_at) == (stored.event, stored.expires_at)
    memory = timedelta(seconds=house.runtime.settings.delivery_memory_seconds)
    assert one.forget_at == one.decision["at"] + memory
    explained = await ann.api.ask(EXPLAIN, id=answer["notification"]["id"])
    assert explained["explain"]["channels"] == [SENT_BY_MAIL]


async def test_who_has_no_other_channel_costs_nothing_more(house: House) -> None:
    """Neither a row, nor a question: a promotion to a million users is no dearer for the caps."""
    somebody = [await house.somebody() for _ in range(3)]
    database = house.runtime.store.database
    await database.command("profile", 2)
    await announce(announcer(house), *(offer(one.id) for one in somebody))
    await database.command("profile", 0)
    asked = {one["ns"].partition(".")[2] async for one in database["system.profile"].find({})}
    await database["system.profile"].drop()
    assert asked.isdisjoint({"deliveries", "cap_ledgers"})
    for one in somebody:
        row = await Notification.find_one({"user_id": one.id})
        assert row is not None
        assert row.decision is not None
        assert "channels" not in row.decision


async def test_what_the_app_does_not_get_may_go_out_elsewhere_and_once(
    house: House, admin: Somebody
) -> None:
    ann = await reached_by(house, EMAIL, off=[IN_APP])
    key = uuid4().hex
    first = await ask_for(admin, ann.id, dedupKey=key)
    assert first["notification"] is None
    assert first["decision"] == {"outcome": "SUPPRESSED", "reason": "CHANNEL_OFF"}
    assert first["channels"] == [SENT_BY_MAIL]
    again = await ask_for(admin, ann.id, dedupKey=key)
    assert again["channels"] == [decided("EMAIL", "DUPLICATE", "SAME_EVENT")]
    assert await states(ann.id) == [READY]
    assert len(await spent(ann.id)) == 1
    [missed] = (await ann.api.ask(DECISIONS))["decisions"]["edges"]
    assert missed["node"]["channels"] == [SENT_BY_MAIL]


async def test_what_was_scheduled_and_goes_out_elsewhere_alone_is_sent(
    house: House, clock: ShiftedClock
) -> None:
    for channel, becomes in ((EMAIL, ScheduledState.SENT), (None, ScheduledState.SUPPRESSED)):
        ann = await reached_by(house, *filter(None, [channel]), off=[IN_APP])
        asked = Asked(ann.id, NotificationType.PROMOTION, "Later")
        plan = Plan(asked, at=clock.now() + HOUR)
        _, scheduled = await house.runtime.scheduling.schedule(plan, "urn:test")
        with clock.moved(HOUR):
            await house.runtime.firing.work()
        ended = await ScheduledNotification.get(scheduled.id)
        assert ended is not None
        assert ended.state is becomes


async def test_what_is_critical_goes_out_wherever_the_user_is_reached(house: House) -> None:
    """Past caps and quiet hours; on a channel that is on for nothing nobody is reached."""
    changes = tuple(ChannelChange(channel, False) for channel in (EMAIL, PUSH))
    off = TypeChange(NotificationType.ORDER_UPDATE, None, changes)
    ann = await house.somebody(preferences=Wishes((*switched(EMAIL), off)))
    bob = await house.somebody(preferences=Wishes((off,)))
    order = {"type": NotificationType.ORDER_UPDATE}
    for somebody in (ann, bob):
        for status in ("paid", "payment_failed"):
            draft = offer(somebody.id, f"urn:shop {status}", status=status, **order)
            await announce(announcer(house), draft)
    [one] = await deliveries(ann.id)
    assert (one.channel, one.event) == (EMAIL, "urn:shop payment_failed")
    assert one.decision["reason"] == "CRITICAL"
    assert await deliveries(bob.id) == []
    assert await spent(ann.id) == []


async def test_what_is_critical_goes_out_though_a_newer_state_was_told(house: House) -> None:
    ann = await reached_by(house, EMAIL)
    now = house.runtime.clock.now()
    failed = structs.replace(
        state(ann.id, 1, now), type=NotificationType.ORDER_UPDATE, status="payment_failed"
    )
    packed = structs.replace(
        state(ann.id, 2, now), type=NotificationType.ORDER_UPDATE, status="packed"
    )
    await announce(announcer(house), failed)
    await announce(announcer(house), packed)
    by_event = {one.event: one.state for one in await deliveries(ann.id, channel=EMAIL)}
    assert by_event == {failed.event: READY, packed.event: READY}


async def test_a_newer_state_takes_the_place_of_what_waits_and_what_it_had_spent(
    house: House, admin: Somebody
) -> None:
    ann = await reached_by(house, EMAIL, PUSH)
    now = house.runtime.clock.now()
    announcing = announcer(house, cap_web_push=1, over_cap=OverCap.DROP)
    for n in (1, 2):
        [told] = await announce(announcing, state(ann.id, n, now))
        assert {one.outcome for one in told.channels.values()} == {Outcome.SENT}
    events = ["urn:shop cart 1"] * 2 + ["urn:shop cart 2"] * 2
    assert [(one.event, one.state) for one in await deliveries(ann.id)] == list(
        zip(events, [SUPERSEDED, SUPERSEDED, READY, READY], strict=True)
    )
    assert await spent(ann.id) == [("urn:shop cart 2", EMAIL), ("urn:shop cart 2", PUSH)]
    [late] = await announce(announcing, state(ann.id, 0, now))
    assert (late.decision.outcome, late.channels) == (Outcome.SUPERSEDED, {})
    assert len(await deliveries(ann.id)) == 4
    [other] = await announce(announcing, offer(ann.id))
    assert other.channels[PUSH].outcome is Outcome.SUPPRESSED
    explained = (await admin.api.ask(EVENT, event="1", user=ann.id))["explainEvent"]
    assert explained == []
    found = (await admin.api.ask(EVENT, event="cart 1", user=ann.id))["explainEvent"]
    assert {one["state"] for one in found[0]["channels"]} == {"SUPERSEDED"}


async def test_states_of_one_batch_become_one_delivery(house: House) -> None:
    ann, now = await reached_by(house, EMAIL), house.runtime.clock.now()
    await announce(announcer(house), *(state(ann.id, n, now) for n in (2, 1, 3)))
    assert [(one.event, one.state) for one in await deliveries(ann.id)] == [
        ("urn:shop cart 2", SUPERSEDED),
        ("urn:shop cart 3", READY),
    ]
    assert await spent(ann.id) == [("urn:shop cart 3", EMAIL)]


async def test_without_the_app_an_older_state_does_not_follow_a_newer_one(house: House) -> None:
    ann = await reached_by(house, EMAIL, off=[IN_APP])
    now = house.runtime.clock.now()
    await announce(announcer(house), state(ann.id, 2, now))
    [late] = await announce(announcer(house), state(ann.id, 1, now))
    assert late.channels[EMAIL].outcome is Outcome.SUPERSEDED
    [newer] = await announce(announcer(house), state(ann.id, 3, now))
    assert newer.channels[EMAIL].outcome is Outcome.SENT
    assert await states(ann.id) == [SUPERSEDED, READY]


async def test_a_channel_that_was_switched_off_keeps_no_older_state(house: House) -> None:
    ann, now = await reached_by(house, EMAIL), house.runtime.clock.now()
    await announce(announcer(house), state(ann.id, 1, now))
    await switch(house, ann.id, *switched(off=[EMAIL]))
    await announce(announcer(house), state(ann.id, 2, now))
    assert await states(ann.id) == [SUPERSEDED]
    assert await spent(ann.id) == []


@pytest.mark.parametrize("end", ["failed", "cancel"])
async def test_what_does_not_go_out_is_given_back_once(house: House, end: str) -> None:
    ann = await reached_by(house, PUSH)
    announcing = announcer(house, cap_web_push=1, over_cap=OverCap.DROP)
    await announce(announcing, offer(ann.id))
    [one] = await deliveries(ann.id)
    assert one.id is not None
    verb = getattr(house.runtime.delivering, end)
    assert [await verb(one.id), await verb(one.id), await verb(ObjectId())] == [True, False, False]
    becomes = DeliveryState.FAILED if end == "failed" else DeliveryState.CANCELLED
    assert await states(ann.id) == [becomes]
    assert await spent(ann.id) == []
    for _ in range(2):
        await announce(announcing, offer(ann.id))
    assert await states(ann.id) == [becomes, READY]


async def test_what_is_held_can_be_cancelled_and_has_not_failed(house: House) -> None:
    ann = await reached_by(house, PUSH)
    announcing = announcer(house, cap_web_push=1)
    await announce(announcing, offer(ann.id), offer(ann.id))
    ready, held = await deliveries(ann.id)
    assert held.id is not None
    assert not await house.runtime.delivering.failed(held.id)
    assert await house.runtime.delivering.cancel(held.id)
    assert await states(ann.id) == [READY, DeliveryState.CANCELLED]
    assert await spent(ann.id) == [(ready.event, PUSH)]


@pytest.mark.parametrize(
    ("over", "outcome"),
    [
        (OverCap.DROP, Outcome.SUPPRESSED),
        (OverCap.DEFER, Outcome.HELD),
        (OverCap.DIGEST, Outcome.HELD),
    ],
)
async def test_what_is_over_the_cap_is_dropped_or_held_until_there_is_room(
    house: House, clock: ShiftedClock, over: OverCap, outcome: Outcome
) -> None:
    ann = await reached_by(house, PUSH, EMAIL)
    announcing = announcer(house, over_cap=over, cap_web_push=1)
    with clock.stopped():
        first, second = await announce(announcing, offer(ann.id), offer(ann.id))
        now = clock.now()
    assert first.channels[PUSH].outcome is Outcome.SENT
    found = second.channels[PUSH]
    until = now + DAY if outcome is Outcome.HELD else None
    assert (found.outcome, found.reason, found.until) == (outcome, "FREQUENCY_CAP", until)
    assert second.channels[EMAIL].outcome is Outcome.SENT
    held = await deliveries(ann.id, state=HELD)
    assert [one.due_at for one in held] == ([until] if until else [])
    assert second.notification is not None
    explained = (await ann.api.ask(EXPLAIN, id=str(second.notification.id)))["explain"]
    state_, shown = ("HELD", until.isoformat()) if until else (None, None)
    push = decided("WEB_PUSH", outcome.name, "FREQUENCY_CAP", until=shown, state=state_)
    assert explained["channels"] == [SENT_BY_MAIL, push]
    assert len(await spent(ann.id)) == 3


async def test_a_dry_run_knows_what_was_spent(house: House, admin: Somebody) -> None:
    ann = await reached_by(house, PUSH, EMAIL)
    await announce(announcer(house), offer(ann.id), offer(ann.id), offer(ann.id))
    push = (await admin.api.ask(DRY_RUN, user=ann.id, channel="WEB_PUSH"))["decideDryRun"]
    assert (push["outcome"], push["reason"]) == ("HELD", "FREQUENCY_CAP")
    assert push["until"] is not None
    step = push["steps"][-1]
    assert (step["rule"], step["spoke"]) == ("FREQUENCY", True)
    assert step["words"].startswith("You got enough advertising for now: more may come from 2")
    app = (await admin.api.ask(DRY_RUN, user=ann.id, channel="IN_APP"))["decideDryRun"]
    assert (app["outcome"], app["reason"]) == ("SENT", "ACCEPTED")
    assert not await deliveries(ann.id, state=DeliveryState.SUPPRESSED)


async def at_once(*doing: Callable[[], Awaitable[object]]) -> None:
    """As workers do it: again, when they have met too many others."""
    await asyncio.gather(*(when_back(one, "the others") for one in doing))


async def test_of_many_at_one_instant_as_many_go_out_as_may(house: House) -> None:
    ann = await reached_by(house, PUSH, EMAIL)
    await at_once(*(partial(announce, announcer(house), offer(ann.id)) for _ in range(32)))
    ready = await deliveries(ann.id, state=READY)
    assert sorted(one.channel for one in ready) == [EMAIL, EMAIL, PUSH, PUSH]
    assert len(await deliveries(ann.id)) == 64
    assert len(await spent(ann.id)) == 4


async def test_one_event_in_many_hands_spends_once(house: House) -> None:
    for off in ([], [IN_APP]):
        ann = await reached_by(house, PUSH, off=off)
        same = [offer(ann.id) for _ in range(2)]
        await at_once(*(partial(announce, announcer(house), *same) for _ in range(8)))
        await at_once(*(partial(announce, announcer(house), *same) for _ in range(2)))
        assert await states(ann.id) == [READY, READY]
        assert sorted(await spent(ann.id)) == sorted((one.event, PUSH) for one in same)


class Skewed:
    """A clock that shows what it is given, and is a few milliseconds off."""

    def __init__(self, off: timedelta) -> None:
        self.time = datetime(2027, 1, 1, tzinfo=UTC)
        self._off = off

    def now(self) -> datetime:
        return self.time + self._off


@pytest.mark.parametrize("seed", [1, 2])
async def test_in_no_window_a_cap_is_exceeded_by_32_workers(house: House, seed: int) -> None:
    """Announcing and releasing, over ten days, with clocks that differ."""
    chance = random.Random(seed)
    users = [(await reached_by(house, PUSH, EMAIL, WEBHOOK)).id for _ in range(3)]
    clocks = [Skewed(timedelta(milliseconds=chance.randint(-20, 20))) for _ in range(32)]
    quick: dict[str, Any] = {"cap_email_seconds": 2 * 86_400}
    workers = [announcer(house, clock, **quick) for clock in clocks[:28]]
    releasers = [releaser(house, clock, **quick) for clock in clocks[28:]]
    for _ in range(6):
        step = timedelta(hours=chance.choice([0, 1, 7, 23, 24, 25]))
        for clock in clocks:
            clock.time += step + timedelta(milliseconds=chance.randint(0, 5))
        announcing = [partial(announce, worker, offer(chance.choice(users))) for worker in workers]
        await at_once(*announcing, *(releaser.work for releaser in releasers))
    allowance = Allowance.of(house.runtime.settings.model_copy(update=quick))
    for user_id in users:
        ready = await deliveries(user_id, state=READY)
        assert len(ready) >= 8
        for cap in allowance.caps:
            stamps = sorted(one.decision["at"] for one in ready if one.channel in cap.channels)
            for earlier, later in zip(stamps, stamps[cap.most :], strict=False):
                assert later - earlier >= cap.window
        ledger = await CapLedger.get(user_id)
        assert ledger is not None
        assert len(ledger.spent) <= sum(cap.most for cap in allowance.caps)


async def test_a_ledger_forgets_what_no_longer_counts(house: House, clock: ShiftedClock) -> None:
    ann = await reached_by(house, PUSH, EMAIL)
    await announce(announcer(house), offer(ann.id))
    with clock.moved(2 * DAY):
        last = offer(ann.id)
        await announce(announcer(house), last)
    with clock.moved(8 * DAY):
        await announce(announcer(house), newest := offer(ann.id))
        now = clock.now()
    assert await spent(ann.id) == [
        (one.event, channel) for one, channel in ((last, EMAIL), (newest, EMAIL), (newest, PUSH))
    ]
    ledger = await CapLedger.get(ann.id)
    assert ledger is not None
    assert now + 7 * DAY < ledger.forget_at < now + 15 * DAY


async def test_a_transaction_is_bounded_though_each_channel_repeats_the_content(
    house: House,
) -> None:
    ann = await reached_by(house, PUSH, EMAIL, WEBHOOK)
    user = await User.by_id(ann.id)
    assert user is not None
    count = 0

    async def counted() -> None:
        nonlocal count
        count += 1

    drafts = [offer(ann.id, content="x" * 50_000) for _ in range(24)]
    store = Elsewhere(house.runtime.store, after=counted)
    await announcer(house, store=store).announce(drafts, {ann.id: user})
    assert count >= sum(4 * one.size for one in drafts) / PART_BYTES
    assert count < len(drafts)


async def test_what_is_asked_finds_its_rows_by_an_index(house: House) -> None:
    ann, now = await reached_by(house, EMAIL), house.runtime.clock.now()
    await announce(announcer(house), state(ann.id, 1, now))
    row = await Delivery.get_pymongo_collection().find_one({"user_id": ann.id})
    assert row is not None
    del row["_id"]
    others = [
        row | {"event": f"urn:shop {n}", "user_id": user_id, "state": state_}
        for n in range(200)
        for user_id, state_ in ((ann.id, "superseded"), (str(ObjectId()), "ready"))
    ]
    await Delivery.get_pymongo_collection().insert_many(others)
    database = house.runtime.store.database
    await database.command("profile", 2)
    await announce(announcer(house), state(ann.id, 2, now))
    await database.command("profile", 0)
    profile = database["system.profile"].find({"ns": f"{database.name}.deliveries"})
    asked = [one async for one in profile]
    await database["system.profile"].drop()
    assert asked
    assert max(one.get("docsExamined", 0) for one in asked) <= 1


async def test_a_channel_that_no_sender_collects_costs_no_row(house: House) -> None:
    ann = await reached_by(house, EMAIL, PUSH)
    [told] = await announce(announcer(house, delivery_channels=(PUSH,)), offer(ann.id))
    assert set(told.channels) == {PUSH}
    assert [one.channel for one in await deliveries(ann.id)] == [PUSH]
    left_out = announcer(house, delivery_channels=(PUSH,)).dry_run(
        ann.id, NotificationType.PROMOTION, EMAIL, None
    )
    with pytest.raises(BadInput, match="DELIVERY_CHANNELS"):
        await left_out


async def test_what_was_sent_comes_again_to_who_refuses_it_by_now(house: House) -> None:
    """It is what it was: neither refused now, nor sent on a channel that was switched on since."""
    ann = await reached_by(house)
    draft = offer(ann.id)
    [first] = await announce(announcer(house), draft)
    await switch(house, ann.id, *switched(PUSH, off=[IN_APP]))
    [again] = await announce(announcer(house), draft)
    assert again.decision.outcome is Outcome.DUPLICATE
    assert first.row is not None
    assert again.row is not None
    assert again.row["_id"] == first.row["_id"]
    assert await Trace.find({"user_id": ann.id}).count() == 0
    assert await deliveries(ann.id) == []
    [other] = await announce(announcer(house), offer(ann.id))
    assert other.decision.outcome is Outcome.SUPPRESSED
    assert len(await deliveries(ann.id)) == 1
