"""What the broker and the way to it do wrong, and that events go on all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import aio_pika
import pytest
from aiormq.connection import FrameReceiver

from campaign.broker import Broker
from campaign.proxy import Proxy
from services.shared import failpoints
from services.shared.amqp import Connection, abandon, bounded, close, connect
from services.shared.bus import Handlers, PartlyPublished
from services.shared.clock import SystemClock
from services.shared.errors import BadInput, Unavailable
from services.shared.events import (
    CONTENT_TYPE,
    NOTIFICATIONS,
    Event,
    NotificationChanged,
    OrderStatusChanged,
    UserActivity,
    encode,
    encode_batch,
)
from services.shared.failpoints import Failpoint
from services.shared.frames import Outgoing, publish_all
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.topology import LIVE, queue_name
from services.shared.vocabulary import ActivityKind, ChangeKind
from services.shared.worker import work
from tests.kit import NO_MEMORY, forget_queues, quick_settings
from tests.servers import PrivateRabbitMQ, need_rabbitmq, private_rabbitmq, until


@pytest.fixture
async def way(rabbitmq: PrivateRabbitMQ) -> AsyncIterator[Proxy]:
    """The link to the broker, to be broken."""
    made = Proxy("way", rabbitmq.port)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def settings(rabbitmq: PrivateRabbitMQ) -> Settings:
    made = _settings(rabbitmq.port)
    await forget_queues(rabbitmq.url, made)
    return made


def _settings(port: int, **changes: Any) -> Settings:
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    return quick_settings("", rabbitmq_url=url, rabbitmq_timeout_seconds=1, **changes)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(settings.rabbitmq_url, SystemClock(), settings)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def handled(settings: Settings) -> AsyncIterator[list[str]]:
    """The ids of the orders that a worker has handled, as they come."""
    seen: list[str] = []

    async def handle(events: Sequence[Event]) -> None:
        seen.extend(event.id for event in events)

    handlers: Handlers = {OrderStatusChanged.type: handle}
    async with opened(settings) as bus:
        task = asyncio.create_task(
            work(bus, NOTIFICATIONS, handlers, NO_MEMORY, SystemClock(), settings)
        )
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def order(id: str) -> Event:
    data = OrderStatusChanged(order_id="1", user_id="u", status="paid", details={"id": id})
    return Event.of(data, time=SystemClock().now(), id=id)


def changed(user_id: str, id: str) -> Event:
    data = NotificationChanged(user_id=user_id, kind=ChangeKind.READ, notification_ids=(id,))
    return Event.of(data, time=SystemClock().now())


@asynccontextmanager
async def disk_alarm(server: PrivateRabbitMQ) -> AsyncIterator[None]:
    """While it lasts the broker reads nothing more from whoever publishes."""
    broker = Broker(server)
    await broker.erlang("rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []}).")
    try:
        yield
    finally:
        await broker.erlang("rabbit_alarm:clear_alarm({resource_limit, disk, node()}).")


class DeafBus(RabbitBus):
    """A bus whose library cancels who connects."""

    async def connect(self) -> Connection:
        raise asyncio.CancelledError


async def test_handshakes_that_nobody_answers_are_given_up_and_tried_again(
    way: Proxy, settings: Settings
) -> None:
    way.swallow_handshakes()
    loop = asyncio.get_running_loop()
    async with handled(_settings(way.port)) as seen, opened(_settings(way.port)) as bus:
        with pytest.raises(Unavailable):
            await bus.publish([order("before")])
        await until(lambda: way.taken >= 3)
        await way.heal()
        healed = loop.time()
        async with opened(settings) as another:
            await another.publish([order("after")])
        await until(lambda: "after" in seen)
        await bus.ping()
    assert loop.time() - healed < 4


async def test_a_connection_that_is_cut_is_opened_again_within_a_second(
    way: Proxy, settings: Settings
) -> None:
    loop = asyncio.get_running_loop()
    took: list[float] = []
    async with handled(_settings(way.port)) as seen, opened(_settings(way.port)) as bus:
        for turn in range(5):
            name = f"order-{turn}"
            await until(lambda name=name: _published(bus, order(name)))  # type: ignore[misc]
            await until(lambda name=name: name in seen)  # type: ignore[misc, arg-type]
            way.cut()
            cut = loop.time()
            await until(lambda turn=turn: _published(bus, order(f"again-{turn}")))  # type: ignore[misc]
            await until(lambda turn=turn: f"again-{turn}" in seen)  # type: ignore[misc, arg-type]
            took.append(loop.time() - cut)
    assert median(took) < 1


async def test_a_consumer_that_the_broker_forgot_finds_out_by_asking(
    way: Proxy, settings: Settings
) -> None:
    """Without asking, a connection counts as alive for three heartbeats and a half: 6 s."""
    quick = _settings(way.port, rabbitmq_heartbeat_seconds=1)
    async with handled(quick) as seen, opened(settings) as bus:
        await bus.publish([order("before")])
        await until(lambda: "before" in seen)
        way.mute()
        await bus.publish([order("after")])
        await until(lambda: "after" in seen, timeout=4)


async def test_an_event_that_no_queue_takes_is_not_confirmed(settings: Settings) -> None:
    async with opened(settings) as bus:
        await bus.publish([order("before")])
        await forget_queues(settings.rabbitmq_url, settings)
        with pytest.raises(Unavailable, match="lost a queue"):
            await bus.publish([order("refused")])
        await bus.publish([order("after")])
        async with handled(settings) as seen:
            await until(lambda: seen == ["after"])


async def test_who_waits_for_a_connection_that_closes_is_told_in_words(settings: Settings) -> None:
    """The library raises a bare Exception there, by which nobody can tell what happened."""
    connection = await connect(settings.rabbitmq_url, settings)
    assert connection.transport is not None
    underlay = connection.transport.connection
    waited_for = underlay.create_future()
    await underlay.close(None)  # as the library does itself, when its reader ends before its writer
    with pytest.raises(Exception) as bare:  # noqa: PT011
        await waited_for
    assert type(bare.value) is Exception
    with pytest.raises(ConnectionError, match="has closed"):
        async with bounded(1):
            await waited_for
    await close(connection)


async def test_a_connection_that_ends_in_its_handshake_is_one_that_has_closed() -> None:
    """aiormq then raises StopAsyncIteration, which is nobody's error: it ended a gateway."""

    def ended() -> FrameReceiver:
        reader = asyncio.StreamReader()
        reader.feed_eof()
        return FrameReceiver(reader)

    with pytest.raises(StopAsyncIteration):
        await ended().get_frame()
    with pytest.raises(ConnectionError, match="has closed"):
        async with bounded(1):
            await ended().get_frame()


