"""Where events come in that a caller publishes: checked, and durable before they are answered."""

from __future__ import annotations

import re
from typing import Final
from uuid import uuid4

import msgspec
from pymongo.errors import DuplicateKeyError

from services.shared.clock import Clock
from services.shared.content import ContentRefused, check_content
from services.shared.errors import BadInput, NotFound
from services.shared.events import (
    Data,
    Event,
    Malformed,
    OrderStatusChanged,
    PromotionAnnounced,
    encode,
    parse_data,
)
from services.shared.inbox import Inbox
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session, Store
from services.users.models import User

_PLACE: Final = re.compile(r"`\$\.(\w+)")


class Intake:
    def __init__(
        self, store: Store, outbox: Outbox, inbox: Inbox, clock: Clock, settings: Settings
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._inbox = inbox
        self._clock = clock
        self._settings = settings

    async def accept(
        self,
        data: Data,
        *,
        source: str,
        event_id: str | None,
    ) -> str:
        """Take an event for publishing; its id. `source` names the caller, whose ids are its own.

        The same event again is taken as the first. Raises BadInput, Conflict for an id that was
        used with other content, and NotFound for an order of nobody.
        """
        if event_id is not None and not 1 <= len(event_id) <= 200:
            raise BadInput("An eventId has 1 to 200 characters.", "input.eventId")
        self._check(data)
        if isinstance(data, OrderStatusChanged) and await User.by_id(data.user_id) is None:
            raise NotFound(f"There is no user {data.user_id}.")
        event = Event.of(data, time=self._clock.now(), id=event_id or uuid4().hex, source=source)
        self._check_size(len(encode(event)), "MAX_EVENT_BYTES", self._settings.max_event_bytes)

        async def write(session: Session) -> None:
            await self._inbox.remember(event, session)
            await self._outbox.put([event], session)

        try:
            await self._store.transact(write)
        except DuplicateKeyError:
            await self._inbox.check_known(event)
        self._outbox.wake()
        return event.id

    def _check(self, data: Data) -> None:
        if isinstance(data, OrderStatusChanged):
            try:
                check_content(data.details, "details")
            except ContentRefused as error:
                raise BadInput(str(error), "input.details") from error
        body = checked_body(data)
        if not isinstance(data, PromotionAnnounced):  # which may name its users
            self._check_size(len(body), "MAX_CONTENT_BYTES", self._settings.max_content_bytes)
        expires_at = data.expires_at if isinstance(data, PromotionAnnounced) else None
        if expires_at is not None and expires_at <= self._clock.now():
            raise BadInput("expiresAt lies in the past.", "input.expiresAt")

    def _check_size(self, size: int, setting: str, limit: int) -> None:
        if size > limit:
            raise BadInput(f"The event has {size} bytes; {limit} is the most ({setting}).", "input")


def checked_body(data: Data) -> bytes:
    """As JSON. Raises BadInput with the place in `input`."""
    try:
        body = msgspec.json.encode(data)
        parse_data(data.type, body)
    except (Malformed, msgspec.MsgspecError, OverflowError) as error:
        place = _PLACE.search(str(error))
        raise BadInput(str(error), f"input.{place[1]}" if place else "input") from error
    return body
