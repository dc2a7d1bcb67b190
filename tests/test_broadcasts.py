"""Broadcasts: each recipient once and every counter right, whoever dies, rests or overtakes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from beanie import PydanticObjectId
from pymongo import MongoClient
from pymongo.errors import ExecutionTimeout

from services.host import Runtime
from services.notifications.announcing import Announcing
from services.notifications.audience import read
from services.notifications.broadcasting import Broadcasting, Wish
from services.notifications.broadcasts import Broadcast, Chunk
from services.notifications.catalogue import Product
from services.notifications.drafts import Announcement, Draft
from services.notifications.fan_out import MOST_TRIES, FanOut
from services.notifications.membership import Search, members
from services.notifications.models import Notification
from services.notifications.recipients import Recipients
from services.notifications.templates import Words
from services.notifications.wording import Texts
from services.shared.bus import PartlyPublished
from services.shared.errors import BadInput, Unavailable
from services.shared.store import Row, Session, Store
from services.shared.vocabulary import BroadcastState, NotificationType
from services.shared.worker import when_back
from services.users.models import User
from services.users.preferences import TypeChange, Wishes
from services.users.recipients import Addressee, Named
from tests.crowds import (
    assert_all_served_once,
    counters,
    crowd,
    did,
    emptied,
    found,
    have,
    now,
    resting,
    run,
    start,
)
from tests.kit import ShiftedClock
from tests.servers import PrivateMongod

T = TypeVar("T")
CHUNK = 10
A_SECOND, A_MINUTE, A_DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
LEASE = timedelta(seconds=30)
NO_PROMOTIONS = Wishes(types=(TypeChange(NotificationType.PROMOTION, False, ()),))


@pytest.fixture(scope="module")
async def at_rest(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[Runtime]:
    lease = LEASE.total_seconds()
    async with resting(
        mongod.url, clock, fan_out_size=CHUNK, broadcast_lease_seconds=lease
    ) as runtime:
        yield runtime


@pytest.fixture
async def shop(at_rest: Runtime) -> Runtime:
    """One in which nothing happens by itself, whose chunks are small, and in which nobody is."""
    return await emptied(at_rest)


async def together(steps: Iterable[Callable[[], Awaitable[int]]]) -> list[int]:
    """One step of each worker at once, as their loops do it: a busy database is waited for."""
    return await asyncio.gather(*(when_back(step, "a busy database") for step in steps))


def worker(
    shop: Runtime,
    store: Store | None = None,
    announcing: Announcing | None = None,
) -> FanOut:
    return FanOut(
        store or shop.store, announcing or shop.announcing, shop.texts, shop.clock, shop.settings
    )


async def test_everybody_in_the_audience_gets_it_once_in_their_words_and_nobody_else(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 3 * CHUNK + 1, tags=["vip"])
    await crowd(clock, CHUNK)
    broadcast = await start(shop, {"tags": ["vip"]}, body="Nur heute")
    await run(shop)
    await assert_all_served_once(broadcast, ids)
    one = await Notification.find_one({"user_id": ids[0]})
    assert one is not None
    assert (one.type, one.title, one.body) == (NotificationType.PROMOTION, "Sale", "Nur heute")


async def test_one_for_nobody_is_done(shop: Runtime) -> None:
    broadcast = await start(shop, {"tags": ["nobody"]})
    await run(shop)
    assert await counters(broadcast) == (BroadcastState.DONE, 0, {})


async def test_who_registers_after_its_start_gets_none(shop: Runtime, clock: ShiftedClock) -> None:
    ids = await crowd(clock, CHUNK)
    broadcast = await start(shop)
    await crowd(clock, CHUNK, created_at=clock.now() + A_SECOND)
    with clock.moved(A_MINUTE):
        await run(shop)
    await assert_all_served_once(broadcast, ids)


async def test_what_they_did_counts_as_it_was_at_its_start(
    shop: Runtime, clock: ShiftedClock
) -> None:
    buyer, late = await crowd(clock, 2)
    await did(buyer, "purchase", "tent", clock.now() - A_DAY)
    broadcast = await start(shop, {"bought": {"withinDays": 7}})
    with clock.moved(30 * A_DAY):
        await did(late, "purchase", "tent", clock.now() - A_DAY)
        await run(shop)
    await assert_all_served_once(broadcast, [buyer])


async def test_what_they_choose_in_between_counts(shop: Runtime, clock: ShiftedClock) -> None:
    ids = await crowd(clock, CHUNK + 2)
    broadcast = await found(shop)
    await shop.choosing.update_preferences(ids[0], NO_PROMOTIONS, None)
    await User.get_pymongo_collection().update_one(
        {"_id": PydanticObjectId(ids[1])}, {"$set": {"disabled_at": clock.now()}}
    )
    await User.get_pymongo_collection().delete_one({"_id": PydanticObjectId(ids[2])})
    await run(shop)
    assert await have(broadcast) == sorted(ids[3:])
    counts = {"sent": CHUNK - 1, "suppressed": 3}
    assert await counters(broadcast) == (BroadcastState.DONE, CHUNK + 2, counts)


async def test_a_broadcast_that_has_expired_reaches_nobody_more(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 2 * CHUNK)
    broadcast = await found(shop, expires_at=clock.now() + A_DAY)
    await shop.fan_out.send()
    with clock.moved(A_DAY):
        await run(shop)
    assert set(await have(broadcast)) < set(ids)
    counts = {"sent": CHUNK, "suppressed": CHUNK}
    assert await counters(broadcast) == (BroadcastState.DONE, 2 * CHUNK, counts)


class Twin(Announcing):
    """The same, but for what is given."""

    def __init__(self, announcing: Announcing, **others: object) -> None:
        vars(self).update(vars(announcing) | others)


class Killed(BaseException):
    """The end of the process."""


async def killed() -> None:
    raise Killed


class Elsewhere(Store):
    """A store on which something happens just before its nth transaction, or just after it."""

    def __init__(
        self,
        store: Store,
        nth: int = 1,
        before: Callable[[], Awaitable[object]] | None = None,
        after: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._store = store
        self._nth = nth
        self._before = before
        self._after = after

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        self._nth -= 1
        if self._before and self._nth == 0:
            await self._before()
        result = await self._store.transact(work)
        if self._after and self._nth == 0:
            await self._after()
        return result


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", [1, 2], ids=["handed out", "counted"])
async def test_a_worker_that_is_killed_leaves_its_chunk_to_be_done_and_counted_once(
    shop: Runtime, clock: ShiftedClock, step: int, moment: str
) -> None:
    ids = await crowd(clock, 2 * CHUNK)
    broadcast = await found(shop)
    with pytest.raises(Killed):
        await worker(shop, Elsewhere(shop.store, step, **{moment: killed})).send()
    await run(shop)
    with clock.moved(LEASE):
        await run(shop)
    await assert_all_served_once(broadcast, ids)


async def test_a_worker_that_is_killed_in_the_middle_of_a_chunk_leaves_it_to_be_done_once(
    shop: Runtime, clock: ShiftedClock
) -> None:
    """Large enough for several transactions, of which one is over."""
    settings = shop.settings.model_copy(update={"fan_out_size": 200})
    ids = await crowd(clock, 200)
    broadcast = await start(shop, body="€" * 5000)
    await Recipients(shop.store, clock, settings).find()
    dying = Twin(shop.announcing, _store=Elsewhere(shop.store, after=killed))
    with pytest.raises(Killed):
        await worker(shop, announcing=dying).send()
    assert 0 < len(await have(broadcast)) < len(ids)
    assert (await counters(broadcast))[2] == {}
    with clock.moved(LEASE):
        await run(shop)
    await assert_all_served_once(broadcast, ids)


async def test_one_that_is_overtaken_with_its_chunk_in_hand_does_not_count_it_too(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, CHUNK)
    broadcast = await found(shop)

    async def overtaken() -> None:
        with clock.moved(LEASE):
            assert await worker(shop).send() == 1

    await worker(shop, Elsewhere(shop.store, 2, before=overtaken)).send()
    await assert_all_served_once(broadcast, ids)


async def test_what_one_worker_has_in_hand_no_other_takes_until_the_lease_is_over(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await crowd(clock, CHUNK)
    await found(shop)

    async def others() -> None:
        assert await worker(shop).send() == 0
        with clock.moved(LEASE - A_SECOND):
            assert await worker(shop).send() == 0

    assert await worker(shop, Elsewhere(shop.store, 2, before=others)).send() == 1


async def test_workers_share_the_chunks_and_do_each_once(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 12 * CHUNK)
    broadcast = await found(shop)
    workers = [worker(shop) for _ in range(4)]
    done: Counter[int] = Counter()
    while any(served := await together(one.send for one in workers)):
        done.update(dict(enumerate(served)))
    assert len(+done) > 1
    await assert_all_served_once(broadcast, ids)


async def test_workers_share_the_finding_and_count_each_once(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 12 * CHUNK + 1)
    broadcast = await start(shop)
    looked_behind: list[str | None] = []

    async def counting(search: Search, after: str | None, size: int) -> Any:
        answer = await members(search, after, size)
        looked_behind.append(after)
        return answer

    finders = [Recipients(shop.store, clock, shop.settings, counting) for _ in range(4)]
    while any(await together(one.find for one in finders)):
        pass
    assert (await now(broadcast)).recipients == len(ids)
    waiting = [id async for chunk in Chunk.find_all() for id in chunk.user_ids]
    assert sorted(waiting) == sorted(ids)
    assert looked_behind == [None, *ids[CHUNK - 1 :: CHUNK]]


async def test_one_that_is_overtaken_while_it_finds_does_not_count_what_it_found_too(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 2 * CHUNK)
    broadcast = await start(shop)

    async def overtaken() -> None:
        with clock.moved(LEASE):
            assert await Recipients(shop.store, clock, shop.settings).find() == 1

    await Recipients(Elsewhere(shop.store, before=overtaken), clock, shop.settings).find()
    with clock.moved(LEASE):
        await run(shop)
    await assert_all_served_once(broadcast, ids)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_worker_that_is_killed_while_it_finds_leaves_each_to_be_found_once(
    shop: Runtime, clock: ShiftedClock, moment: str
) -> None:
    ids = await crowd(clock, 3 * CHUNK)
    broadcast = await start(shop)
    dying = Recipients(Elsewhere(shop.store, 2, **{moment: killed}), clock, shop.settings)
    await dying.find()
    with pytest.raises(Killed):
        await dying.find()
    assert (await now(broadcast)).recipients is None
    with clock.moved(LEASE):
        await run(shop)
    await assert_all_served_once(broadcast, ids)


async def test_a_database_that_is_too_slow_for_a_part_is_asked_for_less(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 2 * CHUNK)
    broadcast = await start(shop)

    asked: list[int] = []

    async def slow(search: Search, after: str | None, size: int) -> Any:
        asked.append(size)
        if size > 3:
            raise ExecutionTimeout("too much at once")
        return await members(search, after, size)

    for turn in range(30):
        with clock.moved(turn * A_MINUTE):
            await Recipients(shop.store, clock, shop.settings, slow).find()
    assert (await now(broadcast)).recipients == len(ids)
    assert asked[:3] == [CHUNK, CHUNK // 2, CHUNK // 4]


class SlowStore(Store):
    """A store that is too slow for large parts."""

    def __init__(self, store: Store, most: int) -> None:
        self._store = store
        self._most = most

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        async def slow(session: Session) -> T:
            result = await work(session)
            chunks = await Chunk.find_all(session=session).to_list()
            if max((len(one.user_ids) for one in chunks), default=0) > self._most:
                raise ExecutionTimeout("too much at once")
            return result

        return await self._store.transact(slow)


async def test_a_database_that_is_too_slow_to_keep_a_part_is_given_less(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 2 * CHUNK)
    broadcast = await start(shop)
    for turn in range(30):
        with clock.moved(turn * A_MINUTE):
            await Recipients(SlowStore(shop.store, 3), clock, shop.settings).find()
    assert (await now(broadcast)).recipients == len(ids)


async def test_an_audience_that_can_never_be_found_holds_up_no_other_and_is_ended_by_cancel(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 3 * CHUNK, tags=["vip"])
    poison, other = await start(shop), await start(shop, {"tags": ["vip"]})

    async def poisoned(search: Search, after: str | None, size: int) -> Any:
        if search.audience.tags is None:
            raise ExecutionTimeout("whatever is asked")
        return await members(search, after, size)

    finder = Recipients(shop.store, clock, shop.settings, poisoned)
    async with asyncio.timeout(10):
        while await finder.find():
            pass
        assert (await now(other)).recipients == len(ids)
        with clock.moved(A_MINUTE):
            await finder.find()
        assert (await now(poison)).recipients is None
        await shop.broadcasting.cancel(str(poison.id))
        await run(shop)
    assert not (await now(poison)).is_open
    await assert_all_served_once(other, ids)


async def test_a_part_is_not_listed_twice_by_one_who_looked_before_it_was_found(
    shop: Runtime, clock: ShiftedClock
) -> None:
    """The checkpoint tells, where all happens in the same millisecond."""
    ids = await crowd(clock, 3 * CHUNK)
    first, second = await start(shop, {"tags": ["nobody"]}), await start(shop)
    others = Recipients(shop.store, clock, shop.settings)

    async def overtaken(search: Search, after: str | None, size: int) -> Any:
        if search.audience.tags and after is None:
            await others.find()
        return await members(search, after, size)

    with clock.stopped():
        now_ = {"$set": {"plan_at": clock.now()}}
        await Broadcast.get_pymongo_collection().update_many({}, now_)
        await Recipients(shop.store, clock, shop.settings, overtaken).find()
        await run(shop)
    assert (await now(first)).recipients == 0
    await assert_all_served_once(second, ids)


async def test_the_products_of_categories_are_read_once_for_all_parts(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 3 * CHUNK)
    tent = {"id": "tent", "name": "Tent", "category": "Camping", "changed_at": clock.now()}
    await Product(**tent).insert()
    for id in ids:
        await did(id, "purchase", "tent", clock.now() - A_DAY)
    broadcast = await start(shop, {"bought": {"withinDays": 7, "categories": ["Camping"]}})
    finder = Recipients(shop.store, clock, shop.settings)
    await finder.find()
    await Product.find_all().delete()
    while await finder.find():
        pass
    assert (await now(broadcast)).recipients == len(ids)


async def test_categories_with_too_many_products_are_refused(
    shop: Runtime, clock: ShiftedClock
) -> None:
    for id in ("tent", "poles"):
        row = {"id": id, "name": id, "category": "Camping", "changed_at": clock.now()}
        await Product(**row).insert()
    strict = shop.settings.model_copy(update={"max_audience_products": 1})
    broadcasting = Broadcasting(clock, strict)
    wanted = read({"viewed": {"withinDays": 7, "categories": ["Camping"]}}, "input")
    with pytest.raises(BadInput) as refusal:
        await broadcasting.dry_run(wanted)
    assert refusal.value.field == "input.viewed.categories"
    with pytest.raises(BadInput) as refusal:
        await broadcasting.create(Wish("Sale", "All of it", wanted), "urn:test")
    assert refusal.value.field == "input.audience.viewed.categories"
    assert await Broadcast.find_all().count() == 0


async def test_a_paused_one_hands_out_nothing_and_goes_on_where_it_was(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 5 * CHUNK)
    broadcast = await found(shop)
    await shop.fan_out.send()
    assert (await shop.broadcasting.pause(str(broadcast.id))).state is BroadcastState.PAUSED
    await run(shop)
    assert await counters(broadcast) == (BroadcastState.PAUSED, len(ids), {"sent": CHUNK})
    assert (await shop.broadcasting.pause(str(broadcast.id))).state is BroadcastState.PAUSED
    assert (await shop.broadcasting.resume(str(broadcast.id))).state is BroadcastState.RUNNING
    await run(shop)
    await assert_all_served_once(broadcast, ids)
    for late in (shop.broadcasting.pause, shop.broadcasting.resume, shop.broadcasting.cancel):
        assert (await late(str(broadcast.id))).state is BroadcastState.DONE


async def test_a_cancelled_one_hands_out_nothing_for_good_and_its_chunks_are_put_away(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 5 * CHUNK)
    broadcast = await found(shop)
    await shop.fan_out.send()
    cancelled = await shop.broadcasting.cancel(str(broadcast.id))
    assert cancelled.state is BroadcastState.CANCELLED
    assert (await shop.broadcasting.resume(str(broadcast.id))).state is BroadcastState.CANCELLED
    await run(shop)
    assert await counters(broadcast) == (BroadcastState.CANCELLED, len(ids), {"sent": CHUNK})
    assert len(await have(broadcast)) == CHUNK
    assert await Chunk.find_all().count() == 0
    assert not (await now(broadcast)).is_open


async def test_one_that_is_cancelled_while_its_recipients_are_found_has_no_more(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await crowd(clock, 5 * CHUNK)
    broadcast = await start(shop)

    async def cancel() -> None:
        await shop.broadcasting.cancel(str(broadcast.id))
        await shop.recipients.find()

    await Recipients(Elsewhere(shop.store, before=cancel), clock, shop.settings).find()
    await run(shop)
    assert await Chunk.find_all().count() == 0
    assert await have(broadcast) == []


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_nothing_is_handed_out_after_the_answer_to_a_pause_or_a_cancel(
    shop: Runtime, clock: ShiftedClock, verb: str
) -> None:
    await crowd(clock, 2 * CHUNK)
    broadcast = await found(shop)

    async def stop() -> None:
        await getattr(shop.broadcasting, verb)(str(broadcast.id))

    await worker(shop, Elsewhere(shop.store, 1, before=stop)).send()
    assert await have(broadcast) == []


class Looked(FanOut):
    """A worker that is told to stop between its look at the broadcast and its claim of a chunk."""

    verb: Callable[[], Awaitable[object]]
    stopping: asyncio.Future[object] | None = None
    was_answered = True

    async def _claim(self, chunk: Chunk, *rest: Any) -> Chunk | None:
        if self.stopping is None:
            self.stopping = asyncio.ensure_future(self.verb())
            await asyncio.sleep(0.2)
            self.was_answered = self.stopping.done()
        return await super()._claim(chunk, *rest)


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_stop_that_meets_the_handing_out_is_answered_behind_it(
    shop: Runtime, clock: ShiftedClock, verb: str
) -> None:
    """So that of the two it is plain which was first."""
    await crowd(clock, 3 * CHUNK)
    broadcast = await found(shop)
    meeting = Looked(shop.store, shop.announcing, shop.texts, clock, shop.settings)
    meeting.verb = lambda: getattr(shop.broadcasting, verb)(str(broadcast.id))
    await meeting.send()
    assert meeting.stopping is not None
    await meeting.stopping
    assert not meeting.was_answered
    await run(shop)
    assert len(await have(broadcast)) == CHUNK


async def test_what_is_in_hand_when_it_is_cancelled_is_counted_whoever_finishes_it(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await crowd(clock, 3 * CHUNK)
    broadcast = await found(shop)
    with pytest.raises(Killed):
        await worker(shop, Elsewhere(shop.store, 2, before=killed)).send()
    await shop.broadcasting.cancel(str(broadcast.id))
    await run(shop)
    assert (await now(broadcast)).is_open
    with clock.moved(LEASE):
        await run(shop)
    counts = {"sent": CHUNK}
    assert await counters(broadcast) == (BroadcastState.CANCELLED, 3 * CHUNK, counts)
    assert len(await have(broadcast)) == CHUNK
    assert not (await now(broadcast)).is_open


async def test_a_rate_holds_for_all_workers_together(shop: Runtime, clock: ShiftedClock) -> None:
    ids = await crowd(clock, 2 * CHUNK)
    broadcast = await found(shop, per_second=5)
    workers = [worker(shop) for _ in range(3)]

    async def sent_now() -> int:
        for _ in range(2):
            await together(one.send for one in workers)
        return len(await have(broadcast))

    tick = timedelta(seconds=shop.settings.scheduler_tick_seconds)
    with clock.stopped():
        assert await sent_now() == 5
        with clock.moved(A_SECOND - tick - timedelta(milliseconds=1)):
            assert await sent_now() == 5
        with clock.moved(A_SECOND):
            assert await sent_now() == 10
        with clock.moved(A_MINUTE):
            assert await sent_now() == 15  # a rest is not made up for
        with clock.moved(A_MINUTE + A_SECOND):
            assert await sent_now() == 20
    await assert_all_served_once(broadcast, ids)


async def test_a_look_that_is_late_makes_no_broadcast_slower_than_its_rate(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await crowd(clock, 10)
    broadcast = await found(shop, per_second=1)
    late = timedelta(seconds=shop.settings.scheduler_tick_seconds / 2)
    with clock.stopped():
        for second in range(10):
            with clock.moved(second * A_SECOND + (late if second % 2 else 2 * late)):
                assert await shop.fan_out.send() == 1, second
    assert len(await have(broadcast)) == 10


class Faulty(Twin):
    """One that can't serve one user."""

    bad = ""

    async def announce(
        self, drafts: Sequence[Draft], recipients: Mapping[str, Addressee]
    ) -> Sequence[Announcement]:
        if self.bad in {draft.user_id for draft in drafts}:
            raise RuntimeError("a fault of ours")
        return await super().announce(drafts, recipients)


