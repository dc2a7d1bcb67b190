"""What is said to many at the same time is one message of the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

from gateway.news import News
from services.shared.clock import SystemClock
from services.shared.events import (
    Event,
    NotificationChanged,
    NotificationCreated,
    NotificationsCreated,
    decode,
)
from services.shared.live_messages import MOST_RECIPIENTS, LiveMessage, live_messages
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.vocabulary import ChangeKind, NotificationType
from tests.servers import PrivateRabbitMQ, until

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_what_says_the_same_is_one_message_that_tells_each_their_own() -> None:
    events = [_created(f"user-{n}") for n in range(3)]
    [message] = _messages(events)
    assert list(message.keys) == ["user-0", "user-1", "user-2"]
    assert _told(message) == [event.data for event in events]


def test_what_differs_in_a_word_or_has_a_history_is_told_alone_and_in_order() -> None:
    events = [
        _created("a"),
        _created("b"),
        _created("c", title="Another"),
        _created("d", sent_at=NOW + timedelta(seconds=1)),
        _created("e", revision=2),
        _changed("e"),
        _created("f", seen=True),
        _created("g"),
        *(_created(user, content={"n": n}) for user, n in zip("hij", (1, True, 1.0), strict=True)),
    ]
    messages = _messages(events)
    assert [list(one.keys) for one in messages] == [["a", "b"], *([key] for key in "cdeefghij")]
    assert [one for message in messages for one in _told(message)] == [one.data for one in events]


def test_a_message_has_no_more_recipients_than_its_headers_have_room_for() -> None:
    messages = _messages(_created(f"user-{n}") for n in range(MOST_RECIPIENTS + 1))
    assert [len(one.keys) for one in messages] == [MOST_RECIPIENTS, 1]
    long = "x" * 200
    events = [_created(f"{long}{n}") for n in range(MOST_RECIPIENTS)]
    messages = _messages(events)
    assert [key for one in messages for key in one.keys] == [event.subject for event in events]
    assert all(sum(map(len, one.keys)) < 70_000 for one in messages)


async def test_each_gateway_that_hears_of_some_of_them_hears_it_once(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    settings = Settings(_env_file=None, rabbitmq_url=rabbitmq.url)
    bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
    heard: dict[str, list[str]] = {"one": [], "two": []}
    ready = {name: asyncio.Event() for name in heard}

    def hear(name: str) -> Callable[[Event], None]:
        return lambda event: heard[name].extend(one.id for one in _each(event))

    async with (
        bus.live(hear("one"), ready["one"].set) as one,
        bus.live(hear("two"), ready["two"].set) as two,
    ):
        for event in ready.values():
            await event.wait()
        for user in ("a", "b"):
            await one.watch(user)
        await two.watch("c")
        events = [_created(user) for user in "abcd"]
        ids = [event.read(NotificationCreated).id for event in events]
        await bus.publish(events)
        last = [_created("a"), _created("c", title="Another")]
        await bus.publish(last)
        ends = [event.read(NotificationCreated).id for event in last]
        await until(lambda: heard["one"][-1:] == ends[:1] and heard["two"][-1:] == ends[1:])
    await bus.close()
    assert heard == {"one": [*ids, ends[0]], "two": [*ids, ends[1]]}


def _messages(events: Iterable[Event]) -> list[LiveMessage]:
    return [*live_messages([*events])]


def _told(message: LiveMessage) -> list[Any]:
    return _each(decode(message.body, received=NOW, checked=True))


def _each(event: Event) -> list[Any]:
    """What it tells, to one user each."""
    data = event.data
    if not isinstance(data, NotificationsCreated):
        return [data]
    news = News.to_many(data)
    return [news.hint(one.id, one.user_id) for one in data.recipients]


def _created(user_id: str, **fields: Any) -> Event:
    given: dict[str, Any] = {
        "id": str(ObjectId()),
        "user_id": user_id,
        "kind": NotificationType.PROMOTION,
        "title": "Sale",
        "body": "Half the price",
        "content": {"title": "Sale"},
        "sent_at": NOW,
    }
    data = NotificationCreated(**(given | fields))
    return Event.of(data, time=NOW)


def _changed(user_id: str) -> Event:
    data = NotificationChanged(user_id=user_id, kind=ChangeKind.REVISED, notification_ids=("1",))
    return Event.of(data, time=NOW)
