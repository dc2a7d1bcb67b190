"""One contract for both transports: an event durably reaches every queue that wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import aio_pika
import pytest

from services import host
from services.shared.bus import Ack, Bus, Handlers, QueueDepth, Retry
from services.shared.clock import SystemClock
from services.shared.embedded import EmbeddedBus, QueuedMessage
from services.shared.errors import BadInput, Unavailable
from services.shared.events import (
    CONTENT_TYPE,
    NOTIFICATIONS,
    USERS,
    Event,
    NotificationChanged,
    OrderStatusChanged,
    PreferencesChanged,
    UserActivity,
    decode,
    encode,
)
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.store import PART_BYTES, open_store
from services.shared.topology import DELIVERY_LIMIT, EVENTS, queue_name
from services.shared.vocabulary import ActivityKind, ChangeKind
from services.shared.worker import work
from tests.kit import NO_MEMORY, forget_queues, quick_settings
from tests.servers import PrivateMongod, PrivateRabbitMQ, until

Foreign = Callable[[str, bytes], Awaitable[None]]
Opener = Callable[[], AbstractAsyncContextManager[Bus]]


RETRIES: dict[str, Any] = {"retry_waits": (0.5, 0.2), "retry_jitter": 0.8}


class Transport:
    """A bus that can be opened more than once, as by several processes."""

    def __init__(self, settings: Settings, open_: Opener, foreign: Foreign) -> None:
        self.settings = settings
        self.open = open_
        self.publish_bytes = foreign


@pytest.fixture(params=["embedded", "between_processes"])
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
async def embedded(mongod: PrivateMongod) -> AsyncIterator[Transport]:
    settings = quick_settings(mongod.url, **RETRIES)
    async with open_store(
        settings.mongodb_url, settings.mongodb_database, host.MODELS, timeout=2, patience=5
    ) as store:
        bus = EmbeddedBus(store, SystemClock(), settings)

        @asynccontextmanager
        async def open_() -> AsyncIterator[Bus]:
            yield bus

        async def foreign(_: str, body: bytes) -> None:
            now = SystemClock().now()
            await QueuedMessage(queue=NOTIFICATIONS, body=body, first_seen=now, due_at=now).insert()

        yield Transport(settings, open_, foreign)
        await store.drop()


@pytest.fixture
async def between_processes(rabbitmq: PrivateRabbitMQ) -> Transport:
    settings = quick_settings("", rabbitmq_url=rabbitmq.url, rabbitmq_timeout_seconds=5, **RETRIES)
    await forget_queues(rabbitmq.url, settings)

    @asynccontextmanager
    async def open_() -> AsyncIterator[Bus]:
        bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
        try:
            yield bus
        finally:
            await bus.close()

    async def foreign(routing_key: str, body: bytes) -> None:
        async with await aio_pika.connect(rabbitmq.url) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(EVENTS)
            message = aio_pika.Message(body, content_type=CONTENT_TYPE)
            await exchange.publish(message, routing_key, mandatory=False)

    return Transport(settings, open_, foreign)


class Recorder:
    """Handlers that remember, and fail as often as they are told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failures: dict[str, list[Exception]] = {}

    def handlers(self, *types: str) -> Handlers:
        return dict.fromkeys(types or (OrderStatusChanged.type,), self._handle)

    async def first_seen(self, every: float) -> None:
        await until(lambda: self.seen, every=every)

    async def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            if failures := self.failures.get(event.id):
                raise failures.pop(0)
        self.seen += [event.id for event in events]


@asynccontextmanager
async def working(
    transport: Transport, handlers: Handlers, queue: str = NOTIFICATIONS
) -> AsyncIterator[None]:
    async with transport.open() as bus:
        task = asyncio.create_task(
            work(bus, queue, handlers, NO_MEMORY, SystemClock(), transport.settings)
        )
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def order(id: str) -> Event:
    data = OrderStatusChanged(order_id="1", user_id="u", status="paid", details={"id": id})
    return Event.of(data, time=SystemClock().now(), id=id)


def orders(count: int) -> list[Event]:
    return [order(f"order-{number}") for number in range(count)]


async def test_what_is_published_is_handled_once_and_in_order(transport: Transport) -> None:
    recorder = Recorder()
    async with transport.open() as bus, working(transport, recorder.handlers()):
        await bus.publish(orders(1200))
        await until(lambda: len(recorder.seen) >= 1200)
    assert recorder.seen == [event.id for event in orders(1200)]