class Slow(Twin):
    """One that raises this where there are more than so many at once."""

    error: Exception
    most = 0

    async def announce(
        self, drafts: Sequence[Draft], recipients: Mapping[str, Addressee]
    ) -> Sequence[Announcement]:
        if len(drafts) > self.most:
            raise self.error
        return await super().announce(drafts, recipients)


async def test_one_who_can_not_be_served_holds_up_nobody_and_is_tried_again(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, CHUNK + 3)
    broadcast = await found(shop)
    faulty = Faulty(shop.announcing, bad=ids[-2])
    one = worker(shop, announcing=faulty)
    while await one.send():
        pass
    others = sorted({*ids} - {ids[-2]})
    assert await have(broadcast) == others
    counts = {"sent": len(others)}
    assert await counters(broadcast) == (BroadcastState.RUNNING, len(ids), counts)
    faulty.bad = ""
    with clock.moved(A_MINUTE):
        await one.send()
    await assert_all_served_once(broadcast, ids)


async def test_who_can_never_be_served_is_counted_as_failed_in_the_end(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 3)
    broadcast = await found(shop)
    faulty = Faulty(shop.announcing, bad=ids[1])
    for tried in range(MOST_TRIES):
        assert (await now(broadcast)).state is BroadcastState.RUNNING
        with clock.moved(tried * A_MINUTE):
            await worker(shop, announcing=faulty).send()
    counts = {"sent": 2, "failed": 1}
    assert await counters(broadcast) == (BroadcastState.DONE, 3, counts)


