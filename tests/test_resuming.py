"""What a subscription can't make up for it says, and what it can it makes up for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import monitoring

from gateway.hints import Hints, Page
from gateway.live import Live
from gateway.news import News
from gateway.settling import Settling
from gateway.told import Told
from services.notifications.cursor import Cursor, Position, Seen, to_milliseconds
from services.notifications.models import Notification
from services.shared.clock import SystemClock
from services.shared.events import Event, NotificationChanged, NotificationCreated
from services.shared.store import PART_BYTES
from services.shared.vocabulary import ChangeKind, NotificationType
from tests.kit import House, ShiftedClock, open_house, quick_settings
from tests.notices import READ, READ_ALL, Wire, ago, page, refused, row, store, told
from tests.servers import PrivateMongod, until
from tests.test_live import ADDED, CHANGED, UNREAD, answered, following, ids, sent

LIMIT, REMEMBERED, MOST_IDS, ROOM, AT_ONCE = 20, 60, 5, 4, 3
MANY = 40  # subscriptions


class Watch(monitoring.CommandListener):
    """How many questions about users' notifications the database is asked, and at once, at most."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count anew. A question that was given up may never be said to have ended."""
        self.most = self.asked = 0
        self._running: set[int] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        of_all = "user_id" not in event.command.get("filter", {"user_id": "of an aggregate"})
        if of_all:  # as the workers ask all the time
            return
        if "notifications" in (event.command.get("find"), event.command.get("aggregate")):
            self.asked += 1
            self._running.add(event.request_id)
            self.most = max(self.most, len(self._running))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._running.discard(event.request_id)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._running.discard(event.request_id)


@pytest.fixture(scope="module")
def watch() -> Watch:
    made = Watch()
    monitoring.register(made)
    return made


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, watch: Watch) -> AsyncIterator[House]:
    """`watch` must be there before: it hears of the clients that are made later."""
    settings = quick_settings(
        mongod.url,
        resume_limit=LIMIT,
        changes_remembered=REMEMBERED,
        max_cursor_ids=MOST_IDS,
        reader_queue_size=ROOM,
        reads_at_once=AT_ONCE,
    )
    async with open_house(settings) as house:
        yield house


async def first_cursor(ann: Wire) -> str:
    await store([row(ann.id, ago(5000))])
    cursor: str = (await page(ann))["pageInfo"]["startCursor"]
    return cursor


async def test_as_many_as_may_be_missed_are_made_up_for(ann: Wire) -> None:
    cursor = await first_cursor(ann)
    missed = await store(row(ann.id, ago(1000 - n)) for n in range(LIMIT))
    async with following(ann, ADDED, after=cursor) as stream:
        assert await ids(stream, LIMIT) == missed


async def test_with_one_more_the_client_is_told_to_read_anew_and_then_misses_nothing(
    backend: Wire, ann: Wire
) -> None:
    cursor = await first_cursor(ann)
    await store(row(ann.id, ago(1000 - n)) for n in range(LIMIT + 1))
    async with following(ann, ADDED, after=cursor) as stream:
        error = await refused(stream.next())
    assert error.code == "RESYNC"
    anew = (await page(ann))["pageInfo"]["startCursor"]
    new = await sent(backend, ann)
    async with following(ann, ADDED, after=anew) as stream:
        assert await ids(stream, 1) == [new]


async def test_a_cursor_of_a_time_to_come_is_not_waited_for(ann: Wire) -> None:
    at = to_milliseconds(SystemClock().now() + timedelta(hours=1))
    cursor = Cursor(at, ObjectId().binary, at).encode()
    async with following(ann, ADDED, after=cursor) as stream:
        assert (await refused(stream.next())).code == "RESYNC"


async def test_a_cursor_of_a_clients_own_making_does_not_fill_our_memory(ann: Wire) -> None:
    at = to_milliseconds(SystemClock().now())
    all_seen = tuple(Seen(ObjectId().binary, 0) for _ in range(2 * MOST_IDS + 1))
    for seen, is_resumed in ((all_seen[1:], True), (all_seen, False)):
        cursor = Cursor(at, ObjectId().binary, at, seen).encode()
        async with following(ann, ADDED, after=cursor) as stream:
            if is_resumed:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await stream.next()
            else:
                assert (await refused(stream.next())).code == "RESYNC"


async def test_in_a_flood_a_pages_cursors_stay_short_and_say_that_they_do_not_resume(
    backend: Wire, ann: Wire
) -> None:
    now = SystemClock().now()
    stamps = [now - timedelta(seconds=n / 100) for n in range(4 * MOST_IDS)]
    stored = await store(row(ann.id, stamp) for stamp in stamps)
    edges = (await page(ann))["edges"]
    assert max(len(edge["cursor"]) for edge in edges) < 20 * (MOST_IDS + 3)
    async with following(ann, ADDED, after=edges[0]["cursor"]) as stream:
        assert (await refused(stream.next())).code == "RESYNC"
    second = await page(ann, first=3, after=edges[1]["cursor"])
    assert [edge["node"]["id"] for edge in second["edges"]] == stored[2:5]


