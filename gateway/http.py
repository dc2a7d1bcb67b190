"""GraphQL over HTTP: how a request is read, and in which words it is answered.

https://graphql.github.io/graphql-over-http/draft/
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import mimeparse  # type: ignore[import-untyped]
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from strawberry.types import ExecutionResult

from gateway.encoding import encode
from services.shared.errors import BadInput, DomainError, Unavailable
from services.shared.settings import Settings

JSON: Final = "application/json"
RESPONSE_JSON: Final = "application/graphql-response+json"
HTML: Final = "text/html"
ALLOW: Final = {"allow": "GET, POST"}
# The last is preferred where a client has no preference: legacy clients send Accept: */*.
_OFFERED: Final = (RESPONSE_JSON, JSON)
_FAULTS: Final = {Unavailable.code: 503, "INTERNAL_SERVER_ERROR": 500}  # ours, not the client's
_KNOWN: Final = 100  # Accept headers, of clients that are alike
_LONGEST_KNOWN: Final = 200  # characters of one
_CHARSETS: Final = ("utf-8", "utf8")


class Refused(Exception):
    """A request that is answered with this status, and not as a GraphQL operation."""

    def __init__(
        self, status: int, problem: DomainError, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(problem.message)
        self.status = status
        self.problem = problem
        self.headers = headers


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """What the specification calls a request's parameters. `document_id`: see persisted.py."""

    query: str | None
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any]
    document_id: str | None

    @property
    def asks_for_cost(self) -> bool:
        return self.extensions.get("cost") is True

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> GraphQLRequest:
        """Raises Refused with the parameter that has a wrong type."""
        extensions = _field(fields, "extensions", dict) or {}
        return cls(
            query=_field(fields, "query", str),
            variables=_field(fields, "variables", dict),
            operation_name=_field(fields, "operationName", str) or None,
            extensions=extensions,
            document_id=_field(fields, "documentId", str),
        )


def media_type(request: Request) -> str:
    """The type of the answer that the client likes best. Raises Refused with 406."""
    accept = ",".join(request.headers.getlist("accept"))
    best = _best(accept) if len(accept) <= _LONGEST_KNOWN else _best.__wrapped__(accept)
    if not best:
        advice = f"Accept {RESPONSE_JSON} or {JSON}: there is nothing else to be had here."
        raise Refused(406, BadInput(advice, "accept"))
    return best


@lru_cache(maxsize=_KNOWN)
def _best(accept: str) -> str:
    """The type that this header likes best, or "" if it likes none."""
    if not accept.strip():
        return JSON
    ranges = [range_ for range_ in accept.split(",") if _is_media_range(range_)]
    return str(mimeparse.best_match(_OFFERED, ",".join(ranges))) if ranges else ""


async def read_request(request: Request, settings: Settings) -> GraphQLRequest:
    """Raises Refused for what is no GraphQL request."""
    if request.method == "GET":
        fields: dict[str, Any] = dict(request.query_params)
        for name in ("variables", "extensions"):
            if name in fields:
                fields[name] = read_json(fields[name], settings) if fields[name] else None
        return GraphQLRequest.of(fields)
    _check_content_type(request)
    document = read_json(await read_body(request, settings), settings)
    if not isinstance(document, dict):
        advice = 'Send one JSON object: {"query": …, "variables": …}; batches are not taken.'
        raise Refused(400, BadInput(advice, "request"))
    return GraphQLRequest.of(document)


def read_json(text: str | bytes, settings: Settings) -> object:
    """Raises Refused for what is no JSON, has half a surrogate pair, or is too deep."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(400, BadInput(f"Send valid JSON: {error}.", "request")) from error
    limit = settings.max_json_depth
    if _may_be_deeper(text, limit) and _is_deeper(value, limit):
        advice = f"The JSON is nested deeper than {limit} levels (MAX_JSON_DEPTH)."
        raise Refused(400, BadInput(advice, "request"))
    return value


def answered(body: Mapping[str, Any], media: str, status: int = 200) -> Response:
    """A GraphQL response. One without data is a failure, which only the newer type may show."""
    if media == RESPONSE_JSON and status == 200 and "data" not in body:
        codes = [error.get("extensions", {}).get("code") for error in body["errors"]]
        status = max((_FAULTS.get(code, 400) for code in codes), default=400)
    return Response(
        encode(body),
        status_code=status,
        headers={"content-type": f"{media}; charset=utf-8", "cache-control": "no-store"},
    )


def refusal(refused: Refused, media: str) -> Response:
    """A request that is no GraphQL request, answered in the form that GraphQL's answers have."""
    problem = refused.problem
    body = {"errors": [{"message": problem.message, "extensions": problem.extensions}]}
    response = answered(body, media, refused.status)
    response.headers.update(refused.headers or {})
    return response


def response_body(result: ExecutionResult, *, executed: bool) -> dict[str, Any]:
    """The result as the response's fields; what was not executed has no `data`."""
    body: dict[str, Any] = {}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    if executed:
        body["data"] = result.data
    if result.extensions:
        body["extensions"] = result.extensions
    return body


def _is_media_range(text: str) -> bool:
    try:
        mimeparse.parse_media_range(text)
    except mimeparse.MimeTypeParseException:
        return False
    return True


def _field(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if value is not None and not isinstance(value, kind):
        wanted = "a string" if kind is str else "an object"
        raise Refused(400, BadInput(f"`{name}` must be {wanted} or null.", name))
    return value


def _check_content_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    encoding = request.headers.get("content-encoding", "identity").lower()
    is_ours = given == JSON or _is_json(given)
    if not is_ours or encoding != "identity":
        advice = f"Send the body as {JSON} in UTF-8, uncompressed, and name that in Content-Type."
        raise Refused(415, BadInput(advice, "content-type"), {"accept": JSON})


def _is_json(content_type: str) -> bool:
    kind, subtype, parameters = _parsed(content_type)
    charset = parameters.get("charset", "utf-8").lower()
    return f"{kind}/{subtype}".lower() == JSON and charset in _CHARSETS


def _parsed(content_type: str) -> tuple[str, str, Mapping[str, str]]:
    try:
        kind, subtype, parameters = mimeparse.parse_mime_type(content_type)
    except mimeparse.MimeTypeParseException:
        return "", "", {}
    return kind, subtype, parameters


async def read_body(request: Request, settings: Settings) -> bytes:
    """The body, read no further than is allowed, and waited for no longer. Raises Refused."""
    limit, seconds = settings.max_request_bytes, settings.request_seconds
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    advice = f"The body has more than {limit} bytes (MAX_REQUEST_BYTES)."
                    raise Refused(413, BadInput(f"{advice} Send less at once.", "request"))
    except TimeoutError as error:
        advice = f"The body was not there within {seconds:g} s (REQUEST_SECONDS): try again."
        raise Refused(408, Unavailable(advice), {"connection": "close"}) from error
    return bytes(body)


def _may_be_deeper(text: str | bytes, limit: int) -> bool:
    """Whether there are brackets enough."""
    if isinstance(text, str):
        return text.count("[") + text.count("{") > limit
    return text.count(b"[") + text.count(b"{") > limit


def _is_deeper(value: object, limit: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return limit == 0 or any(_is_deeper(inner, limit - 1) for inner in value)
