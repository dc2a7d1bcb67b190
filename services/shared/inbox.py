"""The inbox: which events were seen, so that one id can't stand for two contents.

That an event is handled once is not decided here: handlers are idempotent by the event's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

import msgspec
from beanie import Document
from pymongo import IndexModel

from services.shared.clock import Clock
from services.shared.errors import Conflict
from services.shared.events import Data, Event
from services.shared.settings import Settings
from services.shared.store import Row, Session, insert_new

OTHER_CONTENT: Final = "This event id was used with other content: choose a new id."


class SeenEvent(Document):
    """What an event said, as a digest of its type and data. The id is the event's key."""

    id: str  # type: ignore[assignment]
    digest: bytes
    forget_at: datetime

    class Settings:
        name = "inbox"
        indexes = (IndexModel([("forget_at", 1)], expireAfterSeconds=0),)


MODELS: list[type[Document]] = [SeenEvent]


class Inbox:
    """Remembers events for EVENT_MEMORY_SECONDS."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._memory = timedelta(seconds=settings.event_memory_seconds)

    async def conflicting(self, events: Sequence[Event]) -> set[int]:
        """Remember these events; the positions of those whose id says something else already."""
        forget_at = self._clock.now() + self._memory
        known = await insert_new(SeenEvent, [_row(event, forget_at) for event in events])
        if not known:
            return set()
        keys = {events[index].key for index in known}
        digests = {
            seen.id: seen.digest async for seen in SeenEvent.find({"_id": {"$in": list(keys)}})
        }
        return {
            index
            for index in known
            if digests.get(events[index].key, _digest(events[index])) != _digest(events[index])
        }

    async def remember(self, event: Event, session: Session) -> None:
        """Remember it in the session's transaction. Raises DuplicateKeyError for a known one."""
        row = _row(event, self._clock.now() + self._memory)
        await SeenEvent.get_pymongo_collection().insert_one(row, session=session)

    async def check_known(self, event: Event) -> None:
        """Raises Conflict when the event's id was used with other content."""
        seen = await SeenEvent.get(event.key)
        if seen is not None and seen.digest != _digest(event):
            raise Conflict(OTHER_CONTENT)


def _row(event: Event, forget_at: datetime) -> Row:
    return {"_id": event.key, "digest": _digest(event), "forget_at": forget_at}


def _digest(event: Event) -> bytes:
    """Equal for the same as JSON, whatever the order of keys and whoever sent it when.

    Without what has its default, which is the same as not said: a version that knows one optional
    field more must find its predecessor's digests right.
    """
    said = {}
    for name, encoded_name, default in _fields(type(event.data)):
        if (value := getattr(event.data, name)) != default:
            said[encoded_name] = value
    encoded = msgspec.json.encode((event.type, said), order="sorted")
    return hashlib.blake2b(encoded, digest_size=16).digest()


@cache
def _fields(kind: type[Data]) -> Sequence[tuple[str, str, Any]]:
    """Name, name in JSON and default of each: to look that up takes longer than all the rest."""
    return [(one.name, one.encode_name, one.default) for one in msgspec.structs.fields(kind)]
