"""A notification before it is stored, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import msgspec
from bson import ObjectId
from msgspec import Struct, structs

from services.notifications.collapse import Collapse, Thing, later, thing_of
from services.notifications.models import Notification
from services.notifications.personalize import Decision
from services.notifications.recommend import Recommendation
from services.notifications.templates import (
    LONGEST_TITLE,
    Text,
    Words,
    content_text,
    promotion_variables,
    recommendation_text,
)
from services.notifications.wording import Texts
from services.shared.clock import whole_milliseconds
from services.shared.content import ContentRefused, check_content, composed, json_size
from services.shared.errors import BadInput
from services.shared.events import PromotionAnnounced
from services.shared.store import Row
from services.shared.tasks import let_others_run
from services.shared.vocabulary import ChangeKind, Channel, NotificationType, Outcome
from services.users.recipients import Customer

Lives = Mapping[NotificationType, timedelta]  # of types whose notifications expire by themselves
Key = tuple[str, str]  # of a notification: its user's id, its event's key
_STATES: Final = ("read", "read_at", "seen", "archived", "snoozed_until")


class Draft(Struct, frozen=True, dict=True):
    """A notification that is wanted for a user, before it is decided. `event`: the event's key.
    `expires_at`: None for what its type has. `own_title`: whether its caller gave the title, which
    else may read otherwise another time. `collapse`: what it is a state of, if of anything."""

    user_id: str
    event: str
    type: NotificationType
    text: Text
    content: Any
    expires_at: datetime | None = None
    product_ids: list[str] = []
    status: str | None = None  # of the order that it tells of
    own_title: bool = False
    collapse: Collapse | None = None

    @property
    def key(self) -> Key:
        return self.user_id, self.event

    @property
    def said(self) -> bytes:
        """A digest of what it says: equal for what says the same."""
        title = self.text.title if self.own_title else None
        return blake2b(gist(self.type, title, self.content), digest_size=16).digest()

    @cached_property
    def thing(self) -> Thing | None:
        """What it is a state of."""
        return thing_of(self.user_id, self.type, self.collapse.key) if self.collapse else None

    @property
    def size(self) -> int:
        """Bytes, nearly."""
        return json_size((self.text.title, self.text.body, self.content))

    def lasting(self, now: datetime, lives: Lives) -> Draft:
        """With an end, where its type has one."""
        if self.expires_at is not None or self.type not in lives:
            return self
        return structs.replace(self, expires_at=now + lives[self.type])

    def row(self, now: datetime, decision: dict[str, Any]) -> Row:
        """As it is stored. `decision`: see traces.py."""
        row: Row = {
            "_id": ObjectId(),
            "user_id": self.user_id,
            "event": self.event,
            "type": self.type.value,
            "title": self.text.title,
            "own_title": self.own_title,
            "body": self.text.body,
            "content": self.content,
            "sent_at": now,
            "expires_at": self.expires_at,
            "read": False,
            "read_at": None,
            "seen": False,
            "archived": False,
            "snoozed_until": None,
            "product_ids": self.product_ids,
            "decision": decision,
            "revision": 1,
        }
        if self.collapse:  # a partial index leaves out those without
            row |= {"thing": self.thing, "rank": list(self.collapse.rank), "said": self.said}
        return row

    def revision_of(self, current: Row, now: datetime, decision: dict[str, Any]) -> Row:
        """As `current` is stored when it tells this instead: at the top, whatever clocks say."""
        revised = self.row(now, decision) | {
            "_id": current["_id"],
            "sent_at": later(now, current["sent_at"]),
            "revision": current["revision"] + 1,
            "change": ChangeKind.REVISED.value,
            "changed_at": now,
        }
        if self.collapse and not self.collapse.unread_again:
            revised |= {name: current[name] for name in _STATES}
        return revised

    def is_told_by(self, stored: Notification) -> bool:
        """Whether that says the same."""
        title = self.text.title if self.own_title else None
        stored_title = stored.title if stored.own_title else None
        if stored.own_title is None:
            title, stored_title = self.text.title, stored.title
        return gist(self.type, title, self.content) == gist(
            stored.type, stored_title, stored.content
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A notification that a caller asks for, whether it goes out now or later. `expires_at`: None
    for what its type has."""

    user_id: str
    type: NotificationType
    content: Any
    title: str | None = None
    expires_at: datetime | None = None

    def checked(self, most_bytes: int) -> Asked:
        """With its text in NFC. Raises BadInput."""
        if not isinstance(self.content, str | dict):
            raise BadInput("A notification's content is a string or an object.", "input.content")
        if self.title is not None and not 1 <= len(self.title) <= LONGEST_TITLE:
            raise BadInput(f"A title has 1 to {LONGEST_TITLE} characters.", "input.title")
        for value, name in ((self.content, "content"), (self.title, "title")):
            try:
                check_content(value, name)
            except ContentRefused as error:
                raise BadInput(str(error), f"input.{name}") from error
        if (size := json_size(self.content)) > most_bytes:
            raise BadInput(
                f"The content has {size} bytes; {most_bytes} is the most (MAX_CONTENT_BYTES). "
                "Store large things elsewhere and send a link.",
                "input.content",
            )
        return replace(
            self,
            content=composed(self.content),
            title=composed(self.title),
            expires_at=checked_end(self.expires_at, "input.expiresAt"),
        )

    def draft(self, event: str, words: Words) -> Draft:
        """In its reader's words."""
        text = content_text(self.type, self.content, self.title, words)
        return Draft(
            self.user_id,
            event,
            self.type,
            text,
            self.content,
            self.expires_at,
            own_title=self.title is not None,
        )


