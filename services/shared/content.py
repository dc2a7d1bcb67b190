"""What may be stored: JSON that MongoDB takes without surprises and gives back as it was given."""

from __future__ import annotations

import unicodedata
from math import isfinite
from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 20
MAX_MARKS: Final = 30  # Unicode's "stream-safe" text; to compose a run takes its square
_INT64: Final = 2**63
_TOLD: Final = 50  # characters of a key: each of its list's items would copy a long one


class ContentRefused(ValueError):
    """This value can't be stored; the message names the place and says why."""


def check_content(value: Any, place: str = "content") -> None:
    """Raise ContentRefused for what BSON can't hold, or holds with another meaning.

    Refused: integers beyond 64 bits, not-finite numbers, NUL and lone surrogates in strings, keys
    with `$` in front or `.` inside, more than MAX_MARKS combining characters in a row, and more
    than MAX_DEPTH levels.
    """
    if problem := _problem(value, 0):
        where, why = problem
        raise ContentRefused(f"{place}{where}: {why}")


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


def _problem(value: object, depth: int) -> tuple[str, str] | None:
    """Where in the value something is wrong, and what; the place is put together on the way back,
    since nearly always there is nothing."""
    if depth > MAX_DEPTH:
        why: str | None = f"nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, str):
        why = _problem_of_text(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if why := _problem_of_key(key):
                return "", why
            if problem := _problem(inner, depth + 1):
                return f".{key[:_TOLD]}{problem[0]}", problem[1]
        return None
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            if problem := _problem(inner, depth + 1):
                return f"[{index}]{problem[0]}", problem[1]
        return None
    else:
        why = _problem_of_scalar(value)
    return ("", why) if why else None


def _problem_of_scalar(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        small = -_INT64 <= value < _INT64
        return None if small else "integers have 64 bits at most; send it as a string"
    if isinstance(value, float):
        return None if isfinite(value) else "NaN and infinity are not JSON"
    return f"{type(value).__name__} is not a JSON value"


def _problem_of_text(text: str) -> str | None:
    if "\x00" in text:
        return "a NUL character can't be stored"
    if text.isascii():
        return None
    marks = 0
    for character in text:
        if "\ud800" <= character <= "\udfff":
            return "holds half of a surrogate pair; send valid Unicode"
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_MARKS:
            return f"more than {MAX_MARKS} combining characters in a row"
    return None


def _problem_of_key(key: object) -> str | None:
    if not isinstance(key, str):
        return "keys are strings"
    if key.startswith("$") or "." in key:
        return f"rename the key {key[:_TOLD]!r}: no '$' in front, no '.' inside"
    return _problem_of_text(key)
