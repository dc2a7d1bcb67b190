"""Documents that were parsed and validated before: most of what a query costs the gateway.

A client sends the same few documents again and again, with other variables. Long ones are not kept,
since who writes values into them sends each only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from graphql import GraphQLError
from strawberry.extensions import ParserCache, SchemaExtension, ValidationCache

LONGEST_KEPT: Final = 2048  # characters


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
        if _is_kept(self):
            next(super().on_validate())
        yield


def _is_kept(extension: SchemaExtension) -> bool:
    return len(extension.execution_context.query or "") <= LONGEST_KEPT