class Announcement(Struct, frozen=True):
    """What became of a draft. `row`: its notification as it is stored; none when it was
    suppressed, the one that is newer when it was superseded. `channels`: what was decided on those
    that are on, besides the app."""

    row: Row | None
    decision: Decision
    channels: Mapping[Channel, Decision] = {}

    @property
    def notification(self) -> Notification | None:
        """Made when it is asked for: who announces to many does not."""
        return Notification.model_validate(self.row) if self.row else None

    @property
    def goes_out(self) -> bool:
        """Now or later, on some channel or other."""
        others = {one.outcome for one in self.channels.values()}
        return self.row is not None or not others.isdisjoint({Outcome.SENT, Outcome.HELD})


def check_key(key: str | None, field: str) -> None:
    """A key of the caller's own making, which stands in `field`. Raises BadInput."""
    if key is not None and not 1 <= len(key) <= 200:
        raise BadInput(f"A {field.rpartition('.')[2]} has 1 to 200 characters.", field)


def checked_end(expires_at: datetime | None, field: str) -> datetime | None:
    """In UTC and whole milliseconds, as it is stored. Raises BadInput."""
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise BadInput("Give an end with its zone: 2026-01-31T12:00:00Z.", field)
    try:
        return whole_milliseconds(expires_at.astimezone(UTC))
    except OverflowError as error:
        raise BadInput("This end lies beyond the calendar.", field) from error


def recommendation_draft(
    user_id: str, event: str, found: Sequence[Recommendation], words: Words
) -> Draft:
    products = [
        {"productId": one.product_id, "name": one.name, "score": one.score, "reason": one.reason}
        for one in found
    ]
    return Draft(
        user_id=user_id,
        event=event,
        type=NotificationType.RECOMMENDATION,
        text=recommendation_text(found, words),
        content={"products": products},
        product_ids=[one.product_id for one in found],
    )


class Offer:
    """A promotion, as it is drafted for one after the other. `event`: the event's key.

    Raises BadInput for an end that lies beyond the calendar.
    """

    def __init__(self, event: str, promotion: PromotionAnnounced) -> None:
        self._event = event
        self._known = promotion_variables(promotion)
        self._expires_at = checked_end(promotion.expires_at, "data.expiresAt")
        self._text: Text | None = None
        self._content: dict[str, str] = {}

    def draft(self, user_id: str, words: Words) -> Draft:
        """In its reader's words. Those who read the same share it."""
        text = words.say("promotion", self._known)
        if self._text is None or text != self._text:
            self._text, self._content = text, {"title": text.title, "body": text.body}
        return Draft(
            user_id,
            self._event,
            NotificationType.PROMOTION,
            self._text,
            self._content,
            self._expires_at,
        )

    async def drafts(self, customers: Iterable[Customer], texts: Texts) -> list[Draft]:
        """For each of them in their own words; others run meanwhile."""
        drafts: list[Draft] = []
        for customer in customers:
            drafts.append(self.draft(customer.id, texts.words(customer)))
            await let_others_run(len(drafts))
        return drafts


def gist(*parts: object) -> bytes:
    """Equal for what is the same as JSON: 1 is not true, and the order of keys says nothing."""
    return msgspec.json.encode(parts, order="sorted")
