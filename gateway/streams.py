"""Open subscriptions: what executes their events, and what turns these into ready bytes.

Strawberry's own way hands each event of each subscriber through four generators, the extensions
and an execution of its own: 1.5 ms and 15 KB an open subscription. Here the source of the events is
handed to the socket, which executes each event; and where all subscribers of one operation are told
the same, it is executed once for all of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from inspect import isawaitable
from typing import Any, ClassVar, Final, cast

from graphql import DocumentNode, ExecutionResult, GraphQLError
from graphql.execution import create_source_event_stream
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionContext
from strawberry.types.execution import ExecutionResult as Result
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from gateway.context import Context
from gateway.cost import check_cost
from gateway.errors import as_told
from gateway.ready import Ready, ReadySchema
from gateway.shapes import Shape, Shapes

_REFUSALS: Final = (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError)


class Source:
    """A subscription that has begun: its events, and what executes them."""

    __slots__ = ("_context", "_shape", "events", "extensions")

    def __init__(self, events: AsyncIterable[Any], shape: Shape, context: object) -> None:
        self.events = cast("AsyncGenerator[Any, None]", events)
        self.extensions: dict[str, Any] | None = None
        self._shape = shape
        self._context = context

    async def execute(self, event: Any) -> Result:
        result: Any = self._shape.execute(event, self._context)
        if isawaitable(result):
            result = await result
        return Result(result.data, result.errors, self.extensions)

    @property
    def shape(self) -> Shape | None:
        """None where each answer has extensions of its own."""
        return None if self.extensions else self._shape


class StreamingSchema(ReadySchema):
    """A schema whose subscriptions are handed out when they have begun."""

    shapes: ClassVar[Shapes]

    async def stream(
        self,
        query: str | None,
        variable_values: dict[str, Any] | None = None,
        context_value: Any = None,
        root_value: Any = None,
        operation_name: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        ready = self.ready.get(query, operation_name)
        if ready is not None and ready.type is OperationType.SUBSCRIPTION:
            return self._begin_ready(ready, variable_values or {}, operation_name, context_value)
        return await super().stream(
            query, variable_values, context_value, root_value, operation_name, *args, **kwargs
        )

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
                executing = self._stream_non_subscription(
                    context, runner, middleware_manager, operation_extensions
                )
                async with aclosing(executing):
                    async for result in executing:
                        async with runner.on_stream_result(result):
                            yield result
                return
            begun = problem or await self._begin(context, runner)
            if isinstance(begun, Source):
                yield begun
                return
            result = await self._handle_execution_result(context, begun, runner)
            async with runner.on_stream_result(result):
                yield result

    async def _begin(self, context: ExecutionContext, runner: Any) -> Source | PreExecutionError:
        assert context.graphql_document is not None
        self.ready.keep(context)
        try:
            async with runner.executing():
                begun = await self._opened(
                    context.graphql_document,
                    context.variables or {},
                    context._provided_operation_name,
                    context.context,
                )
        except Exception as error:
            return _refused(error)
        if isinstance(begun, Source):
            begun.extensions = await runner.get_extensions_results(context) or None
        return begun

    async def _begin_ready(
        self, ready: Ready, variables: dict[str, Any], name: str | None, context: Context
    ) -> AsyncGenerator[Source | PreExecutionError, None]:
        """As _stream, of an operation that came past the extensions before (ready.py)."""
        try:
            cost = ready.cost.of(variables)
            check_cost(cost, self.ready.settings)
            declared = ready.cost.declared(variables)
            begun = await self._opened(ready.document, declared, name, context)
        except Exception as error:
            begun = _refused(error)
        if isinstance(begun, Source):
            begun.extensions = {"cost": cost} if context.tells_cost else None
        else:
            begun.errors = as_told(begun.errors or (), self.ready.settings, valid=True)
        yield begun

    async def _opened(
        self, document: DocumentNode, variables: dict[str, Any], name: str | None, context: Any
    ) -> Source | PreExecutionError:
        executor = self.execution_context_class.build(
            self._schema,
            document,
            context_value=context,
            raw_variable_values=variables,
            operation_name=name,
        )
        if isinstance(executor, list):
            return PreExecutionError(data=None, errors=executor)
        stream: Any = create_source_event_stream(executor)
        if isawaitable(stream):
            stream = await stream
        if isinstance(stream, ExecutionResult):
            return PreExecutionError(data=None, errors=stream.errors)
        return Source(stream, self.shapes.of(executor), context)


def _refused(error: Exception) -> PreExecutionError:
    known = error if isinstance(error, GraphQLError) else None
    return PreExecutionError(
        data=None, errors=[known or GraphQLError(str(error), original_error=error)]
    )
