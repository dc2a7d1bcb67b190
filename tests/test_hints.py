"""What is said to many at the same time is one event, and one message of the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

from gateway.news import News
from services.notifications.hints import MOST_RECIPIENTS, hints
from services.notifications.models import created
from services.shared.clock import SystemClock
from services.shared.events import (
    Event,
    NotificationChanged,
    NotificationsCreated,
    decode,
    encode,
)
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.store import Row
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


def test_an_event_has_no_more_recipients_than_a_frame_has_room_for() -> None:
    events = hints([_row(f"user-{n}") for n in range(MOST_RECIPIENTS + 1)], NOW)
    assert [len(_told(event)) for event in events] == [MOST_RECIPIENTS, 1]


async def test_each_gateway_that_hears_of_some_of_them_hears_it_once(
    rabbitmq: PrivateRabbitMQ,
) -> None:
    settings = Settings(_env_file=None, rabbitmq_url=rabbitmq.url)
    bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
    heard: dict[str, list[str]] = {"one": [], "two": []}
    ready = {name: asyncio.Event() for name in heard}

    def hear(name: str) -> Callable[[Event], None]:
        return lambda event: heard[name].extend(one.id for one in _told(event))

    async with (
        bus.live(hear("one"), ready["one"].set) as one,
        bus.live(hear("two"), ready["two"].set) as two,
    ):
        for event in ready.values():
            await event.wait()
        for user in ("a", "b"):
            await one.watch(user)
        await two.watch("c")
        rows = [_row(user) for user in "abcd"]
        [all_of_them] = hints(rows, NOW)
        await bus.publish([all_of_them])
        last = [_row("a"), _row("c", title="Another")]
        await bus.publish(hints(last, NOW))
        ids, ends = ([str(row["_id"]) for row in some] for some in (rows, last))
        await until(lambda: heard["one"][-1:] == ends[:1] and heard["two"][-1:] == ends[1:])
    await bus.close()
    assert heard == {"one": [*ids, ends[0]], "two": [*ids, ends[1]]}


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
