"""Where a reader is in a user's notifications: opaque outside, exact inside. Pure.

Notifications are in the order of (sentAt, id). A writer stamps sentAt just before it writes, so
for a while (the write window) an older one may still turn up behind a newer one. A cursor
therefore names a position *and* what was seen within the unsettled time before it:

    ── settled: all was seen ──┤ floor    unsettled: only `seen` was ├─ position ── not yet seen ▶

Wanted by whoever comes back with it: all behind the position, and what is not in `seen` between
the floor and the position. Nothing is lost to writers that overtake each other, nothing is twice.
One that is revised moves to the top: it leaves its place, and is wanted once more at its new one.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NamedTuple

import msgspec
from bson import ObjectId
from msgspec import Meta, Struct

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

Milliseconds = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
IdBytes = Annotated[bytes, Meta(min_length=12, max_length=12)]


class CursorRefused(ValueError):
    """This text is no cursor of ours."""


class Position(NamedTuple):
    """A notification's place in the order. `at`: milliseconds since 1970."""

    at: int
    id: bytes

    @classmethod
    def start(cls) -> Position:
        """Before every notification."""
        return cls(0, bytes(12))

    @classmethod
    def of(cls, sent_at: datetime, id: ObjectId) -> Position:
        return cls(to_milliseconds(sent_at), id.binary)

    @classmethod
    def of_hex(cls, at: int, id: str) -> Position:
        """`id`: 24 hex digits. Raises ValueError."""
        raw = bytes.fromhex(id)
        if len(raw) != 12 or len(id) != 24:  # it passes over spaces
            raise ValueError(f"{id} is no id of a notification")
        return cls(at, raw)

    @property
    def sent_at(self) -> datetime:
        return from_milliseconds(self.at)

    @property
    def object_id(self) -> ObjectId:
        return ObjectId(self.id)


class Seen(NamedTuple):
    """What was seen in a place: its id, and how many milliseconds behind the floor that was."""

    id: IdBytes
    behind: Milliseconds


class Cursor(Struct, frozen=True, array_like=True):
    """`floor`: milliseconds; `seen`: what was at or behind the floor, up to the position.

    Not `exact`: in a flood they were too many to name, so that it is good for paging alone.
    """

    at: Milliseconds
    id: IdBytes
    floor: Milliseconds
    seen: tuple[Seen, ...] = ()
    exact: bool = True

    @property
    def position(self) -> Position:
        return Position(self.at, self.id)

    def encode(self) -> str:
        return _text(self).decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Raises CursorRefused."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
            return msgspec.msgpack.decode(raw, type=cls)
        except (UnicodeError, binascii.Error, msgspec.MsgspecError, RecursionError) as error:
            raise CursorRefused("not a cursor of Tidings") from error


class Progress:
    """How far one reader has come: what it has seen, and so what it still wants."""

    __slots__ = ("_floor", "_position", "_seen")

    def __init__(self, cursor: Cursor) -> None:
        self._position = cursor.position
        self._floor = cursor.floor
        self._seen: dict[bytes, int] = {id: self._floor + behind for id, behind in cursor.seen}

    @property
    def start(self) -> Position:
        """Nothing that is wanted lies before it."""
        return Position(min(self._floor, self._position.at), bytes(12))

    @property
    def unsettled(self) -> int:
        """How many places the cursor has to carry."""
        return len(self._seen)

    def wants(self, position: Position) -> bool:
        if position > self._position:
            return True
        return position.at >= self._floor and position.at > self._seen.get(position.id, -1)

    def saw(self, position: Position) -> None:
        if position > self._position:
            self._position = position
        at, id = position
        if at >= self._floor and at > self._seen.get(id, -1):
            self._seen[id] = at

    def saw_in_order(self, position: Position, settled: datetime) -> None:
        """Like `saw`, by who saw all that is wanted before it, and is written before `settled`."""
        self.settle(min(settled, position.sent_at))
        newest = position > self._position
        self.saw(position)
        if newest and position.sent_at < settled:
            self._settle(position.at + 1)  # what shares its stamp and is behind it is wanted yet

    def settle(self, before: datetime) -> None:
        """All that is stamped before then has been read: it needs no remembering."""
        self._settle(to_milliseconds(before))

    def _settle(self, before: int) -> None:
        if before > self._floor:
            self._floor = before
            self._seen = {id: at for id, at in self._seen.items() if at >= before}

    def encoded(self) -> bytes:
        """As the cursor's text is, without making the cursor first."""
        at, id = self._position
        floor = self._floor
        seen = [(id, at - floor) for id, at in self._seen.items()]
        return _text((at, id, floor, seen, True))

    def cursor(self) -> Cursor:
        seen = tuple(Seen(id, at - self._floor) for id, at in self._seen.items())
        return Cursor(*self._position, self._floor, seen)


def _text(cursor: object) -> bytes:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).rstrip(b"=")


def to_milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def from_milliseconds(milliseconds: int) -> datetime:
    return _EPOCH + milliseconds * _MILLISECOND
