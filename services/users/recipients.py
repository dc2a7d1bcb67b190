"""Those whom something is for: of a user as much as it takes to address them and to decide.

Read by the thousand, so as plain rows: of a whole `User` most is not asked for, and to build one
takes ten times as long. Who has chosen nothing, as most have, shares one matrix with all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, Self

from bson import ObjectId
from msgspec import Struct
from pydantic import BaseModel, Field

from services.shared.store import Row, quickly
from services.users.consent import Consents
from services.users.models import CUSTOMERS, User, between, object_id
from services.users.preferences import Choices, Preferences, resolve
from services.users.quiet_hours import QuietChoices

_NAMED: Final = dict.fromkeys(("name", "locale", "timezone"), 1)
_SHOWN: Final = _NAMED | dict.fromkeys(
    ("choices", "quiet_hours", "consents", "preferences_version", "disabled_at"), 1
)
_CHOSEN: Final = ("choices", "quiet_hours", "consents")
_REMEMBERED: Final = 1024  # versions and zones of those who have chosen nothing


class Named(Protocol):
    """Whom one can write to."""

    @property
    def name(self) -> str: ...
    @property
    def locale(self) -> str: ...
    @property
    def timezone(self) -> str | None: ...


class Addressee(Named, Protocol):
    """A Recipient, or a whole User."""

    @property
    def choices(self) -> Choices: ...
    @property
    def preferences(self) -> Preferences: ...


class Customer(NamedTuple):
    """Of a user as much as it takes to write to them."""

    id: str
    name: str
    locale: str
    timezone: str | None

    @classmethod
    async def by_ids(cls, user_ids: Iterable[str]) -> Sequence[Self]:
        """The users that exist, in one query."""
        keys = [key for key in map(object_id, user_ids) if key]
        found = await _rows({"_id": {"$in": keys}}, len(keys), _NAMED)
        return [cls._of(row) for row in found]

    @classmethod
    async def audience(cls, after: str | None, limit: int) -> Sequence[Self]:
        """The next customers in the order of their ids: everyone who may log in but the shop's
        backends."""
        found = await _rows(CUSTOMERS | between(after, None), limit, _NAMED)
        return [cls._of(row) for row in found]

    @classmethod
    def _of(cls, row: Row) -> Self:
        return cls(str(row["_id"]), row["name"], row["locale"], row.get("timezone"))


class Recipient(Struct, frozen=True):
    id: str
    name: str
    locale: str
    timezone: str | None
    choices: Choices
    preferences: Preferences
    is_disabled: bool

    @classmethod
    async def by_ids(cls, user_ids: Iterable[str]) -> Mapping[str, Self]:
        """The users that exist, by id, in one query."""
        keys = [key for key in map(object_id, user_ids) if key]
        found = await _rows({"_id": {"$in": keys}}, len(keys), _SHOWN)
        return {one.id: one for one in map(cls._of, found)}

    @classmethod
    def _of(cls, row: Row) -> Self:
        id: ObjectId = row["_id"]
        version, timezone = row.get("preferences_version", 0), row.get("timezone")
        chosen, preferences = _NOTHING, _untouched(version, timezone)
        if row.get("choices") or row.get("quiet_hours") or row.get("consents"):
            chosen = _Chosen.model_validate({name: row.get(name) or {} for name in _CHOSEN})
            preferences = resolve(
                chosen.choices, version, timezone, chosen.quiet_hours, chosen.consents
            )
        return cls(
            str(id),
            row["name"],
            row["locale"],
            timezone,
            chosen.choices,
            preferences,
            row.get("disabled_at") is not None,
        )


class _Chosen(BaseModel):
    choices: Choices = Field(default_factory=dict)
    quiet_hours: QuietChoices = Field(default_factory=dict)
    consents: Consents = Field(default_factory=dict)


_NOTHING: Final = _Chosen()


@lru_cache(_REMEMBERED)
def _untouched(version: int, timezone: str | None) -> Preferences:
    return resolve({}, version, timezone)


async def _rows(query: Row, limit: int, shown: Mapping[str, int]) -> list[Row]:
    """In the order of ids, in one answer."""
    if not limit:
        return []
    found = quickly(User).find(query, shown, batch_size=limit + 1)
    return await found.sort("_id").limit(limit).to_list()
