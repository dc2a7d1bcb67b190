"""Persisted documents: clients send the id of a document that the operator has made known.

By `documentId`, as the appendix of GraphQL over HTTP has it, or by Apollo's extension
`persistedQuery`. What a client sends is never added to the known ones: strangers fill no store.

https://graphql.github.io/graphql-over-http/draft/#sec-Persisted-Documents
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from gateway.http import GraphQLRequest
from services.shared.errors import BadInput, CannotStart, DomainError, TooComplex
from services.shared.settings import Settings

_SHA256: Final = "sha256:"
_EMPTY: Final = " "  # a document, and refused as one, where Strawberry takes "" for none
_ADVICE: Final = "PERSISTED_DOCUMENTS names no JSON file of documents by id, as Relay's compiler or"


class UnknownDocument(DomainError):
    """In the words that Apollo's clients know: they send the whole document next."""

    code = "PERSISTED_QUERY_NOT_FOUND"


class NotPersisted(DomainError):
    code = "PERSISTED_QUERY_ONLY"


class PersistedDocuments:
    def __init__(self, documents: Mapping[str, str], *, only: bool, longest: int) -> None:
        """`documents`: by id. Each is known by its SHA-256, too. `only`: refuse all others.
        `longest`: characters of others."""
        self._documents = dict(documents)
        self._documents |= {_SHA256 + _hash(text): text for text in documents.values()}
        self._only, self._longest = only, longest

    def document(self, request: GraphQLRequest) -> str:
        """What the request asks for. Raises UnknownDocument, NotPersisted, BadInput and
        TooComplex."""
        id = self.id_of(request)
        if not request.query:
            return self._known(id)
        if len(request.query) > self._longest:
            raise TooComplex(
                f"The document has {len(request.query)} characters; {self._longest} is the most "
                "(MAX_QUERY_LENGTH). Send values as variables."
            )
        if self._only:
            if _SHA256 + _hash(request.query) not in self._documents:
                raise NotPersisted("This document is not among the known ones: send one that is.")
        elif (id or "").startswith(_SHA256) and id != _SHA256 + _hash(request.query):
            raise BadInput("This is not the SHA-256 of the `query`.", "extensions")
        return request.query

    @staticmethod
    def id_of(request: GraphQLRequest) -> str | None:
        """The id of the document that it asks for, if it names one."""
        return request.document_id or _apollo_id(request.extensions)

    def _known(self, id: str | None) -> str:
        if id is None:
            return _EMPTY
        if id not in self._documents:
            raise UnknownDocument("PersistedQueryNotFound")
        return self._documents[id]


def load_documents(settings: Settings) -> PersistedDocuments:
    """Those of PERSISTED_DOCUMENTS. Raises CannotStart."""
    only = settings.only_persisted_documents
    if settings.persisted_documents is None:
        if only:
            raise CannotStart("ONLY_PERSISTED_DOCUMENTS needs PERSISTED_DOCUMENTS.")
        known: dict[str, str] = {}
    else:
        known = dict(_entries(settings.persisted_documents))
    return PersistedDocuments(known, only=only, longest=settings.max_query_length)


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    """(id, document): Relay's `{id: text}`, or Apollo's `{"operations": [{"id", "body"}]}`."""
    try:
        content = json.loads(path.read_text("utf-8"))
        operations = content.get("operations")
        if isinstance(operations, list):
            content = {operation["id"]: operation["body"] for operation in operations}
        for id, text in content.items():
            if not isinstance(text, str):
                raise TypeError(f"the document {id} is no string")
            yield id, text
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotStart(f"{_ADVICE} Apollo's manifest generator writes it: {error!r}.") from error


def _apollo_id(extensions: Mapping[str, Any]) -> str | None:
    asked = extensions.get("persistedQuery")
    given = asked.get("sha256Hash") if isinstance(asked, dict) else None
    return _SHA256 + given if isinstance(given, str) else None


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