async def change(stream: Any) -> tuple[str, str]:
    told = (await stream.next())["notificationChanged"]
    return told["kind"], told["notification"]["id"]


async def test_changes_that_a_gap_has_swallowed_are_told_after_it(
    house: House, backend: Wire, ann: Wire
) -> None:
    first, second = [await sent(backend, ann) for _ in range(2)]
    async with following(ann, CHANGED) as stream:
        await ann.ask(READ, id=first)
        assert await change(stream) == ("READ", first)
        await swallow(second)
        await house.runtime.bus.publish([nothing_new(ann)] * (ROOM + 1))
        assert await change(stream) == ("READ", second)
        await swallow(first)
        await house.runtime.bus.publish([nothing_new(ann)] * (ROOM + 1))
        assert await change(stream) == ("READ", first)


async def test_a_gap_after_many_changes_that_were_all_told_is_no_reason_to_read_anew(
    house: House, ann: Wire
) -> None:
    await store(row(ann.id, ago(1000 - n)) for n in range(2 * LIMIT))
    last = (await store([row(ann.id, ago(1))]))[0]
    async with following(ann, CHANGED) as stream:
        await ann.ask(READ_ALL)
        assert len({await change(stream) for _ in range(2 * LIMIT + 1)}) == 2 * LIMIT + 1
        await swallow(last)
        await house.runtime.bus.publish([nothing_new(ann)] * (ROOM + 1))
        assert await change(stream) == ("READ", last)


async def test_more_changes_at_once_than_are_remembered_end_with_a_word(ann: Wire) -> None:
    await store(row(ann.id, ago(1000 - n)) for n in range(REMEMBERED + 1))
    async with following(ann, CHANGED) as stream:
        await ann.ask(READ_ALL)
        failure = await refused(many_changes(stream))
    assert failure.code == "RESYNC"


async def many_changes(stream: Any) -> list[tuple[str, str]]:
    return [await change(stream) for _ in range(REMEMBERED + 2)]


