"""What an open subscription is told without waking up the task that follows for it.

A promotion reaches thousands of subscribers at the same moment and says nearly the same to all:
their operation is executed once, with holes for what is each subscriber's own (see shapes.py), and
each is sent its own bytes while the event is in hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gateway.shapes import Pieces, Shape, filled

_MOST_SHAPES: Final = 20  # that are kept of what was said: each may be as long as its content

encode = msgspec.json.encode


class Direct(Protocol):
    """A socket that sends at once, past ASGI."""

    @property
    def is_free(self) -> bool:
        """Whether it is open, and nothing waits to be sent."""
        ...

    def send_now(self, text: bytes) -> None: ...


class AtOnce:
    """One subscription of one socket. `shape`: None until it has begun."""

    __slots__ = ("_direct", "_start", "shape")

    def __init__(self, id: str, direct: Direct) -> None:
        self._direct = direct
        self._start = b'{"id":' + encode(id) + b',"type":"next","payload":'
        self.shape: Shape | None = None

    @property
    def is_free(self) -> bool:
        return self._direct.is_free

    def send(self, pieces: Pieces, values: tuple[bytes, ...]) -> None:
        self._direct.send_now(self._start + filled(pieces, values) + b"}")


class Said:
    """What was said last, and what each shape made of it: events that follow may say the same."""

    def __init__(self) -> None:
        self._said: tuple[object, ...] = ()
        self._pieces: dict[Shape, Pieces | None] = {}

    def pieces(
        self, shape: Shape, said: tuple[object, ...], make: Callable[[Shape], Pieces | None]
    ) -> Pieces | None:
        if said != self._said:
            self._said, self._pieces = said, {}
        if shape not in self._pieces:
            if len(self._pieces) >= _MOST_SHAPES:
                self._pieces.clear()
            self._pieces[shape] = make(shape)
        return self._pieces[shape]
