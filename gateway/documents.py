"""Documents that were parsed and validated before: most of what a query costs the gateway.

A client sends the same few documents again and again, with other variables. Long ones are not kept,
since who writes values into them sends each only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from graphql import GraphQLError, OperationDefinitionNode
from strawberry.extensions import ParserCache, SchemaExtension, ValidationCache

from services.shared.errors import BadInput

LONGEST_KEPT: Final = 2048  # characters
NO_OPERATION: Final = "`operationName` must name one of the document's operations."


class KnownDocuments(ParserCache):
    """Parses a document, unless that is known."""

    def on_parse(self) -> Iterator[None]:
        if _is_kept(self):
            with suppress(GraphQLError):  # said again when the library parses it itself
                next(super().on_parse())
        yield


class KnownToBeValid(ValidationCache):
    """Validates a document, unless that is known."""

    def on_validate(self) -> Iterator[None]:
        if _is_kept(self) and self.execution_context.pre_execution_errors is None:
            next(super().on_validate())
        yield


class OneOperation(SchemaExtension):
    """Refuses a document of several operations without the name of one: the library would take
    the first. To be listed behind KnownToBeValid, whose answer it replaces."""

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        document = context.graphql_document
        operations = [
            definition
            for definition in (document.definitions if document else ())
            if isinstance(definition, OperationDefinitionNode)
        ]
        ambiguous = len(operations) > 1 and not context._provided_operation_name
        if ambiguous and not context.pre_execution_errors:
            problem = BadInput(NO_OPERATION, "operationName")
            error = GraphQLError(problem.message, extensions=problem.extensions)
            context.pre_execution_errors = [error]
        yield


def _is_kept(extension: SchemaExtension) -> bool:
    return len(extension.execution_context.query or "") <= LONGEST_KEPT