async def test_what_was_confirmed_is_told_when_the_rest_was_not(settings: Settings) -> None:
    activity = UserActivity(user_id="u", kind=ActivityKind.VIEW, product_id="p")
    taken = Event.of(activity, time=SystemClock().now())
    async with opened(settings) as bus:
        await bus.publish([order("before")])
        async with await aio_pika.connect(settings.rabbitmq_url) as connection:
            await (await connection.channel()).queue_delete(queue_name(NOTIFICATIONS))
        with pytest.raises(PartlyPublished) as told:
            await bus.publish([taken, order("refused"), taken])
    assert told.value.confirmed == {0, 2}


async def test_a_campaign_may_end_a_process_between_two_confirms(settings: Settings) -> None:
    reached: list[Failpoint] = []
    failpoints.arm(reached.append)
    try:
        async with opened(settings) as bus:
            await bus.publish([order(str(number)) for number in range(3)])
    finally:
        failpoints.arm(lambda _: None)
    assert reached == [Failpoint.AFTER_CONFIRM] * 3


async def test_while_a_dead_letter_finds_no_place_no_other_event_is_delivered_again(
    way: Proxy, rabbitmq: PrivateRabbitMQ, settings: Settings
) -> None:
    through = _settings(way.port)
    seen: list[str] = []

    async def handle(events: Sequence[Event]) -> None:
        if any(event.id == "poison" for event in events):
            raise BadInput("no such thing", "data")
        seen.extend(event.id for event in events)

    async with opened(settings) as bus, opened(through) as worked:
        await bus.publish([order("poison"), *(order(str(number)) for number in range(5))])
        async with disk_alarm(rabbitmq):
            handlers: Handlers = {OrderStatusChanged.type: handle}
            task = asyncio.create_task(
                work(worked, NOTIFICATIONS, handlers, NO_MEMORY, SystemClock(), through)
            )
            await until(lambda: way.taken >= 4)  # the consumer's, and three to publish on
        await until(lambda: bus.dead_letters(1))
        await bus.publish([order("after")])
        await until(lambda: "after" in seen)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert seen == [*(str(number) for number in range(5)), "after"]


