"""What is said to many at the same time is one event, and one message of the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from bson import ObjectId

from gateway.news import News
from services.notifications.hints import MOST_RECIPIENTS, hints
from services.notifications.models import created
from services.shared.bus import LiveFeed
from services.shared.clock import SystemClock
from services.shared.events import (
    Event,
    NotificationChanged,
    NotificationCreated,
    NotificationsCreated,
    decode,
    encode,
    split_batch,
)
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.store import Row
from services.shared.topology import LIVE
from services.shared.vocabulary import ChangeKind, NotificationType
from tests.servers import PrivateRabbitMQ, until

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_what_says_the_same_is_one_event_that_tells_each_their_own() -> None:
    rows = [_row(f"user-{n}") for n in range(3)]
    [event] = hints(rows, NOW)
    assert _told(event) == [created(row) for row in rows]


def test_what_differs_in_a_word_or_has_a_history_is_told_alone_and_in_order() -> None:
    rows = [
        _row("a"),
        _row("b"),
        _row("c", title="Another"),
        _row("d", sent_at=NOW + timedelta(seconds=1)),
        _row("e", revision=2),
        _row("f", seen=True),
        _row("g", read_at=NOW),
        _row("h", archived=True),
        _row("i", snoozed_until=NOW),
        _row("j"),
        *(_row(user, content={"n": n}) for user, n in zip("klm", (1, True, 1.0), strict=True)),
    ]
    events = hints(rows, NOW)
    revised = NotificationChanged(
        user_id="e", kind=ChangeKind.REVISED, notification_ids=(str(rows[4]["_id"]),)
    )
    told = [created(row) for row in rows]
    assert [one for event in events for one in _told(event)] == [*told[:5], revised, *told[5:]]
    assert len(events) == len(rows)  # one is of two, and one of which there are two


def test_a_notification_is_told_once_and_what_is_none_not_at_all() -> None:
    row = _row("a")
    assert [event.data for event in hints([row, None, row], NOW)] == [created(row)]


def test_what_the_outbox_keeps_in_order_is_told_to_each_alone() -> None:
    events = hints([_row("a"), _row("b")], NOW, together=1)
    assert [event.subject for event in events] == ["a", "b"]


def test_an_event_has_no_more_than_so_many_recipients() -> None:
    events = hints([_row(f"user-{n}") for n in range(MOST_RECIPIENTS + 1)], NOW)
    assert [len(_told(event)) for event in events] == [MOST_RECIPIENTS, 1]


async def test_each_gateway_that_hears_of_some_of_them_hears_it_once(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    heard: dict[str, list[str]] = {"one": [], "two": []}
    async with (
        _opened(rabbitmq) as bus,
        _hearing(bus, heard["one"], "id") as one,
        _hearing(bus, heard["two"], "id") as two,
    ):
        for user in ("a", "b"):
            await one.watch(user)
        await two.watch("c")
        rows = [_row(user) for user in "abcd"]
        [all_of_them] = hints(rows, NOW)
        await bus.publish([all_of_them])
        last = [_row("a"), _row("c")]
        for row in last:
            await bus.publish(hints([row], NOW))
        ids, ends = ([str(row["_id"]) for row in some] for some in (rows, last))
        await until(lambda: heard["one"][-1:] == ends[:1] and heard["two"][-1:] == ends[1:])
    assert heard == {"one": [*ids, ends[0]], "two": [*ids, ends[1]]}


async def test_what_is_said_to_more_than_a_message_is_routed_to_every_gateway_hears(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    heard: dict[str, list[str]] = {"watches": [], "watches nobody": []}
    async with (
        _opened(rabbitmq) as bus,
        _tapped(rabbitmq) as messages,
        _hearing(bus, heard["watches"], "user_id") as one,
        _hearing(bus, heard["watches nobody"], "user_id"),
    ):
        users = [f"user-{n}" for n in range(51)]
        for user in (*users[:2], "last"):
            await one.watch(user)
        some = hints([_row(user) for user in users[:50]], NOW)
        many = hints([_row(user) for user in users], NOW)
        await bus.publish([*some, *many, *hints([_row("last")], NOW)])
        await until(lambda: heard["watches"][-1:] == ["last"] and heard["watches nobody"])
        await until(lambda: len(messages) == 3)
    assert heard == {"watches": [*users[:50], *users, "last"], "watches nobody": users}
    assert [one.routing_key for one in messages] == [users[0], "everybody", "last"]
    assert [one.headers.get("CC") for one in messages] == [users[1:50], None, None]


async def test_what_differs_goes_some_in_a_message_and_each_hears_their_own_once(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    async with _opened(rabbitmq) as bus, _tapped(rabbitmq) as messages:
        heard: list[NotificationCreated] = []
        ready = asyncio.Event()
        async with bus.live(lambda event: heard.extend(_told(event)), ready.set) as feed:
            await ready.wait()
            watched = [f"user-{n}" for n in (0, 60, 61, 119)]
            for user in watched:
                await feed.watch(user)
            rows = [_row(f"user-{n % 120}", title=str(n)) for n in range(240)]
            await bus.publish(hints(rows, NOW))
            await until(lambda: heard and heard[-1].title == "239")
        await until(lambda: len(messages) >= 5)
    own = [one.title for one in heard if one.user_id in watched]
    assert own == [row["title"] for row in rows if row["user_id"] in watched]
    split = [split_batch(message.body) for message in messages]
    told = [decode(body, received=NOW).read(NotificationCreated) for part in split for body in part]
    assert [one.title for one in told] == [row["title"] for row in rows]
    assert [len(part) for part in split] == [50, 50, 50, 50, 40]
    types = {message.content_type for message in messages}
    assert types == {"application/cloudevents-batch+json"}


async def test_what_is_large_goes_by_itself_as_a_plain_event(rabbitmq: PrivateRabbitMQ) -> None:
    async with _opened(rabbitmq) as bus, _tapped(rabbitmq) as messages:
        sizes = (20_000, 20_000, 70_000, 20_000)
        rows = [_row(f"user-{n}", title=str(n), body="x" * size) for n, size in enumerate(sizes)]
        await bus.publish(hints(rows, NOW))
        await until(lambda: len(messages) == 3)
    assert [len(split_batch(message.body)) for message in messages] == [2, 1, 1]
    assert messages[1].content_type == messages[2].content_type == "application/cloudevents+json"
    assert decode(messages[1].body, received=NOW).data == created(rows[2])


async def test_what_goes_to_many_needs_a_message_of_its_own(rabbitmq: PrivateRabbitMQ) -> None:
    async with _opened(rabbitmq) as bus, _tapped(rabbitmq) as messages:
        rows = [_row(f"user-{n}", title=f"{n // 500}") for n in range(1001)]
        await bus.publish(hints(rows, NOW))
        await until(lambda: len(messages) == 3)
    bodies = [split_batch(message.body) for message in messages]
    assert [[len(_told(decode(one, received=NOW))) for one in part] for part in bodies] == [
        [500],
        [500],
        [1],
    ]


@asynccontextmanager
async def _opened(rabbitmq: PrivateRabbitMQ) -> AsyncIterator[RabbitBus]:
    settings = Settings(_env_file=None, rabbitmq_url=rabbitmq.url)
    bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
    await bus.ping()
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def _hearing(bus: RabbitBus, heard: list[str], field: str) -> AsyncIterator[LiveFeed]:
    """A gateway's feed: of each who is told, the field is added."""
    ready = asyncio.Event()

    def hear(event: Event) -> None:
        heard.extend(getattr(one, field) for one in _told(event))

    async with bus.live(hear, ready.set) as feed:
        await ready.wait()
        yield feed


@asynccontextmanager
async def _tapped(rabbitmq: PrivateRabbitMQ) -> AsyncIterator[list[AbstractIncomingMessage]]:
    """All messages to open screens, as they are."""
    messages: list[AbstractIncomingMessage] = []

    async def hear(message: AbstractIncomingMessage) -> None:
        messages.append(message)

    async with await aio_pika.connect(rabbitmq.url) as connection:
        queue = await (await connection.channel()).declare_queue(exclusive=True)
        await queue.bind(LIVE, "#")
        await queue.consume(hear, no_ack=True)
        yield messages


def _told(event: Event) -> list[Any]:
    """What it tells when it has come through the broker, to one user each."""
    data = decode(encode(event), received=NOW, checked=True).data
    if not isinstance(data, NotificationsCreated):
        return [data]
    news = News.to_many(data)
    return [news.hint(one.id, one.user_id) for one in data.recipients]


def _row(user_id: str, **fields: Any) -> Row:
    return {
        "_id": ObjectId(),
        "user_id": user_id,
        "type": NotificationType.PROMOTION.value,
        "title": "Sale",
        "body": "Half the price",
        "content": {"title": "Sale"},
        "sent_at": NOW,
        "expires_at": None,
        "seen": False,
    } | fields