@pytest.mark.parametrize(
    "error", [ExecutionTimeout("whatever is asked"), Unavailable("the broker is away")]
)
async def test_a_chunk_that_can_not_be_served_now_is_given_back_and_holds_up_no_other(
    shop: Runtime, clock: ShiftedClock, error: Exception
) -> None:
    ids = await crowd(clock, CHUNK)
    broadcast, other = await found(shop), await found(shop, body="The other one")

    class Poisoned(Twin):
        async def announce(
            self, drafts: Sequence[Draft], recipients: Mapping[str, Addressee]
        ) -> Sequence[Announcement]:
            if drafts[0].text.body == broadcast.body:
                raise error
            return await super().announce(drafts, recipients)

    async with asyncio.timeout(10):
        assert await worker(shop, announcing=Poisoned(shop.announcing)).send() == 1
    assert await have(other) == sorted(ids)
    assert await run_until_rest(shop, clock) == 1
    assert await have(broadcast) == sorted(ids)


async def run_until_rest(shop: Runtime, clock: ShiftedClock) -> int:
    """What is given back is served when it has rested, by whom it may be; how many chunks."""
    assert await shop.fan_out.send() == 0
    with clock.moved(A_MINUTE):
        return await shop.fan_out.send()


@pytest.mark.parametrize("most", [1, 3])
async def test_a_broker_that_is_too_slow_for_a_chunk_gets_less_at_once(
    shop: Runtime, clock: ShiftedClock, most: int
) -> None:
    ids = await crowd(clock, CHUNK)
    broadcast = await found(shop)
    partly = PartlyPublished("too slow, says the test", frozenset())
    slow = Slow(shop.announcing, error=partly, most=most)
    async with asyncio.timeout(10):
        assert await worker(shop, announcing=slow).send() == 1
    await assert_all_served_once(broadcast, ids)