async def test_a_connection_that_a_blocked_broker_does_not_read_ends_all_the_same(
    rabbitmq: PrivateRabbitMQ, settings: Settings
) -> None:
    connection = await connect(rabbitmq.url, settings)
    exchange = (await connection.channel()).default_exchange
    async with disk_alarm(rabbitmq):
        publishing = {
            asyncio.create_task(exchange.publish(aio_pika.Message(bytes(2**20)), "nobody's"))
            for _ in range(50)
        }
        _, stuck = await asyncio.wait(publishing, timeout=1)
        _, going_on = await asyncio.wait({abandon(connection)}, timeout=5)
        assert stuck
        assert not going_on
    await asyncio.gather(*publishing, return_exceptions=True)


async def test_a_live_feed_that_nobody_cancelled_does_not_end_in_silence(
    settings: Settings,
) -> None:
    bus = DeafBus(settings.rabbitmq_url, SystemClock(), settings)
    with pytest.raises(ExceptionGroup) as told:
        async with asyncio.timeout(5), bus.live(lambda _: None, lambda: None):
            await asyncio.Event().wait()
    assert "live feed" in str(told.value.exceptions[0])


async def test_events_go_on_after_a_restart_of_the_broker(tmp_path: Path) -> None:
    """A broker of its own: 3.10 dead-letters no more when a queue goes soon after a restart."""
    need_rabbitmq()
    async with private_rabbitmq(tmp_path) as broker:
        settings = _settings(broker.port)
        async with handled(settings) as seen, opened(settings) as bus:
            await bus.publish([order("before")])
            await until(lambda: "before" in seen)
            await broker.kill()
            with pytest.raises(Unavailable):
                await bus.publish([order("meanwhile")])
            await broker.start()
            await until(lambda: _published(bus, order("after")))
            await until(lambda: "after" in seen)


async def test_live_events_that_found_no_room_are_told_as_a_gap(settings: Settings) -> None:
    tight = settings.model_copy(update={"live_prefetch": 1, "live_queue_bytes": 1500})
    heard: list[Event] = []
    gaps: list[int] = []
    async with (
        opened(tight) as bus,
        bus.live(heard.append, lambda: gaps.append(len(heard))) as feed,
    ):
        await until(lambda: gaps)
        await feed.watch("alice")
        async with await aio_pika.connect(tight.rabbitmq_url) as connection:
            channel = await (await connection.channel()).get_underlay_channel()
            bodies = [encode(changed("alice", str(number))) for number in range(500)]
            hints = [Outgoing(["alice"], CONTENT_TYPE, body) for body in bodies]
            await publish_all(channel, LIVE, hints)  # each by itself
        await until(lambda: len(gaps) > 1)
        await until(lambda: heard[-1].read(NotificationChanged).notification_ids == ("499",))
    assert len(heard) < 500


