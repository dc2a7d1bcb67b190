"""Conditions over what is known of a user: language, zone, tags, age, choices. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from services.shared.vocabulary import Channel, NotificationType
from services.users.consent import needs_consent
from services.users.preferences import DEFAULT_CHANNELS

Names = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...],
    Meta(min_length=1, max_length=100),
]
Instant = Annotated[datetime, Meta(tz=True)]
LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_NOT_OFF: Final = {"$ne": False}


class Condition(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One that can be written as JSON. What it does not know is refused, and never left out: the
    others alone would hold for more people."""


class Accepts(Condition, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """They have not switched this type off, nor, if it is given, this channel of it; and they have
    consented, where that needs it."""

    type: NotificationType
    channel: Channel | None = None


class Traits(Condition, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """All that is given must hold; of a list one is enough.

    `locales`: de stands for de-AT, too. `timezones`: the user's own, or else the shop's.
    `created_from` is inclusive, `created_before` exclusive.
    """

    locales: Names | None = None
    timezones: Names | None = None
    tags: Names | None = None
    created_from: Instant | None = None
    created_before: Instant | None = None
    accepts: Accepts | None = None

    def query(self, shop_timezone: str) -> dict[str, Any]:
        """In MongoDB's words, for the collection of users."""
        conditions: list[dict[str, Any]] = []
        if self.locales is not None:
            ranges = "|".join(map(re.escape, self.locales))  # RFC 4647, 3.3.1
            conditions.append({"locale": {"$regex": f"^({ranges})(-|$)", "$options": "i"}})
        if self.timezones is not None:
            shops = [None] if shop_timezone in self.timezones else []
            conditions.append({"timezone": {"$in": [*self.timezones, *shops]}})
        if self.tags is not None:
            conditions.append({"tags": {"$in": [*self.tags]}})
        if self.created_from is not None:
            conditions.append({"created_at": {"$gte": self.created_from}})
        if self.created_before is not None:
            conditions.append({"created_at": {"$lt": self.created_before}})
        if self.accepts is not None:
            conditions.append(_accepting(self.accepts))
        return {"$and": conditions} if conditions else {}


def _accepting(wanted: Accepts) -> dict[str, Any]:
    """As `preferences.resolve` reads what is stored."""
    choice = f"choices.{wanted.type.value}"
    query: dict[str, Any] = {f"{choice}.enabled": _NOT_OFF}
    if wanted.channel is not None:
        is_default = wanted.channel in DEFAULT_CHANNELS[wanted.type]
        query[f"{choice}.channels.{wanted.channel.value}"] = _NOT_OFF if is_default else True
        if needs_consent(wanted.type, wanted.channel):
            query[f"consents.{wanted.type.value}.{wanted.channel.value}.given"] = True
    return query
