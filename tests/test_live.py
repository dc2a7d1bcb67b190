"""Live notifications over graphql-transport-ws: none missed, none twice, only one's own."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from gateway.hints import Page
from services.shared.clock import SystemClock
from services.shared.events import Event, OrderStatusChanged
from tests import notices
from tests.kit import House, Socket, Stream, open_house, quick_settings, raw_socket
from tests.notices import Wire, ago, create, customer, page, refused, row, store, told, wired
from tests.outages import away
from tests.servers import PrivateMongod, until

ADDED = f"""subscription($after: String, $types: [NotificationType!]) {{
    notificationAdded(after: $after, types: $types) {{ cursor node {{ {notices.NODE} }} }} }}"""
CHANGED = """subscription { notificationChanged {
    kind unreadCount notification { id userId read readAt archived } } }"""
UNREAD = "subscription { unreadCount }"
QUEUE, MOST_IDS, WINDOW = 8, 30, 2.5
LONGEST_CURSOR = 24 * (MOST_IDS + 4)  # an id and its stamp take 18 bytes, in base64


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    """A house with little room for those who wait, so that its limits are met."""
    settings = quick_settings(
        mongod.url,
        reader_queue_size=QUEUE,
        max_cursor_ids=MOST_IDS,
        write_window_seconds=WINDOW,
    )
    async with open_house(settings) as house:
        yield house


@asynccontextmanager
async def following(
    somebody: Wire, document: str, *, hoard: int | None = None, **variables: Any
) -> AsyncIterator[Stream]:
    """A subscription that has begun: a question asked after it was answered.

    `hoard`: how many messages the client takes in advance, None for all that come.
    """
    api = somebody.somebody.api
    async with raw_socket(api.url, max_queue=hoard) as connection:
        socket = Socket(connection)
        await socket.send({"type": "connection_init", "payload": api.headers})
        assert (await socket.receive())["type"] == "connection_ack"
        stream = await socket.subscribe(document, **variables)
        if "after" not in variables:
            await answered(socket)
        yield stream


async def answered(socket: Socket) -> None:
    stream = await socket.subscribe("{ me { name preferences { version } } }")
    while (await socket.receive()) != {"id": stream.id, "type": "complete"}:
        pass


async def edge(stream: Stream, timeout: float = 20) -> Any:
    return (await stream.next(timeout))["notificationAdded"]


async def ids(stream: Stream, count: int) -> list[str]:
    """The ids of the next notifications."""
    return [(await edge(stream))["node"]["id"] for _ in range(count)]


async def sent(backend: Wire, somebody: Wire, **fields: Any) -> str:
    id: str = (await create(backend, somebody.id, **fields))["notification"]["id"]
    return id


async def flood(house: House, somebody: Wire, count: int) -> None:
    """Many order updates, handled in one batch and told in one breath."""
    orders = [
        OrderStatusChanged(order_id=str(n), user_id=somebody.id, status="paid")
        for n in range(count)
    ]
    now = SystemClock().now()
    await house.runtime.bus.publish([Event.of(order, time=now) for order in orders])


async def test_a_new_notification_arrives_as_it_is_on_the_page(backend: Wire, ann: Wire) -> None:
    async with following(ann, ADDED) as stream:
        content = {"n": 2**60, "list": [1.0, None]}
        await create(backend, ann.id, content, title="News")
        added = await edge(stream)
    [stored] = (await page(ann))["edges"]
    assert added["node"] == stored["node"]
    assert added["node"]["content"] == content


async def test_content_as_deep_as_is_allowed_arrives_too(backend: Wire, ann: Wire) -> None:
    content: Any = {"end": 1}
    for _ in range(19):
        content = {"in": content}
    async with following(ann, ADDED) as stream:
        await create(backend, ann.id, content)
        assert (await stream.next())["notificationAdded"]["node"]["content"] == content


async def test_without_a_cursor_only_what_is_new_arrives(backend: Wire, ann: Wire) -> None:
    await sent(backend, ann)
    await store([row(ann.id, ago(100))])
    async with following(ann, ADDED) as stream:
        new = [await sent(backend, ann) for _ in range(3)]
        assert await ids(stream, 3) == new


async def test_only_the_wanted_types_arrive(backend: Wire, ann: Wire) -> None:
    cursor = (await first_edge(backend, ann))["cursor"]
    wanted = []
    async with following(ann, ADDED, types=["RECOMMENDATION", "PROMOTION"]) as stream:
        await sent(backend, ann, type="ORDER_UPDATE")
        wanted.append(await sent(backend, ann, type="RECOMMENDATION"))
        assert await ids(stream, 1) == wanted
    wanted.append(await sent(backend, ann, type="RECOMMENDATION"))
    async with following(ann, ADDED, types=["RECOMMENDATION"], after=cursor) as stream:
        assert await ids(stream, 2) == wanted


async def first_edge(backend: Wire, somebody: Wire) -> Any:
    await sent(backend, somebody)
    return (await page(somebody))["edges"][0]


async def test_every_cursor_of_a_page_is_a_place_to_go_on_from(backend: Wire, ann: Wire) -> None:
    await store(row(ann.id, ago(1000 - n // 2)) for n in range(5))
    await store(row(ann.id, ago(1.5)) for _ in range(3))
    for _ in range(2):
        await sent(backend, ann)
    edges = (await page(ann))["edges"] + []
    for behind, one in enumerate(edges):
        async with following(ann, ADDED, after=one["cursor"]) as stream:
            missed = [other["node"]["id"] for other in edges[:behind]]
            assert await ids(stream, behind) == missed[::-1]
    live = await sent(backend, ann)
    async with following(ann, ADDED, after=edges[0]["cursor"]) as stream:
        assert await ids(stream, 1) == [live]
        later = await sent(backend, ann)
        assert await ids(stream, 1) == [later]


async def test_every_cursor_of_a_subscription_is_a_place_to_go_on_from(
    backend: Wire, ann: Wire
) -> None:
    cursor = (await first_edge(backend, ann))["cursor"]
    async with following(ann, ADDED, after=cursor) as stream:
        created = [await sent(backend, ann) for _ in range(4)]
        edges = [await edge(stream) for _ in created]
    for seen, one in enumerate(edges, 1):
        async with following(ann, ADDED, after=one["cursor"]) as stream:
            assert await ids(stream, len(created) - seen) == created[seen:]


async def test_a_page_of_some_types_is_a_place_to_go_on_from(backend: Wire, ann: Wire) -> None:
    await sent(backend, ann, type="RECOMMENDATION")
    await sent(backend, ann, type="ORDER_UPDATE")
    [pick] = (await page(ann, types=["RECOMMENDATION"]))["edges"]
    new = await sent(backend, ann, type="RECOMMENDATION")
    async with following(ann, ADDED, after=pick["cursor"], types=["RECOMMENDATION"]) as stream:
        assert await ids(stream, 1) == [new]


async def test_what_was_archived_meanwhile_is_not_lost(backend: Wire, ann: Wire) -> None:
    cursor = (await first_edge(backend, ann))["cursor"]
    id = await sent(backend, ann)
    await ann.ask(notices.ARCHIVE, id=id)
    async with following(ann, ADDED, after=cursor) as stream:
        got = (await edge(stream))["node"]
    assert (got["id"], got["archived"]) == (id, True)


@pytest.mark.parametrize("after", ["", "broken"])
async def test_a_broken_cursor_ends_the_subscription_with_an_error(ann: Wire, after: str) -> None:
    async with following(ann, ADDED, after=after) as stream:
        error = await refused(stream.next())
    assert (error.code, error.field) == ("BAD_USER_INPUT", "after")


async def test_writers_that_stamp_early_and_commit_late_reach_who_comes_back(
    backend: Wire, ann: Wire
) -> None:
    old = (await first_edge(backend, ann))["cursor"]
    async with following(ann, ADDED, after=old) as stream:
        await sent(backend, ann)
        live = (await edge(stream))["cursor"]
    of_page = (await page(ann))["pageInfo"]["startCursor"]
    earliest = ago(WINDOW - 0.5)  # the page and the subscription were read after that
    late = await store(row(ann.id, earliest + timedelta(milliseconds=n // 3)) for n in range(6))
    for cursor in (live, of_page):
        for _ in range(2):
            async with following(ann, ADDED, after=cursor) as stream:
                assert sorted(await ids(stream, len(late))) == sorted(late)
    async with following(ann, ADDED, after=live) as stream:
        *_, last = [await edge(stream) for _ in late]
    newer = await sent(backend, ann)
    async with following(ann, ADDED, after=last["cursor"]) as stream:
        assert await ids(stream, 1) == [newer]


async def test_a_late_commit_arrives_live_too(house: House, backend: Wire, ann: Wire) -> None:
    async with following(ann, ADDED) as stream:
        await sent(backend, ann)
        await edge(stream)
        late = row(ann.id, ago(1))
        await store([late])
        await house.runtime.bus.publish([told(late)])
        assert await ids(stream, 1) == [str(late["_id"])]


async def test_what_is_told_twice_arrives_once(house: House, backend: Wire, ann: Wire) -> None:
    settled, recent = row(ann.id, ago(1000)), row(ann.id, ago(0))
    await store([settled])
    cursor = (await page(ann))["edges"][0]["cursor"]
    async with following(ann, ADDED, after=cursor) as stream:
        await store([recent])
        for _ in range(3):
            await house.runtime.bus.publish([told(recent), told(settled)])
        last = await sent(backend, ann)
        assert await ids(stream, 2) == [str(recent["_id"]), last]


@pytest.mark.parametrize("count", [QUEUE, 3 * QUEUE, 3 * MOST_IDS])
async def test_more_at_once_than_there_is_room_for_arrive_all_the_same(
    house: House, backend: Wire, ann: Wire, count: int
) -> None:
    cursor = (await first_edge(backend, ann))["cursor"]
    async with following(ann, ADDED, after=cursor) as stream:
        await flood(house, ann, count)
        edges = [await edge(stream) for _ in range(count)]
        last = await sent(backend, ann)
        assert await ids(stream, 1) == [last]
    assert {one["node"]["content"]["orderId"] for one in edges} == set(map(str, range(count)))
    assert max(len(one["cursor"]) for one in edges) < LONGEST_CURSOR


async def test_who_comes_back_in_a_flood_gets_it_whole(
    house: House, backend: Wire, ann: Wire
) -> None:
    cursor = (await first_edge(backend, ann))["cursor"]
    count = 3 * MOST_IDS
    await store(row(ann.id, ago(n / count)) for n in range(count))
    seen: list[str] = []
    while len(seen) < count:
        async with following(ann, ADDED, after=cursor) as stream:
            for _ in range(min(MOST_IDS // 2, count - len(seen))):
                got = await edge(stream)
                cursor = got["cursor"]
                assert len(cursor) < LONGEST_CURSOR
                seen.append(got["node"]["id"])
    assert len(set(seen)) == count


async def test_a_reader_that_stops_reading_loses_nothing_by_it(backend: Wire, ann: Wire) -> None:
    """The late row is stamped within what was read before the pause, which outlasts the window."""
    heavy = "x" * 200_000  # a hundred of these are more than the network holds
    recent = ago(0)
    rows = [row(ann.id, recent + timedelta(milliseconds=n), content=heavy) for n in range(25)]
    old = [row(ann.id, ago(1000), content=heavy) for n in range(80)]
    await store([row(ann.id, ago(2000))])
    cursor = (await page(ann, last=1))["pageInfo"]["endCursor"]
    stored = await store(old + rows)
    async with following(ann, ADDED, hoard=1, after=cursor) as stream:
        seen = await ids(stream, 1)
        stamp = recent + timedelta(milliseconds=5)
        late = await store([row(ann.id, stamp)])
        await until(lambda: stamp < ago(WINDOW + 0.1))
        seen += await ids(stream, len(stored) - 1)
        newer = await sent(backend, ann)
        got = await edge(stream)
        seen.append(got["node"]["id"])
    async with following(ann, ADDED, after=got["cursor"]) as stream:
        seen += await ids(stream, 1)
    assert sorted(seen) == sorted([*stored, newer, *late])


class Reader:
    """Reads for a while, goes away, and comes back with its last cursor."""

    def __init__(self, somebody: Wire, cursor: str, chance: random.Random) -> None:
        self._somebody = somebody
        self._cursor = cursor
        self._chance = chance
        self.seen: Counter[str] = Counter()

    async def read(self, count: int) -> None:
        while self.seen.total() < count:
            async with following(self._somebody, ADDED, after=self._cursor) as stream:
                with suppress(TimeoutError):
                    for _ in range(self._chance.randint(1, 12)):
                        got = await edge(stream, timeout=0.7)
                        self.seen[got["node"]["id"]] += 1
                        self._cursor = got["cursor"]


async def write(backend: Wire, somebody: Wire, count: int) -> list[str]:
    async with wired(backend.somebody) as own:
        return [await sent(own, somebody) for _ in range(count)]


async def write_late(somebody: Wire, chance: random.Random, count: int) -> list[str]:
    """Rows whose stamps were taken long before, one by one, which nobody is told of."""
    stored: list[str] = []
    for _ in range(count):
        stored += await store([row(somebody.id, ago(chance.uniform(0, WINDOW - 1)))])
        await somebody.ask("{ me { id } }")
    return stored


@pytest.mark.parametrize("seed", [1])
async def test_readers_that_come_and_go_among_many_writers_miss_nothing_and_see_nothing_twice(
    backend: Wire, ann: Wire, seed: int
) -> None:
    chance = random.Random(seed)
    cursor = (await first_edge(backend, ann))["cursor"]
    readers = [Reader(ann, cursor, chance) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        writing = [group.create_task(write(backend, ann, 12)) for _ in range(3)]
        writing.append(group.create_task(write_late(ann, chance, 12)))
        reading = [group.create_task(reader.read(4 * 12)) for reader in readers]
    stored = [id for task in writing for id in task.result()]
    assert len(reading) == len(readers)
    for reader in readers:
        assert reader.seen == Counter(stored)


async def changes(stream: Stream, count: int) -> list[tuple[str, str, int]]:
    """Kind, notification and unread count of the next changes."""
    found = []
    for _ in range(count):
        change = (await stream.next())["notificationChanged"]
        found.append((change["kind"], change["notification"]["id"], change["unreadCount"]))
    return found


async def test_what_is_done_on_one_screen_is_seen_on_another(backend: Wire, ann: Wire) -> None:
    first, second, third = [await sent(backend, ann) for _ in range(3)]
    async with following(ann, CHANGED) as screen:
        await ann.ask(notices.READ, id=first)
        assert await changes(screen, 1) == [("READ", first, 2)]
        await ann.ask(notices.READ, id=first)
        await ann.ask(notices.READ, id=first, read=False)
        assert await changes(screen, 1) == [("UNREAD", first, 3)]
        await ann.ask(notices.ARCHIVE, id=second)
        assert await changes(screen, 1) == [("ARCHIVED", second, 2)]
        await ann.ask(notices.ARCHIVE, id=second, archived=False)
        assert await changes(screen, 1) == [("UNARCHIVED", second, 3)]
        await ann.ask(notices.READ_ALL)
        everything = sorted(("READ", id, 0) for id in (first, second, third))
        assert sorted(await changes(screen, 3)) == everything


async def test_a_change_shows_the_notification_as_it_is_now(backend: Wire, ann: Wire) -> None:
    id = await sent(backend, ann)
    async with following(ann, CHANGED) as screen:
        marked = (await ann.ask(notices.READ, id=id))["markNotificationRead"]
        change = (await screen.next())["notificationChanged"]
    assert change["notification"] == {key: marked[key] for key in change["notification"]}
    assert change["notification"]["readAt"] is not None


async def test_the_unread_count_is_told_at_once_and_at_every_change(
    house: House, backend: Wire, ann: Wire
) -> None:
    first = await sent(backend, ann)
    async with ann.somebody.api.follow(UNREAD) as stream:

        async def is_now(count: int) -> None:
            assert (await stream.next())["unreadCount"] == count

        await is_now(1)
        second = await sent(backend, ann)
        await is_now(2)
        await ann.ask(notices.READ, id=first)
        await is_now(1)
        await ann.ask(notices.READ, id=first)
        await ann.ask(notices.ARCHIVE, id=second)
        await is_now(0)
        await ann.ask(notices.ARCHIVE, id=second, archived=False)
        await is_now(1)
        await ann.ask(notices.READ_ALL)
        await is_now(0)
        await flood(house, ann, 3 * QUEUE)
        while (await stream.next())["unreadCount"] != 3 * QUEUE:
            pass


async def test_subscriptions_only_ever_show_ones_own(
    house: House, backend: Wire, ann: Wire
) -> None:
    cursor = (await first_edge(backend, ann))["cursor"]
    async with (
        wired(await customer(house)) as eve,
        following(eve, ADDED, after=cursor) as added,
        following(eve, CHANGED) as changed,
        eve.somebody.api.follow(UNREAD) as unread,
    ):
        assert await unread.next() == {"unreadCount": 0}
        await ann.ask(notices.READ, id=await sent(backend, ann))
        mine = await sent(backend, eve)
        assert await unread.next() == {"unreadCount": 1}  # asked later it would be 0 already
        await eve.ask(notices.READ, id=mine)
        assert await ids(added, 1) == [mine]
        assert await changes(changed, 1) == [("READ", mine, 0)]
        assert await unread.next() == {"unreadCount": 0}


async def test_what_is_at_hand_is_told_while_the_database_does_not_answer(
    house: House, backend: Wire, ann: Wire, mongod: PrivateMongod
) -> None:
    """And what nobody has told of yet, when it answers again."""
    async with following(ann, ADDED) as stream:
        first = await sent(backend, ann)
        assert await ids(stream, 1) == [first]
        silent = await store([row(ann.id, ago(0))])
        async with away(mongod, "hanging"):
            await asyncio.sleep(WINDOW + 0.5)  # by now it is to be read again
            late = row(ann.id, ago(0))
            await house.runtime.bus.publish([told(late)])
            assert (await edge(stream, timeout=1))["node"]["id"] == str(late["_id"])
        assert await ids(stream, 1) == silent


async def test_a_subscription_keeps_nothing_of_what_it_has_told(house: House, ann: Wire) -> None:
    def kept() -> int:
        gc.collect()
        return sum(type(one).__name__ == "CollectedFields" for one in gc.get_objects())

    async with following(ann, ADDED) as stream:
        before = kept()
        for _ in range(MOST_IDS - 1):
            await house.runtime.bus.publish([told(row(ann.id, ago(0)))])
            await edge(stream)
        assert kept() < before + MOST_IDS // 2


async def test_an_idle_reader_keeps_no_page(house: House, ann: Wire, backend: Wire) -> None:
    def pages() -> int:
        gc.collect()
        return sum(type(one) is Page for one in gc.get_objects())

    before = pages()
    async with following(ann, ADDED) as stream:
        await sent(backend, ann)
        await edge(stream)
        settled = asyncio.get_running_loop().time() + WINDOW + 1  # by then it has read again
        await until(lambda: asyncio.get_running_loop().time() > settled)
        assert pages() == before


async def test_all_screens_of_a_user_are_told(backend: Wire, ann: Wire) -> None:
    async with following(ann, ADDED) as phone, following(ann, ADDED) as desk:
        first = await sent(backend, ann)
        assert await ids(phone, 1) == await ids(desk, 1) == [first]
    async with following(ann, ADDED) as phone:
        async with following(ann, ADDED) as desk:
            pass
        again = await sent(backend, ann)
        assert await ids(phone, 1) == [again]
        assert desk is not phone


@pytest.mark.parametrize("document", [ADDED, CHANGED, UNREAD])
async def test_without_a_token_nothing_is_shown(house: House, document: str) -> None:
    async with house.api.follow(document) as stream:
        assert (await refused(stream.next())).code == "UNAUTHENTICATED"