async def test_a_live_event_that_nobody_can_read_is_told_as_a_gap(settings: Settings) -> None:
    """One of another version, perhaps: readers find what it told of in the database. What
    came together with it is heard."""
    gaps: list[int] = []
    heard: list[Event] = []
    async with (
        opened(settings) as bus,
        bus.live(heard.append, lambda: gaps.append(1)) as feed,
    ):
        await until(lambda: gaps)
        await feed.watch("alice")
        async with await aio_pika.connect(settings.rabbitmq_url) as connection:
            exchange = await (await connection.channel()).get_exchange(LIVE)
            for unreadable in (b"{}", b"[1", b"[{}]"):
                gaps.clear()
                await exchange.publish(aio_pika.Message(unreadable), "alice")
                await until(lambda: gaps)
            gaps.clear()
            told = changed("alice", "1"), changed("alice", "2")
            batch = encode_batch([encode(told[0]), b"{}", b"{}", encode(told[1])])
            await exchange.publish(aio_pika.Message(batch), "alice")
            await until(lambda: gaps and len(heard) == 2)
    assert len(gaps) == 1
    assert [event.data for event in heard] == [event.data for event in told]


async def test_a_live_feed_hears_again_after_its_connection_was_cut(
    way: Proxy, settings: Settings
) -> None:
    heard: list[Event] = []
    gaps: list[int] = []
    async with (
        opened(settings) as bus,
        opened(_settings(way.port)) as listening,
        listening.live(heard.append, lambda: gaps.append(len(heard))) as feed,
    ):
        for turn in range(1, 4):
            await until(lambda turn=turn: len(gaps) == turn, timeout=2)  # type: ignore[misc]
            await feed.watch(f"user-{turn}")
            await bus.publish([changed("user-1", str(turn))])
            await until(lambda turn=turn: len(heard) == turn)  # type: ignore[misc]
            way.cut()
        way.refuse()
        await until(lambda: not feed.hears)
        await way.heal()
        await until(lambda: feed.hears)


async def test_a_user_who_could_not_be_bound_is_bound_on_a_new_connection(
    way: Proxy, settings: Settings
) -> None:
    heard: list[Event] = []
    gaps: list[int] = []
    async with (
        opened(settings) as bus,
        opened(_settings(way.port)) as listening,
        listening.live(heard.append, lambda: gaps.append(len(heard))) as feed,
    ):
        await until(lambda: gaps)
        way.mute()
        await feed.watch("alice")
        await until(lambda: len(gaps) == 2, timeout=4)
        await bus.publish([changed("alice", "1")])
        await until(lambda: heard)


async def test_a_reader_that_leaves_while_it_is_bound_costs_the_others_nothing(
    way: Proxy, settings: Settings
) -> None:
    heard: list[Event] = []
    gaps: list[int] = []
    async with (
        opened(settings) as bus,
        opened(_settings(way.port)) as listening,
        listening.live(heard.append, lambda: gaps.append(len(heard))) as feed,
    ):
        await until(lambda: gaps)
        for turn in range(100):
            watching = asyncio.create_task(feed.watch(f"user-{turn}"))
            await asyncio.sleep(turn % 10 / 5000)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            feed.unwatch(f"user-{turn}")
        await feed.watch("alice")
        await bus.publish([changed("alice", "1")])
        await until(lambda: heard)
    assert (way.taken, len(gaps)) == (1, 1)


async def test_a_crowd_that_waits_to_be_bound_breaks_nothing_and_is_told_of_the_gap(
    way: Proxy, settings: Settings
) -> None:
    impatient = _settings(way.port).model_copy(update={"rabbitmq_timeout_seconds": 0.5})
    crowd = [f"user-{number}" for number in range(3000)]
    loop = asyncio.get_running_loop()
    heard: list[Event] = []
    gaps: list[float] = []
    async with (
        opened(settings) as bus,
        opened(impatient) as listening,
        listening.live(heard.append, lambda: gaps.append(loop.time())) as feed,
    ):
        await until(lambda: gaps)
        taken = way.taken
        began = loop.time()
        await asyncio.gather(*(feed.watch(user_id) for user_id in crowd))
        patience = loop.time() - began
        await until(lambda: len(gaps) == 2, timeout=30)
        await bus.publish([changed(user_id, "1") for user_id in crowd[::500]])
        await until(lambda: len(heard) == 6)
    assert way.taken == taken
    assert patience < gaps[1] - began


async def _published(bus: RabbitBus, event: Event) -> bool:
    with suppress(Unavailable):
        await bus.publish([event])
        return True
    return False
