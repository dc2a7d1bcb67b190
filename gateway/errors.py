"""Errors as callers see them: a stable code, and words that help. The rest is masked and logged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import uuid4

from graphql import GraphQLError, GraphQLSyntaxError, VariableDefinitionNode
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError

from gateway.documents import NO_OPERATION
from services.shared.errors import BadInput, DomainError, TooComplex, Unavailable
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import is_away

log = get_logger()

_LONGEST: Final = 1000  # characters of a message
PARSE_FAILED: Final = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED: Final = "GRAPHQL_VALIDATION_FAILED"
INTERNAL: Final = "INTERNAL_SERVER_ERROR"
_SUGGESTION: Final = re.compile(r" Did you mean [^?]*\?")


class MapErrors(SchemaExtension):
    """Gives every error its `extensions.code`."""

    _valid = False
    _streamed = False

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def on_operation(self) -> Iterator[None]:
        self._valid = self._streamed = False
        yield
        if not self._streamed:
            self._map(self.execution_context.result)

    def on_validate(self) -> Iterator[None]:
        yield
        self._valid = not self.execution_context.pre_execution_errors

    def on_stream_result(self, result: Any) -> Iterator[None]:
        self._streamed = True
        self._map(result)
        yield

    def _map(self, result: Any) -> None:
        if errors := getattr(result, "errors", None):
            result.errors = as_told(errors, self._settings, valid=self._valid)


def as_told(
    errors: Sequence[GraphQLError], settings: Settings, *, valid: bool
) -> list[GraphQLError]:
    """The first few of the errors, with codes. `valid`: see mapped()."""
    told = [mapped(error, valid=valid) for error in errors][: settings.max_errors]
    if settings.in_production:
        for error in told:
            error.message = _SUGGESTION.sub("", error.message)
    return told


def mapped(error: GraphQLError, *, valid: bool) -> GraphQLError:
    """The error with a code. `valid`: whether the document had passed validation."""
    original = error.original_error
    if error.extensions and "code" in error.extensions:
        return error
    if isinstance(original, DomainError):
        return _with(error, original.message, original.extensions)
    if original is not None and is_away(original):
        away = Unavailable("The database does not answer: try again in a moment.")
        return _with(error, away.message, away.extensions)
    if isinstance(original, CannotGetOperationTypeError):
        unnamed = BadInput(NO_OPERATION, "operationName")
        return _with(error, unnamed.message, unnamed.extensions)
    if isinstance(error, GraphQLSyntaxError):
        too_much = error.message.endswith("Parsing aborted.")  # too many tokens, or too deep
        return _with(error, error.message, {"code": TooComplex.code if too_much else PARSE_FAILED})
    if not valid and (original is None or isinstance(original, ValueError)):  # as of a long number
        return _with(error, error.message, {"code": VALIDATION_FAILED})
    if error.path is None and _is_coercion(error):
        return _with(error, error.message, BadInput(error.message, _variable(error)).extensions)
    return _masked(error)


def masked(fault: Exception) -> GraphQLError:
    """What nobody foresaw, as an error that tells nothing but where the log has more."""
    return mapped(GraphQLError("", original_error=fault), valid=True)


def _is_coercion(error: GraphQLError) -> bool:
    """Whether a variable's value did not fit its type."""
    return any(isinstance(node, VariableDefinitionNode) for node in error.nodes or ())


def _variable(error: GraphQLError) -> str:
    for node in error.nodes or ():
        if isinstance(node, VariableDefinitionNode):
            return node.variable.name.value
    return "variables"


def _masked(error: GraphQLError) -> GraphQLError:
    correlation_id = uuid4().hex
    log.error(
        "unexpected_error",
        correlation_id=correlation_id,
        path=error.path,
        exc_info=error.original_error or error,
    )
    return _with(
        error,
        f"Something went wrong on our side. Tell us the correlation id {correlation_id}.",
        {"code": INTERNAL, "correlationId": correlation_id},
    )


def _with(error: GraphQLError, message: str, extensions: dict[str, Any]) -> GraphQLError:
    """It may quote what the caller sent, which is not sent back whole."""
    return GraphQLError(
        message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…",
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