async def test_a_worker_that_dies_leaves_nothing_to_go_out_while_it_is_paused(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, CHUNK)
    broadcast = await found(shop)
    with pytest.raises(Killed):
        await worker(shop, Elsewhere(shop.store, 1, after=killed)).send()
    await shop.broadcasting.pause(str(broadcast.id))
    with clock.moved(LEASE):
        await run(shop)
        assert await have(broadcast) == []
        await shop.broadcasting.resume(str(broadcast.id))
        await run(shop)
    await assert_all_served_once(broadcast, ids)


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "after a pause"])
async def test_a_worker_that_dies_leaves_nothing_to_go_out_when_it_is_cancelled(
    shop: Runtime, clock: ShiftedClock, pause: bool
) -> None:
    """Some were served before it died, and they alone are counted."""
    settings = shop.settings.model_copy(update={"fan_out_size": 200})
    await crowd(clock, 200)
    broadcast = await start(shop, body="€" * 5000)
    finder = Recipients(shop.store, clock, settings)
    while await finder.find():
        pass
    dying = Twin(shop.announcing, _store=Elsewhere(shop.store, after=killed))
    with pytest.raises(Killed):
        await worker(shop, announcing=dying).send()
    served = await have(broadcast)
    with clock.moved(LEASE):
        if pause:
            await shop.broadcasting.pause(str(broadcast.id))
            await run(shop)
        await shop.broadcasting.cancel(str(broadcast.id))
        await run(shop)
    assert await have(broadcast) == served
    counts = {"sent": len(served)}
    assert 0 < len(served) < 200
    assert await counters(broadcast) == (BroadcastState.CANCELLED, 200, counts)
    assert not (await now(broadcast)).is_open


