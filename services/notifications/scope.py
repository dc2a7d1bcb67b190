"""What a template sees while it is rendered: the names that a text may use, and none of Python's.

Data is JSON. A name is looked up as a key, never as an attribute, so `{{ order.__class__ }}` is an
unknown name like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from sys import getsizeof
from typing import Any, Final, TextIO

from liquid import BoundTemplate, RenderContext
from liquid.builtin.tags.for_tag import ForLoop
from liquid.exceptions import LocalNamespaceLimitError, ResourceLimitError, UndefinedError
from liquid.output import LimitedStringIO
from liquid.token import Token
from liquid.undefined import UNDEFINED, Undefined

from services.notifications.locales import Reader

_ITEMS: Final = 10  # of a list that a filter goes through for a step, and
_CHARACTERS: Final = 1000  # of a text


class Known(dict[str, Any]):
    """An object all of whose names are known, so that another one is a mistake.

    Other objects are the shop's own, `order.details` and what is in it: what they lack is nil.
    """


class TooManySteps(ResourceLimitError):
    """It looks up and filters more than it may."""


class Scope(RenderContext):
    """The data of one rendering, whom it is for, and how many steps it has left."""

    __slots__ = ("_size", "_steps", "reader")

    def __init__(
        self, template: BoundTemplate, variables: Mapping[str, Any], reader: Reader, steps: int
    ) -> None:
        super().__init__(template, globals=variables)
        self.reader = reader
        self._steps = steps
        self._size = 0

    def assign(self, key: str, val: Any) -> None:
        """Liquid would measure all variables again for each that is assigned."""
        self._step(None)
        self._size += getsizeof(val, 1) - getsizeof(self.locals.get(key, ""), 1)
        self.locals[key] = val
        if self._size > self.most:
            raise LocalNamespaceLimitError("the variables hold too much", token=None)

    def get(
        self, path: list[object], *, token: Token | None, default: object = UNDEFINED
    ) -> object:
        """What the path names, or nil. Raises UndefinedError for what must be there."""
        self._step(token)
        try:
            found = super().get(path, token=token, default=default)
        except UndefinedError as error:
            error.token = token
            raise
        return None if isinstance(found, Undefined) else found

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """A filter, which costs more for a long list or text: it goes through all of it."""
        self._step(token)
        apply = super().filter(name, token)

        def charged(value: object, *arguments: object, **named: object) -> object:
            if isinstance(value, list):
                self._step(token, len(value) // _ITEMS)
            elif isinstance(value, str):
                self._step(token, len(value) // _CHARACTERS)
            return apply(value, *arguments, **named)

        return charged

    def get_item(self, obj: Any, key: Any) -> Any:
        return entry(obj, key) if isinstance(obj, Mapping) else super().get_item(obj, key)

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        """As the original, but it leaves line ends as they are."""
        taken = buf.size if isinstance(buf, LimitedStringIO) else 0
        return LimitedStringIO(self.most - taken, newline="\n")

    @property
    def most(self) -> int:
        """How many bytes a template may write."""
        limit = self.env.output_stream_limit
        assert limit is not None, "every environment of ours has one"
        return limit

    def _step(self, token: Token | None, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise TooManySteps("it looks up and filters too much", token=token)


def entry(item: object, key: object) -> object:
    """What is under this key. Raises UndefinedError where it should be and is not."""
    if isinstance(item, Known | ForLoop):
        if not isinstance(key, str) or key not in item:
            known = f"; known are {', '.join(item)}" if isinstance(item, Known) else ""
            raise UndefinedError(f"there is no {key!r} here{known}", token=None)
        return item[key]
    return item.get(key) if isinstance(item, Mapping) else None
