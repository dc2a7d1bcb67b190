"""The filters of texts: all that a template can do to a value. Pure.

No filter makes more of what it is given than its template may write, nor takes longer than that
needs: Liquid's own `replace`, `split` or `ceil` can be made to do both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final

from liquid.exceptions import FilterArgumentError, OutputStreamLimitError
from liquid.filter import with_context

from services.notifications.locales import (
    LENGTHS,
    Length,
    NotWritable,
    amount,
    money,
    written_date,
    written_datetime,
    written_time,
)
from services.notifications.scope import Scope, entry


def _append(value: object, other: object, *, context: Scope) -> str:
    return _bounded([plain(value), plain(other)], "", context)


def _prepend(value: object, other: object, *, context: Scope) -> str:
    return _bounded([plain(other), plain(value)], "", context)


def _join(value: object, between: object = " ", *, context: Scope) -> str:
    return _bounded(map(plain, _items(value)), plain(between), context)


def _list(value: object, word: object = "", *, context: Scope) -> str:
    """A, B and C: with the word before the last one, and commas."""
    names = [plain(item) for item in _items(value)]
    if word and len(names) > 1:
        names[-2:] = [_bounded(names[-2:], f" {plain(word)} ", context)]
    return _bounded(names, ", ", context)


def _map(value: object, key: object) -> list[object]:
    return [entry(item, key) for item in _items(value)]


def _first(value: object) -> object:
    return next(iter(_items(value)), None)


def _last(value: object) -> object:
    return next(reversed(_items(value)), None)


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | list) else 0


def _default(value: object, other: object) -> object:
    return other if value is None or value is False or value in ("", []) else value


def _truncate(value: object, length: object = 50, end: object = "…") -> str:
    text, most = plain(value), int(amount(length))
    return text if len(text) <= most else text[: max(0, most - len(plain(end)))] + plain(end)


def _plus(value: object, other: object) -> Decimal:
    return amount(value) + amount(other)


def _minus(value: object, other: object) -> Decimal:
    return amount(value) - amount(other)


def _times(value: object, other: object) -> Decimal:
    return amount(value) * amount(other)


def _money(value: object, currency: object = None, *, context: Scope) -> str:
    return "" if value is None else money(value, currency, context.reader)


def _date(value: object, length: object = "medium", *, context: Scope) -> str:
    return "" if value is None else written_date(value, _length(length), context.reader)


def _time(value: object, length: object = "short", *, context: Scope) -> str:
    return "" if value is None else written_time(value, _length(length), context.reader)


def _datetime(value: object, length: object = "short", *, context: Scope) -> str:
    return "" if value is None else written_datetime(value, _length(length), context.reader)


def plain(value: object) -> str:
    """A single value as text. Raises FilterArgumentError for a list or an object."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float() | Decimal():
            return str(value)
    what = "a list" if isinstance(value, list) else "an object"
    raise FilterArgumentError(f"{what} is no text: name what is in it", token=None)


def _items(value: object) -> list[object]:
    if value is None or isinstance(value, list):
        return value or []
    raise FilterArgumentError("this filter takes a list", token=None)


def _bounded(parts: Iterable[str], between: str, context: Scope) -> str:
    """The parts as one text, unless that is more than the template may write."""
    parts = list(parts)
    length = sum(map(len, parts)) + len(between) * max(0, len(parts) - 1)
    if length > context.most:
        raise OutputStreamLimitError("it makes too long a text", token=None)
    return between.join(parts)


def _length(value: object) -> Length:
    if value in LENGTHS:
        return value
    raise NotWritable(f"a length is one of {', '.join(LENGTHS)}")


FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    "append": with_context(_append),
    "capitalize": lambda value: plain(value)[:1].upper() + plain(value)[1:],
    "date": with_context(_date),
    "datetime": with_context(_datetime),
    "default": _default,
    "downcase": lambda value: plain(value).lower(),
    "first": _first,
    "join": with_context(_join),
    "last": _last,
    "list": with_context(_list),
    "map": _map,
    "minus": _minus,
    "money": with_context(_money),
    "plus": _plus,
    "prepend": with_context(_prepend),
    "size": _size,
    "strip": lambda value: plain(value).strip(),
    "time": with_context(_time),
    "times": _times,
    "truncate": _truncate,
    "upcase": lambda value: plain(value).upper(),
}
