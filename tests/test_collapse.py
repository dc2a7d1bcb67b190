"""Several states of one thing are one notification, which shows the newest: in any order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations
from uuid import uuid4

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from services.notifications.announcing import Announcing
from services.notifications.collapse import Collapse, Rank, later
from services.notifications.drafts import Announcement, Draft
from services.notifications.states import States
from services.notifications.templates import Text
from services.shared.events import Event, OrderStatusChanged
from services.shared.store import PART_BYTES
from services.shared.vocabulary import NotificationType, Outcome, Role
from services.users.models import User
from tests.kit import Elsewhere, House, Stream, open_house, quick_settings
from tests.notices import NODE, Wire, create, customer, nodes, page, refused, unread_count, wired
from tests.other_channels import announcer
from tests.servers import PrivateMongod, until

KEPT = 3
ADDED = f"""subscription($after: String) {{
    notificationAdded(after: $after) {{ cursor node {{ {NODE} revision }} }} }}"""
CHANGED = "subscription { notificationChanged { kind unreadCount notification { id title } } }"
FORMER = "query($id: ID!) { notificationRevisions(id: $id) { revision title body content } }"
DECISIONS = "{ decisions { edges { node { outcome reason title } } } }"
EXPLAIN = """query($event: ID!, $user: ID!) {
    explainEvent(eventId: $event, userId: $user) { outcome reason notificationId } }"""
READ = "mutation($id: ID!) { markNotificationRead(id: $id) { read } }"
ARCHIVE = "mutation($id: ID!) { archiveNotification(id: $id) { archived } }"
READ_ALL = "mutation($upTo: String) { markAllNotificationsRead(upTo: $upTo) { marked } }"


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, revisions_kept=KEPT)) as house:
        yield house


@pytest.fixture
async def bob(house: House) -> AsyncIterator[Wire]:
    async with wired(await customer(house)) as bob:
        yield bob


def status(user: Wire, order: str, name: str, at: datetime, version: int | None = None) -> Event:
    """An order's status, as a shop publishes it straight to the broker."""
    moved = OrderStatusChanged(order_id=order, user_id=user.id, status=name, version=version)
    return Event.of(moved, time=at, source="urn:shop")


async def publish(house: House, events: Sequence[Event], last: Wire) -> None:
    """And wait until they are handled: so is what was published for `last` behind them."""
    mark = uuid4().hex
    await house.runtime.bus.publish(events)
    await house.runtime.bus.publish([status(last, mark, mark, house.runtime.clock.now())])

    async def arrived() -> bool:
        newest = await nodes(last, first=1)
        return [node["content"]["orderId"] for node in newest] == [mark]

    await until(arrived)


@pytest.mark.parametrize("has_versions", [True, False], ids=["by version", "by time"])
@pytest.mark.parametrize("at_once", [True, False], ids=["in a batch", "one by one"])
async def test_in_any_order_of_arrival_the_newest_state_is_shown(
    house: House, ann: Wire, bob: Wire, has_versions: bool, at_once: bool
) -> None:
    now = house.runtime.clock.now() - timedelta(minutes=1)
    orders = {str(n): order for n, order in enumerate(permutations(range(4)))}
    rounds = [
        [
            status(ann, name, f"state {order[turn]}", now, version=order[turn])
            if has_versions
            else status(ann, name, f"state {order[turn]}", now + timedelta(seconds=order[turn]))
            for name, order in orders.items()
        ]
        for turn in range(4)
    ]
    if at_once:
        rounds = [[event for events in rounds for event in events]]
    for events in rounds:
        await publish(house, events, bob)
    shown = await nodes(ann, first=100)
    assert sorted(node["content"]["orderId"] for node in shown) == sorted(orders)
    assert {node["content"]["status"] for node in shown} == {"state 3"}
    assert await unread_count(ann) == len(orders)


