"""A new notification as it is told to open subscriptions: the same to many, but for whose it is.

A promotion reaches thousands of subscribers at the same moment. Their operation is executed once
for it (see shapes.py), and each is sent its own bytes while the event is in hand, without waking up
the task that follows for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

import msgspec

from gateway.encoding import encode
from gateway.shapes import Pieces, Shape, filled
from services.notifications.cursor import to_milliseconds
from services.shared.events import NotificationCreated, NotificationsCreated
from services.shared.vocabulary import NotificationType

_MOST_SHAPES: Final = 20  # that are kept: each may be as long as the content


class News:
    """`at`: its stamp, milliseconds."""

    __slots__ = ("_created", "_pieces", "at", "expires_at", "kind")

    def __init__(self, created: NotificationCreated) -> None:
        self._created = created
        self._pieces: dict[Shape, Pieces | None] = {}
        self.kind: NotificationType = created.kind
        self.expires_at: datetime | None = created.expires_at
        self.at = to_milliseconds(created.sent_at)

    @classmethod
    def to_many(cls, data: NotificationsCreated) -> News:
        first = data.recipients[0]
        return cls(
            NotificationCreated(
                id=first.id,
                user_id=first.user_id,
                kind=data.kind,
                title=data.title,
                body=data.body,
                content=data.content,
                sent_at=data.sent_at,
                expires_at=data.expires_at,
            )
        )

    def hint(self, id: str, user_id: str) -> NotificationCreated:
        return msgspec.structs.replace(self._created, id=id, user_id=user_id)

    def pieces(self, shape: Shape, make: Make) -> Pieces | None:
        """What the shape makes of it, once; None where it can't."""
        if shape not in self._pieces:
            if len(self._pieces) >= _MOST_SHAPES:
                self._pieces.clear()
            self._pieces[shape] = make(shape, self._created)
        return self._pieces[shape]


Make = Callable[[Shape, NotificationCreated], Pieces | None]


class Direct(Protocol):
    """A socket that sends at once, past ASGI."""

    @property
    def is_free(self) -> bool:
        """Whether it is open, and nothing waits to be sent."""
        ...

    def send_now(self, text: bytes) -> None: ...


class AtOnce:
    """One subscription of one socket. `shape`: None until it has begun."""

    __slots__ = ("_start", "direct", "shape")

    def __init__(self, id: str, direct: Direct) -> None:
        self._start = b'{"id":' + encode(id) + b',"type":"next","payload":'
        self.direct = direct
        self.shape: Shape | None = None

    def send(self, pieces: Pieces, values: tuple[bytes, ...]) -> None:
        self.direct.send_now(self._start + filled(pieces, values) + b"}")
