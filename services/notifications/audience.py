"""Who a broadcast is for: conditions over what users are, want and did. Pure.

An audience is written as JSON, in events and in the database, with the names that GraphQL has; what
is not known there is refused with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from services.shared.clock import zone_names
from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput
from services.users.traits import LOCALE, Condition, Names, Traits

Days = Annotated[int, Meta(ge=1, le=3650)]

_UNKNOWN: Final = re.compile(r"unknown field `(.{1,50})")
_PLACE: Final = " - at `$"
_INNER_CAPITAL: Final = re.compile("_([a-z])")  # an object's attributes are written in another way


class Deeds(Condition, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Done at least once in the last so many days: with a product of any of the categories, or with
    any product at all."""

    within_days: Days
    categories: Names | None = None


class Audience(Traits, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Everybody for whom all holds that is given. Nothing given: everybody.

    `inactive_days`: they did nothing in the shop for so long.
    """

    bought: Deeds | None = None
    viewed: Deeds | None = None
    never_bought: bool | None = None
    inactive_days: Days | None = None

    @property
    def json(self) -> dict[str, Any]:
        written: dict[str, Any] = msgspec.to_builtins(self)
        return written


def read(value: Any, place: str) -> Audience:
    """The audience that JSON, or an object with the same attributes, says. Raises BadInput.

    `place`: its path in the caller's input.
    """
    try:
        audience = msgspec.convert(value, Audience, from_attributes=True)
    except msgspec.ValidationError as error:
        raise _refusal(error, place) from error
    _check_each(audience.locales, f"{place}.locales", _is_locale, "A locale is a BCP 47 tag: de-AT")
    _check_each(audience.timezones, f"{place}.timezones", _is_zone, "Name an IANA time zone")
    try:
        check_content(audience.json, place)
    except ContentRefused as error:
        field, _, reason = str(error).partition(": ")
        raise BadInput(f"{reason}.", field) from error
    since = _in_utc(audience.created_from, f"{place}.createdFrom")
    before = _in_utc(audience.created_before, f"{place}.createdBefore")
    if since and before and since >= before:
        raise BadInput("createdFrom lies before createdBefore.", f"{place}.createdFrom")
    return replace(
        audience,
        tags=_as_stored(audience.tags, f"{place}.tags"),
        created_from=since,
        created_before=before,
        bought=_with_categories(audience.bought, f"{place}.bought"),
        viewed=_with_categories(audience.viewed, f"{place}.viewed"),
    )


def _check_each(
    names: Sequence[str] | None, place: str, is_right: Callable[[str], bool], advice: str
) -> None:
    for index, name in enumerate(names or ()):
        if not is_right(name):
            raise BadInput(f"{advice}.", f"{place}[{index}]")


def _is_locale(text: str) -> bool:
    return LOCALE.fullmatch(text) is not None


def _is_there(text: str) -> bool:
    return text.strip() != ""


def _is_zone(text: str) -> bool:
    return text in zone_names()


def _as_stored(names: Names | None, place: str) -> Names | None:
    """In NFC and without blanks around them, as tags and categories are stored."""
    _check_each(names, place, _is_there, "Name something")
    return tuple(composed(name.strip()) for name in names) if names is not None else None


def _with_categories(deeds: Deeds | None, place: str) -> Deeds | None:
    categories = _as_stored(deeds.categories, f"{place}.categories") if deeds else None
    return replace(deeds, categories=categories) if deeds else None


def _in_utc(moment: datetime | None, place: str) -> datetime | None:
    try:
        return moment.astimezone(UTC) if moment else None
    except OverflowError as error:
        raise BadInput("This lies beyond the calendar.", place) from error


def _refusal(error: msgspec.ValidationError, place: str) -> BadInput:
    reason, _, path = str(error).partition(_PLACE)
    place += _INNER_CAPITAL.sub(lambda found: found[1].upper(), path.removesuffix("`"))
    if unknown := _UNKNOWN.search(reason):
        place += f".{unknown[1].removesuffix('`')}"
    return BadInput(f"{reason}.", place)
