"""Operations that are ready to be executed: they were parsed, limited and validated before.

What the schema's extensions find out about a document they find out again and again, and going
through their hooks costs more than executing a small query. All of it depends on the document's
text alone, but for what the operation costs. So an operation that has come past them once is
executed straight away when it comes again; a query even while it is asked whether its session is
still open, and answered after that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Iterable
from typing import Any, ClassVar, NamedTuple

import graphql
import strawberry
from graphql import DocumentNode, GraphQLError
from graphql.execution import execute
from strawberry.execution import optimized_is_awaitable
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry.types.graphql import OperationType
from strawberry.utils.await_maybe import await_maybe

from gateway.context import Context
from gateway.cost import OperationCost, check_cost
from gateway.documents import LONGEST_KEPT
from gateway.errors import as_told
from services.shared.errors import Unavailable
from services.shared.settings import Settings


class Ready(NamedTuple):
    document: DocumentNode
    type: OperationType
    cost: OperationCost


class ReadyOperations:
    """Those that came last, KEPT_DOCUMENTS of them, by text and operation name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._known: OrderedDict[tuple[str, str | None], Ready] = OrderedDict()

    def get(self, query: str | None, name: str | None) -> Ready | None:
        ready = self._known.get((query or "", name))
        if ready is not None:
            self._known.move_to_end((query or "", name))
        return ready

    def keep(self, context: ExecutionContext) -> None:
        """Keep what is about to be executed: all that may refuse its document has let it pass."""
        query, document, name = context.query, context.graphql_document, context.operation_name
        if not query or document is None or len(query) > LONGEST_KEPT:
            return
        cost = OperationCost(context.schema._schema, document, name, self.settings)
        key = (query, context._provided_operation_name)
        self._known[key] = Ready(document, context.operation_type, cost)
        if len(self._known) > self.settings.kept_documents:
            self._known.popitem(last=False)


class ReadySchema(strawberry.Schema):
    """A schema that executes at once what is ready, that bounds an operation's time, and that logs
    nothing itself: MapErrors logs what is unexpected, once."""

    ready: ClassVar[ReadyOperations]

    async def execute(
        self,
        query: str | None,
        variable_values: dict[str, Any] | None = None,
        context_value: Any = None,
        root_value: Any = None,
        operation_name: str | None = None,
        allowed_operation_types: Iterable[OperationType] | None = None,
        operation_extensions: dict[str, Any] | None = None,
    ) -> ExecutionResult:
        ready = self.ready.get(query, operation_name)
        if ready is None or ready.type not in (allowed_operation_types or ()):
            return await super().execute(
                query,
                variable_values,
                context_value,
                root_value,
                operation_name,
                allowed_operation_types,
                operation_extensions,
            )
        return await self._execute_ready(
            ready, operation_name, variable_values or {}, context_value
        )

    async def _execute_ready(
        self, ready: Ready, name: str | None, variables: dict[str, Any], context: Context
    ) -> ExecutionResult:
        """As Strawberry and our extensions do it, without what is known of the document."""
        settings = self.ready.settings
        told: dict[str, Any] = {}
        try:
            cost = ready.cost.of(variables)
            told = {"cost": cost} if context.tells_cost else {}
            check_cost(cost, settings)
            declared = ready.cost.declared(variables)
            result = await self._in_time(self._executed(ready, name, declared, context))
            errors = result.errors
        except Exception as error:
            known = isinstance(error, GraphQLError)
            errors = [error if known else GraphQLError(str(error), original_error=error)]
            result = graphql.ExecutionResult(None)
        return ExecutionResult(
            result.data, as_told(errors, settings, valid=True) if errors else None, told
        )

    async def _executed(
        self, ready: Ready, name: str | None, variables: dict[str, Any], context: Context
    ) -> graphql.ExecutionResult:
        """A query reads while its session is looked up: if that has ended, it is refused when it
        reads again."""
        context.may_presume = ready.type is OperationType.QUERY
        result = await self._executed_once(ready, name, variables, context)
        if not await context.settle_presumption():
            try:
                result = await self._executed_once(ready, name, variables, context)
            finally:
                context.forget_refusal()
        return result

    async def _executed_once(
        self, ready: Ready, name: str | None, variables: dict[str, Any], context: Context
    ) -> graphql.ExecutionResult:
        return await await_maybe(
            execute(
                self._schema,
                ready.document,
                variable_values=variables,
                operation_name=name,
                context_value=context,
                is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
                executor_class=self.execution_context_class,
                operation_extensions=None,
            )
        )

    async def _execute_operation(
        self, execution_context: ExecutionContext, *args: Any, **kwargs: Any
    ) -> Any:
        """Queries and mutations; subscriptions take another way."""
        self.ready.keep(execution_context)
        return await self._in_time(super()._execute_operation(execution_context, *args, **kwargs))

    async def _in_time(self, executing: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self.ready.settings.operation_seconds):
                return await executing
        except TimeoutError:
            slow = Unavailable("It took too long, and may or may not have been done: ask for less.")
            error = GraphQLError(slow.message, extensions=slow.extensions)
            return graphql.ExecutionResult(None, [error])

    def process_errors(self, *_: object, **__: object) -> None:
        return
