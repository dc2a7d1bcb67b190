"""Live events as messages of the broker: what is said to many at the same time is one message.

A broadcast tells thousands the same. RabbitMQ routes a message by further keys, too, that its
header CC names, so one message reaches each gateway once that hears of any of its users.
A gateway of before does not know it, takes it for a gap, and reads what is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import msgspec

from services.shared.events import (
    Event,
    NotificationCreated,
    NotificationsCreated,
    Recipient,
    encode,
)

MOST_RECIPIENTS: Final = 500
_MOST_KEY_BYTES: Final = 65_536  # a frame takes twice that, and headers are one


@dataclass(frozen=True, slots=True)
class LiveMessage:
    """`keys`: the users that it is for."""

    body: bytes
    keys: Sequence[str]


def live_messages(events: Sequence[Event]) -> Iterator[LiveMessage]:
    """Of these live events, in their order."""
    for _, told in groupby(events, _said):
        for part in _parts([*told]):
            yield LiveMessage(
                encode(part[0] if len(part) == 1 else _of_many(part)),
                [event.subject for event in part],
            )


def _said(event: Event) -> object:
    """Equal for those that one message may tell; what has a history is told alone."""
    data = event.data
    if not isinstance(data, NotificationCreated) or not data.is_new:
        return event.id
    content = msgspec.json.encode(data.content)  # 1, 1.0 and true are equal, and not the same
    return (data.kind, data.title, data.body, content, data.sent_at, data.expires_at)


def _parts(told: Sequence[Event]) -> Iterator[Sequence[Event]]:
    part: list[Event] = []
    size = 0
    for event in told:
        longer = size + len(event.subject.encode())
        if part and (len(part) >= MOST_RECIPIENTS or longer > _MOST_KEY_BYTES):
            yield part
            part, longer = [], len(event.subject.encode())
        part.append(event)
        size = longer
    yield part


def _of_many(part: Sequence[Event]) -> Event:
    first = part[0]
    shared = first.read(NotificationCreated)
    data = NotificationsCreated(
        kind=shared.kind,
        title=shared.title,
        body=shared.body,
        content=shared.content,
        sent_at=shared.sent_at,
        expires_at=shared.expires_at,
        recipients=tuple(
            Recipient(id=one.id, user_id=one.user_id)
            for one in (event.read(NotificationCreated) for event in part)
        ),
    )
    return Event(id=first.id, source=first.source, subject=data.subject, time=first.time, data=data)