async def test_a_reading_that_is_due_is_no_gap(house: House, ann: Wire) -> None:
    """Hints of more changes wait than a gap may have; all of them are told by and by."""
    clock = ShiftedClock()
    live = Live(house.runtime.bus, clock, house.runtime.settings)
    ids = await store(row(ann.id, ago(1000 - n)) for n in range(REMEMBERED))
    first, others = ids[: REMEMBERED // 2 + 1], ids[REMEMBERED // 2 + 1 :]
    seen: list[str] = []
    early, began = await store([row(ann.id, ago(2000))]), clock.now()
    await swallow(*early)

    async def follow() -> None:
        async for _, rows, _ in live.changed(ann.id, began):
            seen.extend(str(one.id) for one in rows)

    async with live.running():
        following = asyncio.create_task(follow())
        await until(lambda: following.done() or seen == early)  # then it listens
        seen.clear()
        await swallow(*ids)  # all are changed, and their hints come one after another
        clock.shift = timedelta(hours=1)
        for part in (first, others):
            data = NotificationChanged(
                user_id=ann.id, kind=ChangeKind.READ, notification_ids=tuple(part)
            )
            await house.runtime.bus.publish([Event.of(data, time=SystemClock().now())])
        await until(lambda: following.done() or len(seen) == len(ids))
        following.cancel()
    assert len(seen) == len(ids)


async def test_what_was_told_is_remembered_no_longer_than_a_reading_could_find_it(
    house: House, ann: Wire
) -> None:
    window = timedelta(seconds=2)
    began = SystemClock().now()
    told = Told(began, window, 2 * LIMIT)
    ids = await store(row(ann.id, ago(1000 - n)) for n in range(LIMIT + 1))
    await swallow(*ids)
    rows = await Notification.some(ann.id, ids, SystemClock().now())
    changes = [row.last_change for row in rows if row.last_change]
    told.by_hint(rows, ChangeKind.ARCHIVED)
    assert told.missed(changes) == changes, "what is told is another change than the last"
    told.by_hint(rows, ChangeKind.READ)
    assert told.missed(changes) == []
    assert not told.is_reading_due(began + window)
    later = began + 3 * window
    assert told.is_reading_due(later)
    told.put_off(later)
    assert not told.is_reading_due(later + window)
    assert told.since == began - window
    later += 3 * window
    assert told.is_reading_due(later)
    told.by_reading([], later)
    assert (len(told), told.since) == (0, later - window)


async def test_what_is_over_when_its_turn_comes_is_not_told(house: House, ann: Wire) -> None:
    clock = ShiftedClock()
    live = Live(house.runtime.bus, clock, house.runtime.settings)
    soon = clock.now() + timedelta(hours=1)
    rows = [row(ann.id, ago(3)), row(ann.id, ago(2), expires_at=soon), row(ann.id, ago(1))]
    first, _, third = await store(rows)
    cursor = Cursor(0, bytes(12), 0)
    async with aclosing(live.added(ann.id, cursor, None, SystemClock().now())) as told:
        assert str((await anext(told))[1].id) == first
        clock.shift = timedelta(hours=2)
        assert str((await anext(told))[1].id) == third


async def test_no_more_than_one_page_waits_for_a_slow_reader(house: House, ann: Wire) -> None:
    """Whenever it takes the next notification, it could make sure of the last."""
    changes = {"write_window_seconds": 0.01, "reader_queue_size": 100, "max_cursor_ids": 100}
    settings = house.runtime.settings.model_copy(update=changes)
    live = Live(house.runtime.bus, house.runtime.clock, settings)

    def pages() -> int:
        gc.collect()
        return sum(type(one) is Page for one in gc.get_objects())

    before, hints = pages(), 8
    first = await store([row(ann.id, ago(0))])
    beginning = Cursor(0, bytes(12), 0)
    async with (
        live.running(),
        aclosing(live.added(ann.id, beginning, None, SystemClock().now())) as added,
    ):
        assert str((await anext(added))[1].id) == first[0]
        rows = [row(ann.id, ago(0)) for _ in range(hints)]
        await store(rows)
        await house.runtime.bus.publish([told(one) for one in rows])
        for _ in range(hints):
            await asyncio.sleep(0.15)
            await anext(added)
            assert pages() <= before + 1


async def test_readers_that_make_sure_leave_turns_to_those_that_miss_something(
    house: House, watch: Watch, backend: Wire, ann: Wire
) -> None:
    async with ann.somebody.api.socket() as socket:
        subscribed = {(await socket.subscribe(ADDED)).id for _ in range(MANY)}
        await answered(socket)
        await sent(backend, ann)
        waiting = set(subscribed)
        while waiting:
            waiting.discard((await socket.receive())["id"])
        watch.begin()
        await store([row(ann.id, ago(0))])  # and nobody is told
        waiting = set(subscribed)
        while waiting:
            waiting.discard((await socket.receive())["id"])
    assert watch.asked >= MANY
    assert watch.most <= AT_ONCE // 2 + 1  # and the question who misses something


async def test_readers_that_miss_nothing_make_sure_of_it_together(
    house: House, watch: Watch, backend: Wire, ann: Wire
) -> None:
    async with ann.somebody.api.socket() as socket:
        waiting = {(await socket.subscribe(ADDED)).id for _ in range(MANY)}
        await answered(socket)
        await sent(backend, ann)
        while waiting:
            waiting.discard((await socket.receive())["id"])
        watch.begin()
        await asyncio.sleep(house.runtime.settings.write_window_seconds + 1)
    assert 0 < watch.asked < MANY // 2


async def test_who_starts_long_before_the_others_is_looked_up_apart(ann: Wire) -> None:
    await store(row(ann.id, ago(1000 - n)) for n in range(20))
    now = Position.of(SystemClock().now(), ObjectId())
    old = Waiting(ann.id, Position.start())
    others = [Waiting(str(ObjectId()), now) for _ in range(9)] + [Waiting(ann.id, now)]
    looked_up: list[str] = []

    async def read(user_id: str, _: Position) -> Page:
        looked_up.append(user_id)
        return Page((), SystemClock().now(), is_last=True)

    async def ask(question: Callable[[], Awaitable[Any]], _: str) -> Any:
        return await question()

    turns = asyncio.Semaphore(1)
    together = Settling(read, ask, SystemClock(), timedelta(), turns, most_places=10)
    for one in (*others, old):
        together.add(one)
    working = asyncio.create_task(together.keep_settling())
    await until(lambda: all(one.is_settled for one in (*others, old)))
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert looked_up == [ann.id]


@dataclass
class Waiting:
    """A reader that has seen what there is, but for the one that starts at the beginning."""

    user_id: str
    start: Position
    is_over: bool = False
    is_settled: bool = False

    def settle(self, places: Sequence[Position], settled: datetime) -> bool:
        self.is_settled = self.start > Position.start()
        return self.is_settled

    def settled(self, page: Page | None = None) -> None:
        self.is_settled = True

    def lose_track(self) -> None:
        raise AssertionError


async def test_what_fails_as_it_is_told_at_once_is_read_again() -> None:
    hints = Hints(10)

    def failing(*_: object) -> bool:
        raise ValueError("this socket is odd")

    hints.at_once = failing
    reading = asyncio.create_task(hints.get())
    await asyncio.sleep(0)
    event = nothing_created()
    hints.tell(News(event), event.id, event.user_id)
    assert await reading is None


async def test_a_session_that_ends_while_its_socket_is_bound_is_found(
    house: House, ann: Wire
) -> None:
    runtime = house.runtime
    assert ann.somebody.api.token is not None
    identity = await runtime.sessions.identify(ann.somebody.api.token)
    assert identity.session_id is not None
    bus, ended = SlowlyBound(), asyncio.Event()
    live = Live(bus, runtime.clock, runtime.settings)  # type: ignore[arg-type]
    async with live.running():
        watching = asyncio.create_task(live.watch_session(identity, ended.set))
        await bus.binding.wait()
        await asyncio.sleep(0.3)  # whoever asks before it is bound has its answer by then
        await runtime.sessions.end(identity.user_id, identity.session_id)
        bus.bound.set()
        stop = await watching
        async with asyncio.timeout(5):
            await ended.wait()
        stop()


class SlowlyBound:
    """A bus whose broker takes its time to bind a user."""

    hears = True

    def __init__(self) -> None:
        self.binding, self.bound = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def live(self, *_: object) -> AsyncIterator[SlowlyBound]:
        yield self

    async def watch(self, user_id: str) -> None:
        self.binding.set()
        await self.bound.wait()

    def unwatch(self, user_id: str) -> None:
        pass


def nothing_created() -> NotificationCreated:
    return NotificationCreated(
        id=str(ObjectId()),
        user_id=str(ObjectId()),
        kind=NotificationType.PROMOTION,
        title="Sale",
        body="Half the price",
        content="Half the price",
        sent_at=SystemClock().now(),
    )


async def test_a_reading_takes_no_more_bytes_at_once_than_a_part_has(ann: Wire) -> None:
    heavy = "x" * (PART_BYTES // 4)
    stored = await store(row(ann.id, ago(1000 - n), content=heavy) for n in range(6))
    start, read, is_last = Position.start(), [], False
    while not is_last:
        rows, is_last = await Notification.behind(ann.id, start, 100, SystemClock().now())
        assert len(rows) <= 4
        read += [str(one.id) for one in rows]
        start = rows[-1].position
    assert read == stored


async def test_all_readers_that_read_again_at_once_leave_room_for_callers(
    house: House, watch: Watch, ann: Wire
) -> None:
    async with ann.somebody.api.socket() as socket:
        streams = {(await socket.subscribe(UNREAD)).id for _ in range(MANY)}
        watch.begin()
        for _ in range(2):
            waiting = set(streams)
            while waiting:
                message = await socket.receive()
                assert message["type"] == "next"
                waiting.discard(message["id"])
            await store([row(ann.id, ago(1))])
            await house.runtime.bus.publish([nothing_new(ann)] * (ROOM + 1))
    assert AT_ONCE <= watch.most < 2 * AT_ONCE  # others ask, too, and now and then


async def test_too_many_swallowed_changes_end_the_subscription_with_a_word(
    house: House, ann: Wire
) -> None:
    stored = await store(row(ann.id, ago(1000 - n)) for n in range(LIMIT + 1))
    async with following(ann, CHANGED) as stream:
        await swallow(*stored)
        await house.runtime.bus.publish([nothing_new(ann)] * (ROOM + 1))
        assert (await refused(stream.next())).code == "RESYNC"


async def swallow(*ids: str) -> None:
    """Mark them as read, as a writer does whose live event is lost."""
    told = {"read": True, "change": ChangeKind.READ, "changed_at": SystemClock().now()}
    await Notification.get_pymongo_collection().update_many(
        {"_id": {"$in": [ObjectId(id) for id in ids]}}, {"$set": told}
    )


def nothing_new(somebody: Wire) -> Event:
    data = NotificationChanged(
        user_id=somebody.id, kind=ChangeKind.READ, notification_ids=(str(ObjectId()),)
    )
    return Event.of(data, time=SystemClock().now())


async def test_what_is_sent_while_a_subscription_waits_to_begin_is_told(
    house: House, ann: Wire
) -> None:
    """It has begun for its client, who hears nothing of how long the database was away."""
    live = Live(house.runtime.bus, house.runtime.clock, house.runtime.settings)
    old = await store([row(ann.id, ago(60))])
    began = house.runtime.clock.now()
    [id] = await store([row(ann.id, began + timedelta(milliseconds=5))])
    await swallow(*old)
    async with live.running():
        async with aclosing(live.added(ann.id, None, None, began)) as added, asyncio.timeout(5):
            assert str((await anext(added))[1].id) == id
        async with asyncio.timeout(5):
            kind, rows, _ = await anext(aiter(live.changed(ann.id, began)))
    assert (kind, [str(one.id) for one in rows]) == (ChangeKind.READ, old)