async def test_what_is_published_before_there_is_a_consumer_waits_for_it(
    transport: Transport,
) -> None:
    async with transport.open() as bus:
        await bus.publish(orders(3))
    recorder = Recorder()
    async with working(transport, recorder.handlers()):
        await until(lambda: len(recorder.seen) == 3)


async def test_a_batch_has_no_more_bytes_than_are_handled_in_time(transport: Transport) -> None:
    text = "x" * (PART_BYTES // 8)  # it is in an order twice
    sizes: list[int] = []
    async with transport.open() as bus:
        await bus.publish([order(f"{number} {text}") for number in range(12)])
        async with bus.subscribe(NOTIFICATIONS) as subscription:
            batches = subscription.batches()
            while sum(sizes) < 12:
                batch = await anext(batches)
                await subscription.settle([(delivery, Ack()) for delivery in batch])
                sizes.append(len(batch))
                await asyncio.sleep(0.5)  # all that is let out comes
    assert max(sizes) == 4


async def test_each_queue_gets_its_own_types_only(transport: Transport) -> None:
    users, notifications = Recorder(), Recorder()
    every = (UserActivity.type, OrderStatusChanged.type)
    activity = Event.of(
        UserActivity(user_id="u", kind=ActivityKind.VIEW, product_id="p"),
        time=SystemClock().now(),
        id="activity",
    )
    async with (
        transport.open() as bus,
        working(transport, users.handlers(*every), USERS),
        working(transport, notifications.handlers(*every)),
    ):
        await bus.publish([activity, order("order")])
        await until(lambda: users.seen and notifications.seen)
    assert (users.seen, notifications.seen) == (["activity"], ["order"])


async def test_a_failed_event_is_tried_again_and_its_neighbours_are_not_held_up(
    transport: Transport,
) -> None:
    recorder = Recorder()
    recorder.failures["order-1"] = [RuntimeError(f"failure {turn}") for turn in range(3)]
    async with transport.open() as bus:
        await bus.publish(orders(3))
    async with working(transport, recorder.handlers()):
        await until(lambda: len(recorder.seen) == 3)
    assert sorted(recorder.seen) == ["order-0", "order-1", "order-2"]
    assert recorder.seen[-1] == "order-1"


async def test_an_event_that_always_fails_is_dead_lettered_with_its_last_error(
    transport: Transport,
) -> None:
    recorder = Recorder()
    recorder.failures["order-0"] = [RuntimeError(f"failure {turn}") for turn in range(10)]
    async with transport.open() as bus, working(transport, recorder.handlers()):
        await bus.publish(orders(2))
        letters = await until(lambda: bus.dead_letters(10))
        [letter] = letters
    assert letter.queue == NOTIFICATIONS
    assert b'"id":"order-0"' in letter.body
    assert letter.reason.startswith("failed 3 times, the last time with RuntimeError: failure")
    assert recorder.seen == ["order-1"]


async def test_what_the_handler_refuses_is_dead_lettered_at_once(transport: Transport) -> None:
    recorder = Recorder()
    recorder.failures["order-0"] = [BadInput("no such thing", "data")] * 2
    async with transport.open() as bus, working(transport, recorder.handlers()):
        await bus.publish(orders(2))
        [letter] = await until(lambda: bus.dead_letters(10))
    assert letter.reason == "BAD_USER_INPUT: no such thing"


async def test_what_failed_together_is_not_tried_again_together(transport: Transport) -> None:
    """RabbitMQ's consumer takes the first event alone, and then all the others."""
    loop = asyncio.get_running_loop()
    failed = {"first"}
    times: list[float] = []

    async def handle(events: Sequence[Event]) -> None:
        fresh = {event.id for event in events} - failed
        if len(events) == 1:
            failed.update(fresh)
        if fresh:
            raise RuntimeError("not the first time")
        times.extend([loop.time()] * len(events))

    async with transport.open() as bus:
        await bus.publish([order("first"), *orders(30)])
    async with working(transport, {OrderStatusChanged.type: handle}):
        await until(lambda: len(times) == 31)
    # Their waits differ by up to 0.4 s, of which a busy machine may swallow most; else by nothing.
    assert times[-1] - times[1] > 0.03


async def test_a_replayed_event_starts_anew_and_is_no_dead_letter_any_more(
    transport: Transport,
) -> None:
    recorder = Recorder()
    recorder.failures["order-0"] = [RuntimeError(f"failure {turn}") for turn in range(4)]
    async with transport.open() as bus, working(transport, recorder.handlers()):
        await bus.publish(orders(1))
        [letter] = await until(lambda: bus.dead_letters(10))
        assert (letter.failures, letter.queue) == (3, NOTIFICATIONS)
        assert letter.first_seen <= letter.died_at
        assert await bus.replay(letter.id) == 1
        await until(lambda: recorder.seen == ["order-0"])
        assert not await bus.dead_letters(10)
        assert await bus.replay(letter.id) == 0


async def test_dead_letters_go_one_by_one_and_the_others_keep_their_order(
    transport: Transport,
) -> None:
    recorder = Recorder()
    for event in orders(6):
        recorder.failures[event.id] = [BadInput("no such thing", "data")] * 9
    async with transport.open() as bus:
        async with working(transport, recorder.handlers()):
            await bus.publish(orders(6))
            await until(lambda: _are_dead(bus, 6))
        letters = await bus.dead_letters(10)
        ids = [letter.id for letter in letters]
        assert await bus.dead_letters(2) == letters[:2]
        assert await bus.dead_letters(10, ids[3][:12]) == [letters[3]]
        assert await bus.discard(ids[3]) == 1
        assert await bus.replay(ids[1]) == 1
        for nobodys in ("nobody's", ""):
            assert await bus.discard(nobodys) == await bus.replay(nobodys) == 0
        left = await bus.dead_letters(10)
        assert left == [letters[place] for place in (0, 2, 4, 5)]
        assert await bus.replay() == 4
        assert await bus.discard() == 0
        recorder.failures.clear()
        async with working(transport, recorder.handlers()):
            await until(lambda: len(recorder.seen) == 5)
    assert sorted(recorder.seen) == ["order-0", "order-1", "order-2", "order-4", "order-5"]


async def test_what_waits_is_counted_queue_by_queue(transport: Transport) -> None:
    recorder = Recorder()
    recorder.failures["order-0"] = [BadInput("no such thing", "data")] * 9
    async with transport.open() as bus:
        await bus.publish(orders(3))

        async def are(waiting: int, consumers: int, dead: int) -> bool:
            expected = {
                USERS: QueueDepth(USERS, 0, 0, 0),
                NOTIFICATIONS: QueueDepth(NOTIFICATIONS, waiting, 0, consumers),
            }
            depths = await bus.depths()
            return {one.name: one for one in depths.queues} == expected and (
                depths.dead_letters == dead
            )

        await until(lambda: are(3, 0, 0))
        async with working(transport, recorder.handlers()):
            await until(lambda: are(0, 1, 1))
        await until(lambda: are(0, 0, 1))


async def test_what_will_be_tried_again_is_counted_apart(transport: Transport) -> None:
    async with transport.open() as bus, bus.subscribe(NOTIFICATIONS) as subscription:
        await bus.publish(orders(1))
        [delivery] = await anext(subscription.batches())
        await subscription.settle([(delivery, Retry(0.5, "not now"))])
        [there] = [one for one in (await bus.depths()).queues if one.name == NOTIFICATIONS]
        assert (there.waiting, there.retrying) == (0, 1)


async def _are_dead(bus: Bus, count: int) -> bool:
    return len(await bus.dead_letters(count)) == count


POISON = {
    "not JSON": (b"{", "Not JSON"),
    "not UTF-8": (b'{"specversion":"\xff"}', "Not JSON"),
    "not an object": (b"[]", "Not a CloudEvent"),
    "not a CloudEvent": (b'{"hello": 1}', "Not a CloudEvent"),
    "another version": (
        b'{"specversion":"0.3","id":"1","source":"s","type":"order.status_changed","data":{}}',
        "specversion must be 1.0",
    ),
    "an unknown type": (
        b'{"specversion":"1.0","id":"1","source":"s","type":"order.eaten","data":{}}',
        "Unknown event type 'order.eaten'",
    ),
    "wrong data": (
        b'{"specversion":"1.0","id":"1","source":"s","type":"order.status_changed","data":{}}',
        "Wrong data for order.status_changed: Object missing required field `orderId`",
    ),
    "a time without a zone": (
        b'{"specversion":"1.0","id":"1","source":"s","type":"order.status_changed",'
        b'"time":"2026-01-01T00:00:00","data":{"orderId":"1","userId":"u","status":"s"}}',
        "time must have a zone",
    ),
    "a key that can't be stored": (
        b'{"specversion":"1.0","id":"1","source":"s","type":"order.status_changed",'
        b'"data":{"orderId":"1","userId":"u","status":"s","details":{"$where":1}}}',
        "rename the key '$where'",
    ),
    "a time beyond the calendar": (
        b'{"specversion":"1.0","id":"1","source":"s","type":"order.status_changed",'
        b'"time":"9999-12-31T23:59:59-14:00","data":{"orderId":"1","userId":"u","status":"s"}}',
        "lies beyond the calendar",
    ),
    "an instant beyond the calendar": (
        b'{"specversion":"1.0","id":"1","source":"s","type":"promotion.announced",'
        b'"data":{"title":"t","body":"b","expiresAt":"9999-12-31T23:59:59-14:00"}}',
        "lies beyond the calendar",
    ),
    "a source with a space": (
        b'{"specversion":"1.0","id":"1","source":"a b","type":"order.status_changed","data":{}}',
        "Not a CloudEvent",
    ),
    "too large": (b" " * 524_289, "524288 is the most"),
}


@pytest.mark.parametrize("poison", POISON)
async def test_poison_is_dead_lettered_with_its_reason_and_holds_up_nothing(
    transport: Transport, poison: str
) -> None:
    body, reason = POISON[poison]
    recorder = Recorder()
    async with transport.open() as bus, working(transport, recorder.handlers()):
        await bus.publish([order("before")])
        await transport.publish_bytes("order.eaten", body)
        await bus.publish([order("after")])
        [letter] = await until(lambda: bus.dead_letters(10))
        await until(lambda: recorder.seen == ["before", "after"])
    assert reason in letter.reason
    assert letter.body == body


async def test_a_known_event_that_nobody_consumes_is_no_poison(transport: Transport) -> None:
    recorder = Recorder()
    changed = PreferencesChanged(user_id="u", version=1)
    async with transport.open() as bus, working(transport, recorder.handlers()):
        await bus.publish([Event.of(changed, time=SystemClock().now()), order("after")])
        await until(lambda: recorder.seen == ["after"])
        assert not await bus.dead_letters(10)


async def test_an_event_that_came_to_the_wrong_queue_is_passed_on(transport: Transport) -> None:
    """It had a wrong routing key; or its own queue was missing, and the broker led it here."""
    view = UserActivity(user_id="u", kind=ActivityKind.VIEW, product_id="p")
    activity = Event.of(view, time=SystemClock().now(), id="astray")
    recorder = Recorder()
    async with (
        transport.open() as bus,
        working(transport, recorder.handlers()),
        working(transport, recorder.handlers(UserActivity.type), USERS),
    ):
        await bus.publish([order("before")])  # and so all queues are there
        await until(lambda: recorder.seen == ["before"])
        await transport.publish_bytes("a.wrong.key", encode(activity))
        await until(lambda: recorder.seen == ["before", "astray"])
        assert await bus.dead_letters(1) == []


async def test_while_the_queue_of_an_event_is_missing_another_keeps_it(
    between_processes: Transport,
) -> None:
    view = UserActivity(user_id="u", kind=ActivityKind.VIEW, product_id="p")
    recorder = Recorder()
    url = between_processes.settings.rabbitmq_url
    async with between_processes.open() as bus:
        await bus.publish([order("before")])
        async with await aio_pika.connect(url) as connection:
            await (await connection.channel()).queue_delete(queue_name(USERS))
        await bus.publish([Event.of(view, time=SystemClock().now(), id="kept")])
        async with (
            working(between_processes, recorder.handlers(UserActivity.type), USERS),
            working(between_processes, recorder.handlers()),
        ):
            await until(lambda: set(recorder.seen) == {"before", "kept"})
        assert await bus.dead_letters(1) == []


async def test_an_event_whose_consumer_dies_each_time_is_dead_lettered(
    between_processes: Transport,
) -> None:
    url = between_processes.settings.rabbitmq_url
    async with between_processes.open() as bus:
        await bus.publish([order("deadly")])

        async def died() -> bool:
            """Take it, and end without a word; the broker counts."""
            async with await aio_pika.connect(url) as connection:
                queue = await (await connection.channel()).get_queue(queue_name(NOTIFICATIONS))
                await queue.get(fail=False)
            return bool(await bus.dead_letters(1))

        await until(died, timeout=20)
        [letter] = await bus.dead_letters(2)
    assert f"{DELIVERY_LIMIT} times" in letter.reason
    assert decode(letter.body, received=SystemClock().now()).id == "deadly"


async def test_what_a_dying_consumer_held_beside_a_deadly_event_is_handled(
    between_processes: Transport,
) -> None:
    count = 2 * DELIVERY_LIMIT
    deadly = f"order-{count - 5}"
    handled: list[str] = []

    def ids(bodies: Iterable[bytes]) -> list[str]:
        return [decode(body, received=SystemClock().now()).id for body in bodies]

    async def live(bus: Bus) -> None:
        """Handle what comes until the deadly one does, then end with all that is in hand."""
        async with bus.subscribe(NOTIFICATIONS) as subscription:
            async for batch in subscription.batches():
                came = ids(delivery.body for delivery in batch)
                if deadly in came:
                    return
                handled.extend(came)
                await subscription.settle([(delivery, Ack()) for delivery in batch])
                await asyncio.sleep(0.05)  # as many others are in hand by then as may be

    async with between_processes.open() as bus:
        await bus.publish(orders(count))
        async with asyncio.timeout(60):
            while not (letters := await bus.dead_letters(5)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await live(bus)
    assert ids(letter.body for letter in letters) == [deadly]
    assert {*handled, deadly} == {f"order-{number}" for number in range(count)}


async def test_what_is_suspect_and_slow_is_handled_once_whatever_waits_behind_it(
    rabbitmq: PrivateRabbitMQ, between_processes: Transport
) -> None:
    settings = between_processes.settings.model_copy(update={"rabbitmq_heartbeat_seconds": 1})
    patient = RabbitBus(rabbitmq.url, SystemClock(), settings)
    await patient.ping()  # there are queues
    begun: list[str] = []

    async def slowly(events: Sequence[Event]) -> None:
        begun.extend(event.id for event in events)
        await asyncio.sleep(3 if begun == ["suspect"] else 0)

    async with await aio_pika.connect(rabbitmq.url) as connection:
        exchange = await (await connection.channel()).get_exchange(EVENTS)
        for event, count in ((order("suspect"), DELIVERY_LIMIT // 4), (order("behind"), 0)):
            message = aio_pika.Message(encode(event), headers={"x-delivery-count": count})
            await exchange.publish(message, OrderStatusChanged.type)
    handlers: Handlers = {OrderStatusChanged.type: slowly}
    working = asyncio.create_task(
        work(patient, NOTIFICATIONS, handlers, NO_MEMORY, SystemClock(), settings)
    )
    await until(lambda: "behind" in begun, timeout=20)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await patient.close()
    assert begun == ["suspect", "behind"]


async def test_a_batch_is_not_acknowledged_when_the_one_before_could_not_be_settled(
    between_processes: Transport,
) -> None:
    """One acknowledgement counts for all before it: theirs would be lost, retries included."""
    bus = RabbitBus(between_processes.settings.rabbitmq_url, SystemClock(), quick_settings(""))
    await bus.publish(orders(2))
    async with bus.subscribe(NOTIFICATIONS) as subscription:
        batches = subscription.batches()
        [_], [second] = await anext(batches), await anext(batches)
        assert subscription._inflow is not None
        subscription._inflow.end()  # as whoever could not settle the first one leaves it
        await subscription.settle([(second, Ack())])
    recorder = Recorder()
    async with working(between_processes, recorder.handlers()):
        await until(lambda: len(recorder.seen) == 2)
    await bus.close()


async def test_what_a_consumer_held_when_it_died_is_handled_by_the_next(
    transport: Transport,
) -> None:
    holding = asyncio.Event()

    async def hold(events: Sequence[Event]) -> None:
        holding.set()
        await asyncio.Event().wait()

    async with transport.open() as bus:
        await bus.publish(orders(5))
    async with working(transport, {OrderStatusChanged.type: hold}):
        await holding.wait()
    recorder = Recorder()
    async with working(transport, recorder.handlers()):
        await until(lambda: len(recorder.seen) == 5)


async def test_a_consumer_comes_back_when_its_queue_was_deleted(
    between_processes: Transport,
) -> None:
    recorder = Recorder()
    settings = between_processes.settings
    async with between_processes.open() as bus, working(between_processes, recorder.handlers()):
        await bus.publish([order("before")])
        await until(lambda: recorder.seen == ["before"])
        await forget_queues(settings.rabbitmq_url, settings)

        async def handled() -> bool:
            with suppress(Unavailable):
                await bus.publish([order("after")])
            return "after" in recorder.seen

        await until(handled, every=0.1)


async def test_a_worker_ends_when_it_is_cancelled_at_whatever_moment(
    transport: Transport,
) -> None:
    for turn in range(40):
        recorder = Recorder()
        async with transport.open() as bus:
            working = asyncio.create_task(
                work(
                    bus,
                    NOTIFICATIONS,
                    recorder.handlers(),
                    NO_MEMORY,
                    SystemClock(),
                    transport.settings,
                )
            )
            await bus.publish(orders(20))
            await recorder.first_seen(every=0.0005 * (turn % 5))
            working.cancel()
            done, _ = await asyncio.wait([working], timeout=10)
        assert done, "it goes on as if nobody had cancelled it"


async def test_live_events_reach_those_who_watch_the_user(transport: Transport) -> None:
    heard: list[Event] = []
    ready = asyncio.Event()
    async with transport.open() as bus, bus.live(heard.append, ready.set) as feed:
        await feed.watch("alice")
        if isinstance(bus, RabbitBus):
            await ready.wait()
        await bus.publish([_changed("alice", "1")])  # by itself: together others hear it, too
        await bus.publish([_changed("ben", "2")])
        await until(lambda: any(_ids(event) == ("1",) for event in heard))
        assert isinstance(bus, EmbeddedBus) or [_ids(event) for event in heard] == [("1",)]
        feed.unwatch("alice")
        await feed.watch("ben")

        async def hears_ben_alone() -> bool:
            heard.clear()
            await bus.publish([_changed("alice", "3")])
            await bus.publish([_changed("ben", "4")])
            await until(lambda: any(_ids(event) == ("4",) for event in heard))
            return isinstance(bus, EmbeddedBus) or [_ids(event) for event in heard] == [("4",)]

        await until(hears_ben_alone)


async def test_the_bus_answers_a_ping(transport: Transport) -> None:
    async with transport.open() as bus:
        await bus.ping()


def _changed(user_id: str, id: str) -> Event:
    data = NotificationChanged(user_id=user_id, kind=ChangeKind.READ, notification_ids=(id,))
    return Event.of(data, time=SystemClock().now())


def _ids(event: Event) -> tuple[str, ...]:
    return event.read(NotificationChanged).notification_ids


async def test_a_worker_has_so_many_batches_in_hand_and_no_more(
    between_processes: Transport,
) -> None:
    few = {"batch_size": 1, "batches_at_once": 4}
    settings = between_processes.settings.model_copy(update=few)
    begun: list[str] = []
    go_on = asyncio.Event()

    async def held(events: Sequence[Event]) -> None:
        begun.extend(event.id for event in events)
        await go_on.wait()

    bus = RabbitBus(settings.rabbitmq_url or "", SystemClock(), settings)
    await bus.publish(orders(10))
    handlers: Handlers = {OrderStatusChanged.type: held}
    working = asyncio.create_task(
        work(bus, NOTIFICATIONS, handlers, NO_MEMORY, SystemClock(), settings)
    )
    try:
        await until(lambda: len(begun) >= 4)
        await asyncio.sleep(0.2)  # for a fifth to come, if it may
        assert begun == [f"order-{number}" for number in range(4)]
        go_on.set()
        await until(lambda: len(begun) == 10)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await bus.close()


async def test_a_batch_may_be_larger_than_amqp_lets_a_consumer_have_in_hand(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    settings = quick_settings("", rabbitmq_url=rabbitmq.url, batch_size=20_000)
    await forget_queues(rabbitmq.url, settings)
    bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
    await bus.publish(orders(1))
    async with asyncio.timeout(10), bus.subscribe(NOTIFICATIONS) as subscription:
        [delivery] = await anext(subscription.batches())
        await subscription.settle([(delivery, Ack())])
    await bus.close()
