"""What a template sees while it is rendered: the names that a text may use, and none of Python's.

Data is JSON. A name is looked up as a key, never as an attribute, so `{{ order.__class__ }}` is an
unknown name like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, TextIO

from liquid import BoundTemplate, RenderContext
from liquid.builtin.tags.for_tag import ForLoop
from liquid.exceptions import ResourceLimitError, UndefinedError
from liquid.output import LimitedStringIO
from liquid.token import Token
from liquid.undefined import UNDEFINED, Undefined

from services.notifications.locales import Reader


class Known(dict[str, Any]):
    """An object all of whose names are known, so that another one is a mistake.

    Other objects are the shop's own, `order.details` and what is in it: what they lack is nil.
    """


class TooManySteps(ResourceLimitError):
    """It looks up and filters more than it may."""


class Scope(RenderContext):
    """The data of one rendering, whom it is for, and how many steps it has left."""

    __slots__ = ("_steps", "reader")

    def __init__(
        self, template: BoundTemplate, variables: Mapping[str, Any], reader: Reader, steps: int
    ) -> None:
        super().__init__(template, globals=variables)
        self.reader = reader
        self._steps = steps

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
        self._step(token)
        return super().filter(name, token)

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

    def _step(self, token: Token | None) -> None:
        self._steps -= 1
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
