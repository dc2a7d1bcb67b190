"""What open screens are told of notifications that were stored or revised.

A broadcast tells thousands the same, so what says the same to many is one event for up to 500 of
them, which reaches each gateway once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from services.notifications.models import created
from services.shared.events import (
    Data,
    Event,
    NotificationChanged,
    NotificationsCreated,
    Recipient,
)
from services.shared.store import Row
from services.shared.vocabulary import ChangeKind, NotificationType

MOST_RECIPIENTS: Final = 500  # some 40 KB, of which a gateway reads all


def hints(
    rows: Iterable[Row | None], now: datetime, together: int = MOST_RECIPIENTS
) -> list[Event]:
    """Of these notifications, each once and as it is now, in their order; of so many at most in
    one event. Nobody remembers their ids: what is told again may have the same."""
    distinct = {row["_id"]: row for row in rows if row}
    return [
        Event.of(data, time=now, id=f"{part[0]['_id']}/{part[0].get('revision', 1)}/{number}")
        for part in _alike(distinct.values(), together)
        for number, data in enumerate(_told(part))
    ]


def _alike(rows: Iterable[Row], most: int) -> Iterator[Sequence[Row]]:
    part: list[Row] = []
    for row in rows:
        if part and (len(part) == most or not _say_the_same(part[0], row)):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _say_the_same(one: Row, other: Row) -> bool:
    """What has a history is told alone."""
    return (
        _is_new(one)
        and _is_new(other)
        and _text(one) == _text(other)
        and _is_same(one["content"], other["content"])
    )


def _text(row: Row) -> tuple[object, ...]:
    return row["title"], row["body"], row["type"], row["sent_at"], row.get("expires_at")


def _is_same(one: object, other: object) -> bool:
    """As JSON: 1, 1.0 and true are equal, and not the same."""
    return one is other or msgspec.json.encode(one) == msgspec.json.encode(other)


def _is_new(row: Row) -> bool:
    """Whether nothing has been done with it yet. Rows of before do not say: they are not."""
    touched = row.get("seen", True) or row.get("archived") or row.get("read_at")
    return not touched and not row.get("snoozed_until") and row.get("revision", 1) == 1


def _told(part: Sequence[Row]) -> Iterator[Data]:
    row = part[0]
    if len(part) > 1:
        yield NotificationsCreated(
            kind=NotificationType(row["type"]),
            title=row["title"],
            body=row["body"],
            content=row["content"],
            sent_at=row["sent_at"],
            expires_at=row.get("expires_at"),
            recipients=tuple(Recipient(id=str(one["_id"]), user_id=one["user_id"]) for one in part),
        )
        return
    yield created(row)
    if row.get("revision", 1) > 1:
        yield NotificationChanged(
            user_id=row["user_id"], kind=ChangeKind.REVISED, notification_ids=(str(row["_id"]),)
        )
