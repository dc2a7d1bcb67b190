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

    def template(self, event: Any, holes: Mapping[bytes, str]) -> bytes | None:
        """The `payload` of a `next` message for this event, to be filled with `%`. `holes`: what
        stands in the event in the place of each value, by the value's name. None for what only an
        execution of each subscriber's own can tell."""
        try:
            result = self.execute(event, None)
            if isawaitable(result):
                cast("Any", result).close()
                return None
            text = None if result.errors else encode({"data": result.data})
        except Exception:
            return None
        if text is None:
            return None
        text = text.replace(b"%", b"%%")
        for name, hole in holes.items():
            text = text.replace(hole.encode(), b"%%(%b)b" % name)
        return text


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
