"""Open subscriptions: what executes their events, and what turns these into ready bytes.

Strawberry's own way hands each event of each subscriber through four generators, the extensions
and an execution of its own: 1.5 ms and 15 KB an open subscription. Here the source of the events is
handed to the socket, which executes each event; and where all subscribers of one operation are told
the same, it is executed once for all of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from copy import copy
from inspect import isawaitable
from typing import Any, ClassVar, Final, cast
from uuid import uuid4
from weakref import WeakValueDictionary

import msgspec
import strawberry
from graphql import (
    ExecutionResult,
    GraphQLError,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution import Executor, create_source_event_stream, execute_subscription_event
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.execution import ExecutionResult as Result
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

_REFUSALS: Final = (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError)


class Source:
    """A subscription that has begun: its events, and what executes them."""

    def __init__(
        self, events: AsyncIterable[Any], executor: Executor[Any], extensions: dict[str, Any]
    ) -> None:
        self.events = cast("AsyncGenerator[Any, None]", events)
        self._executor = executor
        self._extensions = extensions or None

    async def execute(self, event: Any) -> Any:
        """An ExecutionResult of Strawberry's."""
        result: Any = _executed(self._executor, event)
        if isawaitable(result):
            result = await result
        return Result(result.data, result.errors, self._extensions)

    @property
    def shape(self) -> Shape | None:
        """None where each answer has extensions of its own."""
        return None if self._extensions else Shape.of(self._executor)


def hole(name: str) -> str:
    """Stands in a shape's event for what each subscriber is told of its own. Nobody can guess it,
    so that nothing else looks like it."""
    return f"{name}-{uuid4().hex}"


class Shape:
    """What one operation makes of its events, whoever subscribed with it: the same document with
    the same variables, but for the arguments of the subscription itself."""

    _known: ClassVar[WeakValueDictionary[tuple[object, ...], Shape]] = WeakValueDictionary()

    def __init__(self, executor: Executor[Any]) -> None:
        self._executor = copy(executor)
        self._executor.context_value = None  # it is nobody's

    @classmethod
    def of(cls, executor: Executor[Any]) -> Shape:
        """The operation is known by its node, which the shape keeps: documents are parsed once."""
        values = executor.variable_values.coerced
        names = _variables_below(executor)
        key = id(executor.operation), *((name, repr(values.get(name))) for name in names)
        shape = cls._known.get(key)
        if shape is None:
            shape = cls._known[key] = cls(executor)
        return shape

    def pieces(self, event: Any, holes: Mapping[str, int]) -> Pieces | None:
        """The `payload` of a `next` message for this event. None for what only an execution of
        each subscriber's own can tell."""
        try:
            result: Any = _executed(self._executor, event)
            if isawaitable(result):
                cast("Any", result).close()
                return None
            text = None if result.errors else msgspec.json.encode({"data": result.data})
        except Exception:
            return None
        return _cut(text, holes) if text is not None else None


Pieces = tuple[list[bytes], list[int]]
"""The bytes between the holes, one more than holes; and which hole follows each."""


def filled(pieces: Pieces, values: tuple[bytes, ...]) -> bytes:
    """`values`: the JSON that stands in each hole, by its number."""
    texts, holes = pieces
    parts = [texts[0]]
    for hole, text in zip(holes, texts[1:], strict=True):
        parts += (values[hole], text)
    return b"".join(parts)


def _cut(text: bytes, holes: Mapping[str, int]) -> Pieces:
    found = sorted(
        (place, hole, number)
        for hole, number in holes.items()
        for place in _places(text, f'"{hole}"'.encode())
    )
    texts, numbers, start = [], [], 0
    for place, hole, number in found:
        texts.append(text[start:place])
        numbers.append(number)
        start = place + len(hole) + 2
    return [*texts, text[start:]], numbers


def _places(text: bytes, part: bytes) -> list[int]:
    places, place = [], text.find(part)
    while place >= 0:
        places.append(place)
        place = text.find(part, place + 1)
    return places


def _executed(executor: Executor[Any], event: Any) -> Any:
    return execute_subscription_event(executor.build_per_event_executor(event))


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


class StreamingSchema(strawberry.Schema):
    """A schema whose subscriptions are handed out when they have begun."""

    async def _stream(
        self,
        execution_context: Any,
        extensions_runner: Any,
        middleware_manager: Any,
        execution_context_class: Any = None,
        operation_extensions: dict[str, Any] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """As Strawberry's, but of a subscription it yields the Source."""
        context, runner = execution_context, extensions_runner
        async with runner.operation():
            try:
                problem = await self._prepare_operation_async(context, runner)
            except _REFUSALS as error:
                problem = _refused(error)
            if problem is None and context.operation_type is not OperationType.SUBSCRIPTION:
                async for result in self._stream_non_subscription(
                    context, runner, middleware_manager, operation_extensions
                ):
                    async with runner.on_stream_result(result):
                        yield result
                return
            begun = problem or await self._begin(
                context, runner, middleware_manager, operation_extensions
            )
            if isinstance(begun, Source):
                yield begun
                return
            result = await self._handle_execution_result(context, begun, runner)
            async with runner.on_stream_result(result):
                yield result

    async def _begin(
        self,
        context: Any,
        runner: Any,
        middleware: Any,
        operation_extensions: dict[str, Any] | None,
    ) -> Source | PreExecutionError:
        try:
            async with runner.executing():
                executor = self.execution_context_class.build(
                    self._schema,
                    context.graphql_document,
                    root_value=context.root_value,
                    context_value=context.context,
                    raw_variable_values=context.variables,
                    operation_name=context.operation_name,
                    middleware=middleware,
                    operation_extensions=operation_extensions,
                )
                if isinstance(executor, list):
                    return PreExecutionError(data=None, errors=executor)
                stream: Any = create_source_event_stream(executor)
                if isawaitable(stream):
                    stream = await stream
        except Exception as error:
            return _refused(error)
        if isinstance(stream, ExecutionResult):
            return PreExecutionError(data=None, errors=stream.errors)
        return Source(stream, executor, await runner.get_extensions_results(context))


def _refused(error: Exception) -> PreExecutionError:
    known = error if isinstance(error, GraphQLError) else None
    return PreExecutionError(
        data=None, errors=[known or GraphQLError(str(error), original_error=error)]
    )