versions = st.none() | st.integers(-(2**63), 2**63 - 1)
ranks = st.builds(Rank.of, versions, st.datetimes(), st.text(max_size=3))


@given(ranks, ranks, ranks)
def test_states_have_one_order(one: Rank, other: Rank, third: Rank) -> None:
    assert (one < other) + (other < one) + (one == other) == 1
    assert not (one < other < third) or one < third


def test_a_state_is_newer_by_version_and_then_by_time() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    order = [
        Rank.of(None, early, "a"),
        Rank.of(None, late, "a"),
        Rank.of(0, early, "a"),
        Rank.of(1, early, "a"),
        Rank.of(1, late, "a"),
        Rank.of(1, late, "b"),
    ]
    assert sorted(order) == order


@pytest.mark.parametrize("ahead", [-5, 0, 5])
def test_what_moves_to_the_top_is_behind_its_old_place_whatever_clocks_say(ahead: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    sent_at = now + timedelta(milliseconds=ahead)
    assert later(now, sent_at) == max(now, sent_at + timedelta(milliseconds=1))


async def test_a_newer_state_comes_to_the_top_and_is_unread_again(backend: Wire, ann: Wire) -> None:
    first = (await create(backend, ann.id, "one", collapseKey="cart"))["notification"]
    other = (await create(backend, ann.id, "other"))["notification"]
    await ann.ask(READ, id=first["id"])
    await ann.ask(ARCHIVE, id=first["id"])
    answer = await create(backend, ann.id, "two", collapseKey="cart")
    assert (answer["decision"]["outcome"], answer["notification"]["id"]) == ("SENT", first["id"])
    shown = await nodes(ann)
    assert [node["id"] for node in shown] == [first["id"], other["id"]]
    assert (shown[0]["body"], shown[0]["read"], shown[0]["readAt"]) == ("two", False, None)
    assert await unread_count(ann) == 2


async def test_a_quiet_revision_leaves_it_read_and_archived(backend: Wire, ann: Wire) -> None:
    first = (await create(backend, ann.id, "one", collapseKey="cart"))["notification"]
    await ann.ask(READ, id=first["id"])
    await create(backend, ann.id, "two", collapseKey="cart", unreadAgain=False)
    [shown] = await nodes(ann)
    assert (shown["body"], shown["read"]) == ("two", True)
    assert (await ann.ask("{ unseenCount }"))["unseenCount"] == 0
    await ann.ask(ARCHIVE, id=first["id"])
    await create(backend, ann.id, "three", collapseKey="cart", unreadAgain=False)
    assert await nodes(ann) == []
    assert [node["body"] for node in await nodes(ann, archived=True)] == ["three"]


async def test_an_older_state_is_superseded_and_never_seen(
    house: House, backend: Wire, ann: Wire
) -> None:
    key = uuid4().hex
    newest = (await create(backend, ann.id, "two", collapseKey="cart", version=2))["notification"]
    answer = await create(backend, ann.id, "one", collapseKey="cart", version=1, dedupKey=key)
    assert answer["decision"] == {"outcome": "SUPERSEDED", "reason": "NEWER_STATE", "until": None}
    assert answer["notification"]["id"] == newest["id"]
    assert [node["body"] for node in await nodes(ann)] == ["two"]
    assert (await ann.ask(FORMER, id=newest["id"]))["notificationRevisions"] == []
    [missed] = (await ann.ask(DECISIONS))["decisions"]["edges"][:1]
    assert missed["node"]["outcome"] == "SUPERSEDED"


async def test_the_last_states_are_kept(house: House, backend: Wire, ann: Wire, bob: Wire) -> None:
    for n in range(KEPT + 3):
        sent = await create(backend, ann.id, {"n": n}, title=f"No. {n}", collapseKey="cart")
    id = sent["notification"]["id"]
    kept = (await ann.ask(FORMER, id=id))["notificationRevisions"]
    assert [one["revision"] for one in kept] == [5, 4, 3]
    assert [(one["title"], one["content"]) for one in kept] == [
        (f"No. {n}", {"n": n}) for n in (4, 3, 2)
    ]
    assert (await bob.ask(FORMER, id=id))["notificationRevisions"] == []


async def test_the_same_key_of_another_user_or_type_is_another_thing(
    house: House, backend: Wire
) -> None:
    ids = set()
    for _ in range(2):
        user = await house.somebody()
        for type_ in ("ORDER_UPDATE", "PROMOTION"):
            made = await create(backend, user.id, "Hello", type=type_, collapseKey="cart")
            ids.add(made["notification"]["id"])
    assert len(ids) == 4


async def test_an_event_of_a_former_state_that_comes_again_changes_nothing(
    house: House, ann: Wire, bob: Wire
) -> None:
    """Neither time nor version tell that it is older: its own time is that of its coming."""
    now = house.runtime.clock.now()
    paid = status(ann, "7", "paid", now)
    shipped = status(ann, "7", "shipped", now + timedelta(seconds=1))
    await publish(house, [paid], bob)
    await publish(house, [shipped], bob)
    later = Event.of(paid.data, time=now + timedelta(hours=1), id=paid.id, source=paid.source)
    await publish(house, [later], bob)
    [shown] = await nodes(ann)
    assert shown["content"]["status"] == "shipped"
    async with wired(await house.somebody(Role.ADMIN)) as admin:
        for event in (paid, shipped):
            [found] = (await admin.ask(EXPLAIN, event=event.id, user=ann.id))["explainEvent"]
            assert (found["outcome"], found["notificationId"]) == ("SENT", shown["id"])


@pytest.mark.parametrize("revisions", [1, KEPT, KEPT + 3])
async def test_a_dedup_key_is_known_however_often_its_state_was_revised(
    backend: Wire, ann: Wire, revisions: int
) -> None:
    key = uuid4().hex
    first = await create(backend, ann.id, "one", collapseKey="cart", dedupKey=key)
    for n in range(revisions):
        await create(backend, ann.id, f"newer {n}", collapseKey="cart")
    for fields in ({"collapseKey": "cart"}, {}):
        again = await create(backend, ann.id, "one", dedupKey=key, **fields)
        assert again["decision"]["outcome"] == "DUPLICATE"
        assert again["notification"]["id"] == first["notification"]["id"]
    error = await refused(create(backend, ann.id, "other", collapseKey="cart", dedupKey=key))
    assert error.code == "CONFLICT"
    assert [node["body"] for node in await nodes(ann)] == [f"newer {revisions - 1}"]


async def test_states_of_one_millisecond_have_the_order_that_is_stored(
    house: House, ann: Wire, bob: Wire
) -> None:
    """MongoDB keeps milliseconds: what is compared may not be finer."""
    at = house.runtime.clock.now()
    later, sooner = (
        status(ann, "7", name, at + timedelta(microseconds=n))
        for name, n in (("later", 900), ("sooner", 100))
    )
    later, sooner = (
        Event.of(event.data, time=event.time, id=id, source=event.source)
        for event, id in ((later, "b"), (sooner, "a"))
    )
    await publish(house, [later], bob)
    await publish(house, [sooner], bob)
    [shown] = await nodes(ann)
    assert shown["content"]["status"] == "later"


async def test_a_status_of_a_time_to_come_holds_up_none(house: House, ann: Wire, bob: Wire) -> None:
    now = house.runtime.clock.now()
    await publish(house, [status(ann, "7", "lost in time", now + timedelta(days=3000))], bob)
    await publish(house, [status(ann, "7", "paid", house.runtime.clock.now())], bob)
    [shown] = await nodes(ann)
    assert shown["content"]["status"] == "paid"


async def test_one_event_that_comes_again_is_not_told_as_a_change_again(
    house: House, backend: Wire, ann: Wire, bob: Wire
) -> None:
    now = house.runtime.clock.now()
    paid = status(ann, "7", "paid", now - timedelta(seconds=1))
    shipped = status(ann, "7", "shipped", now)
    async with ann.somebody.api.follow(CHANGED) as changed, ann.somebody.api.follow(ADDED) as added:
        await until(partial(both_are_open, backend, ann, added))
        await publish(house, [paid], bob)
        for _ in range(3):
            await publish(house, [shipped], bob)
        id = (await nodes(ann, first=1))[0]["id"]
        await ann.ask(READ, id=id)
        told = [(await changed.next())["notificationChanged"]["kind"] for _ in range(2)]
    assert told == ["REVISED", "READ"]


async def test_who_reads_or_archives_what_was_shown_leaves_a_newer_one(
    backend: Wire, ann: Wire
) -> None:
    document = """mutation($id: ID!, $shown: Int) {
        read: markNotificationRead(id: $id, revision: $shown) { read archived revision }
        archived: archiveNotification(id: $id, revision: $shown) { read archived revision } }"""
    first = await create(backend, ann.id, "one", collapseKey="cart")
    await create(backend, ann.id, "two", collapseKey="cart")
    id = first["notification"]["id"]
    for shown, is_so in ((1, False), (2, True)):
        answer = await ann.ask(document, id=id, shown=shown)
        assert answer["archived"] == {"read": is_so, "archived": is_so, "revision": 2}


async def test_open_screens_are_told_of_a_revision(backend: Wire, ann: Wire) -> None:
    api = ann.somebody.api
    async with api.follow(ADDED) as added, api.follow(CHANGED) as changed:
        await until(partial(both_are_open, backend, ann, added))
        first = await create(backend, ann.id, "one", title="1", collapseKey="cart")
        await create(backend, ann.id, "two", title="2", collapseKey="cart")
        id = first["notification"]["id"]
        seen = [(await added.next())["notificationAdded"]["node"] for _ in range(2)]
        assert [(one["id"], one["body"], one["revision"]) for one in seen] == [
            (id, "one", 1),
            (id, "two", 2),
        ]
        told = (await changed.next())["notificationChanged"]
        assert (told["kind"], told["notification"]["title"]) == ("REVISED", "2")


async def both_are_open(backend: Wire, ann: Wire, added: Stream) -> bool:
    await create(backend, ann.id, "Are you there?")
    await added.next()
    return True


async def test_who_comes_back_sees_the_last_state_once(
    house: House, backend: Wire, ann: Wire
) -> None:
    """Also while all of it is within the write window."""
    api = ann.somebody.api
    sent = await create(backend, ann.id, "one", collapseKey="cart")
    await create(backend, ann.id, "between")
    cursor = (await page(ann))["pageInfo"]["startCursor"]
    await create(backend, ann.id, "two", collapseKey="cart")
    await create(backend, ann.id, "three", collapseKey="cart")
    await create(backend, ann.id, "last")
    async with api.follow(ADDED, after=cursor) as stream:
        edges = [(await stream.next())["notificationAdded"] for _ in range(2)]
    assert [edge["node"]["body"] for edge in edges] == ["three", "last"]
    assert edges[0]["node"]["id"] == sent["notification"]["id"]
    async with api.follow(ADDED, after=edges[-1]["cursor"]) as stream:
        await create(backend, ann.id, "four", collapseKey="cart")
        assert (await stream.next())["notificationAdded"]["node"]["body"] == "four"


async def test_mark_all_leaves_unread_what_was_revised_since(backend: Wire, ann: Wire) -> None:
    await create(backend, ann.id, "one", collapseKey="cart")
    await create(backend, ann.id, "other")
    cursor = (await page(ann))["pageInfo"]["startCursor"]
    await create(backend, ann.id, "two", collapseKey="cart")
    assert (await ann.ask(READ_ALL, upTo=cursor))["markAllNotificationsRead"]["marked"] == 1
    assert [node["body"] for node in await nodes(ann, unreadOnly=True)] == ["two"]


async def test_what_is_revised_while_all_is_marked_stays_unread(
    house: House, backend: Wire, ann: Wire
) -> None:
    await create(backend, ann.id, "one", collapseKey="cart")
    await create(backend, ann.id, "other")
    revise = partial(create, backend, ann.id, "two", collapseKey="cart")
    runtime = house.runtime
    store = Elsewhere(runtime.store, before=revise)
    states = States(store, runtime.outbox, runtime.clock, runtime.settings)
    assert await states.mark_all_read(ann.id, None) == 1
    assert [node["body"] for node in await nodes(ann, unreadOnly=True)] == ["two"]


async def test_many_workers_that_tell_of_one_thing_leave_its_newest_state(
    house: House, ann: Wire
) -> None:
    """Each state once, by whom it may: none is lost, none is told over a newer one."""
    runtime = house.runtime
    user = await User.by_id(ann.id)
    assert user is not None
    workers = [
        Announcing(runtime.store, runtime.outbox, runtime.bus, runtime.clock, runtime.settings)
        for _ in range(8)
    ]
    shuffled = random.Random(5).sample(range(40), 40)

    async def tell(worker: Announcing, numbers: Sequence[int]) -> list[Announcement]:
        return [
            announcement
            for n in numbers
            for announcement in await worker.announce([state(ann.id, n)], {ann.id: user})
        ]

    parts = [tell(worker, shuffled[n::8]) for n, worker in enumerate(workers)]
    told = [one for part in await asyncio.gather(*parts) for one in part]
    [shown] = await nodes(ann)
    assert shown["body"] == "39"
    outcomes = [one.decision.outcome for one in told]
    assert set(outcomes) == {Outcome.SENT, Outcome.SUPERSEDED}
    revision = (
        await ann.ask("query($id: ID!) { notification(id: $id) { revision } }", id=shown["id"])
    )["notification"]["revision"]
    assert revision == outcomes.count(Outcome.SENT)


async def test_what_revises_too_much_for_one_transaction_takes_several(
    house: House, ann: Wire
) -> None:
    runtime, commits = house.runtime, 0
    user = await User.by_id(ann.id)
    assert user is not None

    async def count() -> None:
        nonlocal commits
        commits += 1

    worker = announcer(house, store=Elsewhere(runtime.store, after=count))
    carts = 2 * PART_BYTES // 50_000
    for text in ("x" * 50_000, "short"):
        commits = 0
        drafts = [state(ann.id, len(text) == 5, f"cart {n}", text) for n in range(carts)]
        told = await worker.announce(drafts, {ann.id: user})
        assert {one.decision.outcome for one in told} == {Outcome.SENT}
    assert commits > 1
    assert {node["body"] for node in await nodes(ann, first=100)} == {"short"}


def state(user_id: str, n: int, thing: str = "cart", text: str | None = None) -> Draft:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    event = f"urn:shop {thing} {n}"
    collapse = Collapse(thing, Rank.of(n, at, event))
    body = text or str(n)
    return Draft(
        user_id, event, NotificationType.ORDER_UPDATE, Text("Cart", body), body, collapse=collapse
    )


async def test_a_key_or_version_that_says_nothing_is_refused(backend: Wire, ann: Wire) -> None:
    for fields, field in (
        ({"collapseKey": ""}, "input.collapseKey"),
        ({"collapseKey": "x" * 201}, "input.collapseKey"),
        ({"version": 1}, "input.version"),
        ({"unreadAgain": False}, "input.unreadAgain"),
    ):
        error = await refused(create(backend, ann.id, **fields))
        assert (error.code, error.field) == ("BAD_USER_INPUT", field)


async def test_another_notification_has_no_former_states(ann: Wire) -> None:
    for id in (str(ObjectId()), "nonsense"):
        assert (await ann.ask(FORMER, id=id))["notificationRevisions"] == []
