"""Whose words, whose hours: the locales that a reader falls back to, and amounts and dates as they
are written there (Unicode's CLDR, by Babel). Pure."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_currency, list_currencies
from msgspec import Struct

Length = Literal["short", "medium", "long", "full"]

LAST_RESORT: Final = "en"
LENGTHS: Final[tuple[Length, ...]] = ("short", "medium", "long", "full")
_PLAIN: Final = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?")
_MOST_DIGITS: Final = 15
_REMEMBERED: Final = 1024  # tags: customers choose theirs


class NotWritable(ValueError):
    """This is no amount, date or currency; the message says what one looks like."""


class Reader(Struct, frozen=True):
    """Whom a text is for. `locale` is a BCP 47 tag, `timezone` an IANA zone."""

    name: str = ""
    locale: str = LAST_RESORT
    timezone: str = "UTC"


def canonical(tag: str) -> str:
    """A BCP 47 tag in the case that RFC 5646 (2.1.1) recommends: de-AT, zh-Hant-TW."""
    language, *others = tag.split("-")
    return "-".join([language.lower(), *map(_in_case, others)])


@lru_cache(_REMEMBERED)
def fallback(tag: str) -> tuple[str, ...]:
    """The locales in which a reader of `tag` is written to, the best first: de-AT, de, en."""
    parts = canonical(tag).split("-")
    chain = ["-".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return tuple(dict.fromkeys([*chain, LAST_RESORT]))


def is_known(tag: str) -> bool:
    """Whether this is a canonical tag of a language, perhaps with script and region, in CLDR."""
    return _PLAIN.fullmatch(tag) is not None and _parsed(tag) is not None


def amount(value: Any) -> Decimal:
    """The number in this JSON value, a number or a string of one. Raises NotWritable."""
    if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
        text = str(value)
        try:
            number = Decimal(text) if len(text) <= 2 * _MOST_DIGITS else Decimal("NaN")
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite() and abs(number.adjusted()) <= _MOST_DIGITS:
            return number
    raise NotWritable(f"an amount is a number of up to {_MOST_DIGITS} digits, such as 12.50")


def money(value: Any, currency: Any, reader: Reader) -> str:
    """An amount in a currency, an ISO 4217 code such as EUR. Raises NotWritable."""
    if not isinstance(currency, str) or currency not in _currencies():
        raise NotWritable("a currency is a code of ISO 4217, such as EUR")
    return format_currency(amount(value), currency, locale=_cldr(reader.locale))


def written_date(value: Any, length: Length, reader: Reader) -> str:
    """The day of an instant in the reader's zone, or a day as it is. Raises NotWritable."""
    locale = _cldr(reader.locale)
    try:
        return format_date(msgspec.convert(value, date), length, locale=locale)
    except msgspec.ValidationError:
        return format_date(_there(value, reader), length, locale=locale)


def written_time(value: Any, length: Length, reader: Reader) -> str:
    """The time of day of an instant in the reader's zone. Raises NotWritable."""
    there = _there(value, reader)
    return format_time(there, length, tzinfo=there.tzinfo, locale=_cldr(reader.locale))


def written_datetime(value: Any, length: Length, reader: Reader) -> str:
    """Day and time of an instant in the reader's zone. Raises NotWritable."""
    there = _there(value, reader)
    return format_datetime(there, length, tzinfo=there.tzinfo, locale=_cldr(reader.locale))


def _in_case(subtag: str) -> str:
    if len(subtag) == 4 and subtag.isalpha():
        return subtag.title()
    return subtag.upper() if len(subtag) == 2 else subtag.lower()


def _there(value: Any, reader: Reader) -> datetime:
    try:
        instant = msgspec.convert(value, datetime)
        if instant.tzinfo is not None:
            return instant.astimezone(ZoneInfo(reader.timezone))
    except (msgspec.ValidationError, OverflowError):
        pass
    raise NotWritable("an instant is one of RFC 3339, such as 2026-01-31T12:00:00Z")


@lru_cache(_REMEMBERED)
def _cldr(tag: str) -> Locale:
    """How amounts and dates are written in this locale, or else in one it falls back to."""
    found = next(filter(None, map(_parsed, fallback(tag))), None)
    assert found is not None, "CLDR has English"
    return found


def _parsed(tag: str) -> Locale | None:
    try:
        return Locale.parse(tag, sep="-")
    except (ValueError, UnknownLocaleError):
        return None


@cache
def _currencies() -> frozenset[str]:
    return frozenset(list_currencies())