async def test_a_chunk_of_a_dead_worker_keeps_to_the_rate(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await crowd(clock, 10)
    broadcast = await found(shop, per_second=5)
    with clock.stopped():
        with pytest.raises(Killed):
            await worker(shop, Elsewhere(shop.store, 1, after=killed)).send()
        with clock.moved(LEASE):
            for _ in range(3):
                await shop.fan_out.send()
            assert len(await have(broadcast)) == 5


@pytest.mark.parametrize("change", [{"title": 5}, {"per_second": "many"}])
async def test_a_broadcast_that_can_not_be_read_holds_up_no_other(
    shop: Runtime, clock: ShiftedClock, change: dict[str, Any]
) -> None:
    """A later version may have written it. This one looks at it again in a minute."""
    ids = await crowd(clock, CHUNK)
    strange, found_, other = await start(shop), await found(shop), await start(shop)
    rows = Broadcast.get_pymongo_collection()
    for one in (strange, found_):
        await rows.update_one({"_id": one.id}, {"$set": change})
    await run(shop)
    assert await counters(other) == (BroadcastState.DONE, len(ids), {"sent": len(ids)})
    assert not await Broadcast.to_plan(clock.now())
    assert not await Broadcast.to_send(clock.now())
    whole = {"$set": {"title": "Sale"}, "$unset": {"per_second": ""}}
    await rows.update_many({}, whole)
    with clock.moved(A_MINUTE):
        await run(shop)
    await assert_all_served_once(found_, ids)


async def test_a_chunk_that_can_not_be_read_holds_up_no_other(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 2 * CHUNK)
    broadcast = await found(shop)
    rows = Chunk.get_pymongo_collection()
    await rows.update_one({"user_ids": ids[0]}, {"$set": {"user_ids": 5}})
    assert await shop.fan_out.send() == 0
    await run(shop)
    assert await have(broadcast) == sorted(ids[CHUNK:])
    with clock.moved(A_MINUTE):
        await shop.fan_out.send()
    await rows.update_one({"user_ids": 5}, {"$set": {"user_ids": ids[:CHUNK]}})
    with clock.moved(2 * A_MINUTE):
        await run(shop)
    await assert_all_served_once(broadcast, ids)


class Chosen(Texts):
    """Texts in whose wording somebody's wish is stored."""

    def __init__(self, texts: Texts, meanwhile: Callable[[], object]) -> None:
        vars(self).update(vars(texts))
        self._meanwhile = meanwhile

    def words(self, user: Named) -> Words:
        self._meanwhile()
        return super().words(user)


async def test_who_switches_them_off_while_they_are_worded_gets_none(
    shop: Runtime, clock: ShiftedClock, mongod: PrivateMongod
) -> None:
    ids = await crowd(clock, CHUNK)
    broadcast = await found(shop)
    with MongoClient[Row](mongod.url) as client:
        users = client[shop.settings.mongodb_database][User.get_collection_name()]

        def choose() -> None:
            who = {"_id": PydanticObjectId(ids[0])}
            users.update_one(who, {"$set": {"choices.promotion.enabled": False}})
            users.delete_one({"_id": PydanticObjectId(ids[1])})

        texts = Chosen(shop.texts, choose)
        await FanOut(shop.store, shop.announcing, texts, clock, shop.settings).send()
        assert await have(broadcast) == sorted(ids[2:])
        counts = {"sent": CHUNK - 2, "suppressed": 2}
        assert await counters(broadcast) == (BroadcastState.DONE, CHUNK, counts)


async def test_an_audience_that_can_not_be_read_reaches_nobody_and_holds_up_no_other(
    shop: Runtime, clock: ShiftedClock
) -> None:
    """A later version may have written it: what it left out would be for more people."""
    ids = await crowd(clock, CHUNK)
    broadcast, other = await start(shop), await start(shop)
    unknown = {"$set": {"audience": {"shoeSize": 42}}}
    await Broadcast.get_pymongo_collection().update_one({"_id": broadcast.id}, unknown)
    await run(shop)
    assert await have(broadcast) == []
    await assert_all_served_once(other, ids)
