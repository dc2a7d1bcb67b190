"""A new notification as it is told to open subscriptions: the same to many, but for whose it is.

A promotion reaches thousands of subscribers at the same moment. Their operation is executed once
for it (see shapes.py), and each is sent its own bytes while the event is in hand, without waking up
the task that follows for it.

First the messages of all are made, then all are sent. Sent one by one, each would wake up its
reader for itself, and that is what the system takes longest for: where a reader holds many sockets,
as a proxy does, it finds the next message before it has done with the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

import msgspec

from gateway.direct import text_frame
from gateway.encoding import encode
from gateway.shapes import Shape
from services.notifications.cursor import to_milliseconds
from services.shared.events import NotificationCreated, NotificationsCreated
from services.shared.log import get_logger
from services.shared.vocabulary import NotificationType

log = get_logger()

_MOST_SHAPES: Final = 20  # that are kept: each may be as long as the content
_MUCH: Final = 2**20  # bytes: so many don't wait until all are made


class News:
    """`at`: its stamp, milliseconds."""

    __slots__ = ("_created", "_size", "_templates", "_unsent", "at", "expires_at", "kind")

    def __init__(self, created: NotificationCreated) -> None:
        self._created = created
        self._templates: dict[Shape, bytes | None] = {}
        self._unsent: dict[Direct, bytes] = {}
        self._size = 0
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

    def template(self, shape: Shape, make: Make) -> bytes | None:
        """What the shape makes of it, once; None where it can't."""
        if shape not in self._templates:
            if len(self._templates) >= _MOST_SHAPES:
                self._templates.clear()
            self._templates[shape] = make(shape, self._created)
        return self._templates[shape]

    def make_way(self, direct: Direct) -> bool:
        """Whether it can be sent a message now. A socket holds one: what was made for another of
        its subscriptions is sent first."""
        frame = self._unsent.pop(direct, None)
        if frame is not None:
            _send({direct: frame})
        return direct.is_free

    def say(self, direct: Direct, text: bytes) -> None:
        """Have it sent a message with all the others. It is free."""
        self._unsent[direct] = frame = text_frame(text)
        self._size += len(frame)
        if self._size >= _MUCH:
            self.send()

    def send(self) -> None:
        """Send what was made."""
        unsent, self._unsent, self._size = self._unsent, {}, 0
        _send(unsent)


Make = Callable[[Shape, NotificationCreated], bytes | None]


class Direct(Protocol):
    """A socket that sends at once, past ASGI."""

    @property
    def is_free(self) -> bool:
        """Whether it is open, and nothing waits to be sent."""
        ...

    def write(self, frame: bytes) -> None: ...

    def cut(self) -> None:
        """End it, without a word."""
        ...


def _send(frames: Mapping[Direct, bytes]) -> None:
    """Whose socket fails comes back with the cursor that it had."""
    for direct, frame in frames.items():
        try:
            direct.write(frame)
        except Exception as error:
            log.error("not_told_at_once", exc_info=error)
            direct.cut()


class AtOnce:
    """One subscription of one socket. `shape`: None until it has begun; `start`: of its messages,
    up to the payload."""

    __slots__ = ("direct", "shape", "start")

    def __init__(self, id: str, direct: Direct) -> None:
        self.start = b'{"id":' + encode(id) + b',"type":"next","payload":'
        self.direct = direct
        self.shape: Shape | None = None
