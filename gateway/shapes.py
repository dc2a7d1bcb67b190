"""What an operation makes of its events, as bytes that are ready but for what is each one's own."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any, cast
from uuid import uuid4
from weakref import WeakValueDictionary

from graphql import VariableNode, Visitor, visit
from graphql.execution import Executor, execute_subscription_event

from gateway.encoding import encode


def hole(name: str) -> str:
    """Stands in a shape's event for what each subscriber is told of its own. Nobody can guess it,
    so that nothing else looks like it."""
    return f"{name}-{uuid4().hex}"


class Shape:
    """What one operation makes of its events, whoever subscribed with it: the same document with
    the same variables, but for the arguments of the subscription itself."""

    def __init__(self, executor: Executor[Any]) -> None:
        self._executor = executor
        executor.context_value = None  # it is nobody's: it serves all of them

    def execute(self, event: Any, context: object) -> Any:
        """An ExecutionResult, or an awaitable of one."""
        executor = self._executor.build_per_event_executor(event)
        executor.context_value = context
        executor.pending_incremental_futures = set()  # each its own
        executor.background_futures = set()
        return execute_subscription_event(executor)

    def pieces(self, event: Any, holes: Mapping[str, int]) -> Pieces | None:
        """The `payload` of a `next` message for this event. None for what only an execution of
        each subscriber's own can tell."""
        try:
            result = self.execute(event, None)
            if isawaitable(result):
                cast("Any", result).close()
                return None
            text = None if result.errors else encode({"data": result.data})
        except Exception:
            return None
        return _cut(text, holes) if text is not None else None


class Shapes:
    """Those of the subscriptions that are open now."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[object, ...], Shape] = WeakValueDictionary()

    def of(self, executor: Executor[Any]) -> Shape:
        """The operation is known by its node, which the shape keeps: documents are parsed once."""
        values = executor.variable_values.coerced
        names = _variables_below(executor)
        key = id(executor.operation), *((name, repr(values.get(name))) for name in names)
        shape = self._known.get(key)
        if shape is None:
            shape = self._known[key] = Shape(executor)
        else:
            del executor.async_helpers  # with which it holds itself
        return shape


Pieces = tuple[list[bytes], list[tuple[int, int]]]
"""The bytes, with a place for each hole; and which places those are, and whose numbers."""


def filled(pieces: Pieces, values: tuple[bytes, ...]) -> bytes:
    """`values`: the JSON that stands in each hole, by its number."""
    texts, holes = pieces
    parts = texts.copy()
    for place, number in holes:
        parts[place] = values[number]
    return b"".join(parts)


def _cut(text: bytes, holes: Mapping[str, int]) -> Pieces:
    found = sorted(
        (place, hole, number)
        for hole, number in holes.items()
        for place in _places(text, f'"{hole}"'.encode())
    )
    parts: list[bytes] = []
    holes_in: list[tuple[int, int]] = []
    start = 0
    for place, hole, number in found:
        holes_in.append((len(parts) + 1, number))
        parts += (text[start:place], b"")
        start = place + len(hole) + 2
    return [*parts, text[start:]], holes_in


def _places(text: bytes, part: bytes) -> list[int]:
    places, place = [], text.find(part)
    while place >= 0:
        places.append(place)
        place = text.find(part, place + 1)
    return places


class _Variables(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_variable(self, node: VariableNode, *_: object) -> None:
        self.names.add(node.name.value)


def _variables_below(executor: Executor[Any]) -> list[str]:
    """Those that count for an event: used anywhere but in the root field's own arguments."""
    variables = _Variables()
    for selection in executor.operation.selection_set.selections:
        arguments = getattr(selection, "arguments", None)
        for part in (*(selection.directives or ()), getattr(selection, "selection_set", None)):
            if part is not None:
                visit(part, variables)
        if arguments is None:  # a fragment at the root
            visit(selection, variables)
    for fragment in executor.fragment_definitions.values():
        visit(fragment, variables)
    return sorted(variables.names)
