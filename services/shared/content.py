"""What may be stored: JSON that MongoDB takes without surprises and gives back as it was given."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 20
MAX_MARKS: Final = 30  # Unicode's "stream-safe" text; to compose a run takes its square
_INT64: Final = 2**63
_TOLD: Final = 50  # characters of a key: each of its list's items would copy a long one


class ContentRefused(ValueError):
    """This value can't be stored; the message names the place and says why."""


def check_content(value: Any, place: str = "content", depth: int = 0) -> None:
    """Raise ContentRefused for what BSON can't hold, or holds with another meaning.

    Refused: integers beyond 64 bits, not-finite numbers, NUL and lone surrogates in strings, keys
    with `$` in front or `.` inside, more than MAX_MARKS combining characters in a row, and more
    than MAX_DEPTH levels.
    """
    if depth > MAX_DEPTH:
        raise ContentRefused(f"{place}: nested deeper than {MAX_DEPTH} levels")
    match value:
        case str():
            _check_text(value, place)
        case None | bool():
            return
        case int():
            if not -_INT64 <= value < _INT64:
                raise ContentRefused(f"{place}: integers have 64 bits at most; send it as a string")
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise ContentRefused(f"{place}: NaN and infinity are not JSON")
        case dict():
            for key, inner in value.items():
                _check_key(key, place)
                check_content(inner, f"{place}.{key[:_TOLD]}", depth + 1)
        case list() | tuple():
            for index, inner in enumerate(value):
                check_content(inner, f"{place}[{index}]", depth + 1)
        case _:
            raise ContentRefused(f"{place}: {type(value).__name__} is not a JSON value")


def composed(value: Any) -> Any:
    """The value, which was checked, with all of its text in NFC: what looks the same, is the same.

    Keys and identifiers stay as their owner wrote them.
    """
    match value:
        case str():
            return value if value.isascii() else unicodedata.normalize("NFC", value)
        case dict():
            return {key: composed(inner) for key, inner in value.items()}
        case list() | tuple():
            return [composed(inner) for inner in value]
        case _:
            return value


def json_size(value: Any) -> int:
    """Bytes of it as JSON."""
    return len(msgspec.json.encode(value))


def _check_text(text: str, place: str) -> None:
    if "\x00" in text:
        raise ContentRefused(f"{place}: a NUL character can't be stored")
    if text.isascii():
        return
    marks = 0
    for character in text:
        if "\ud800" <= character <= "\udfff":
            raise ContentRefused(f"{place}: holds half of a surrogate pair; send valid Unicode")
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_MARKS:
            raise ContentRefused(f"{place}: more than {MAX_MARKS} combining characters in a row")


def _check_key(key: Any, place: str) -> None:
    if not isinstance(key, str):
        raise ContentRefused(f"{place}: keys are strings")
    if key.startswith("$") or "." in key:
        told = repr(key[:_TOLD])
        raise ContentRefused(f"{place}: rename the key {told}: no '$' in front, no '.' inside")
    _check_text(key, place)
