"""The GraphQL endpoint: HTTP and graphql-transport-ws at one address.

Strawberry's own, with what it gets wrong put right: malformed requests and messages are answered
as the protocols want, and a socket ends when its token does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from json import JSONDecodeError
from typing import Any, Final

import msgspec
from cross_web import AsyncHTTPRequestAdapter, HTTPException, StarletteRequestAdapter
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError, MissingQueryError
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType
from strawberry.types.unset import UnsetType

from gateway.context import Context, Services
from gateway.explorer import EXPLORER_CSP, DemoAccount, explorer_page
from gateway.socket import Socket
from services.shared.errors import BadInput, Unauthenticated
from services.shared.store import is_away

RESPONSE_JSON: Final = "application/graphql-response+json"
SUBSCRIPTION: Final = OperationType.SUBSCRIPTION

_PLACE: Final = re.compile(r"`(\w+)`")  # the part of a request that a refusal is about


class Endpoint(GraphQL[Context, None]):
    """`demo_accounts`: whom the GraphiQL page signs in with a click."""

    def __init__(
        self,
        schema: Schema,
        services: Services,
        demo_accounts: Callable[[], Awaitable[Sequence[DemoAccount]]],
    ) -> None:
        settings = services.settings
        super().__init__(
            schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=settings.connection_init_seconds),
            max_subscriptions_per_connection=settings.max_operations_per_socket,
            allowed_origins=settings.allowed_origins,
        )
        self.request_adapter_class = _BoundedRequest
        self.graphql_transport_ws_handler_class = Socket
        self._services = services
        self._demo_accounts = demo_accounts

    async def get_context(self, request: HTTPConnection, response: Response | WebSocket) -> Context:
        return Context(self._services, bearer_token(request.headers))

    async def run(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        request.state.max_bytes = self._services.settings.max_request_bytes
        try:
            response = await super().run(request, *args, **kwargs)
        except HTTPException as error:
            response = _refusal(error)
        if isinstance(request, Request) and response.media_type == "application/json":
            _negotiate(request, response)
        return response

    async def on_ws_connect(self, context: Context) -> UnsetType | dict[str, object] | None:
        """Take the token of connection_init before the header's; refuse one that is not valid.

        While the database is away, whether its session is open is left to the operations: a client
        that was sent away would come back, and ask again.
        """
        token = bearer_token(context.connection_params)
        context.token = context.token if token is None else token
        if context.token is not None:
            try:
                await context.viewer()
            except Unauthenticated as error:
                raise ConnectionRejectionError from error
            except Exception as error:
                if not is_away(error):
                    raise
        return await super().on_ws_connect(context)

    async def execute_single(
        self,
        request: Request,
        request_adapter: AsyncHTTPRequestAdapter,
        sub_response: Response,
        context: Context,
        root_value: None,
        request_data: GraphQLRequestData,
    ) -> ExecutionResult:
        """A query, or by POST a mutation. Strawberry's own would run a subscription as a query."""
        method = request_adapter.method
        try:
            return await self.schema.execute(
                request_data.query,
                variable_values=request_data.variables,
                context_value=context,
                operation_name=request_data.operation_name,
                allowed_operation_types=OperationType.from_http(method) - {SUBSCRIPTION},
            )
        except MissingQueryError as error:
            raise HTTPException(400, "Send a GraphQL document as `query`.") from error
        except CannotGetOperationTypeError as error:
            reason = "`operationName` must name one of the document's operations."
            raise HTTPException(400, reason) from error
        except InvalidOperationTypeError as error:
            wanted = error.operation_type
            way = "over a websocket" if wanted is SUBSCRIPTION else "by POST"
            reason = f"The `query` holds a {wanted.value}: send it {way}."
            raise HTTPException(400, reason) from error

    async def process_result(
        self, request: Request, result: ExecutionResult
    ) -> GraphQLHTTPResponse:
        response = await super().process_result(request, result)
        if result.data is None and all(error.path is None for error in result.errors or ()):
            response.pop("data", None)  # nothing was executed
            request.state.refused = True
        return response

    async def render_graphql_ide(self, request: Request) -> Response:
        page = explorer_page(await self._demo_accounts())
        return HTMLResponse(page, headers={"content-security-policy": EXPLORER_CSP})

    def parse_json(self, data: str | bytes) -> dict[str, Any]:
        """The body, or a parameter of the URL: an object, or null for an empty one."""
        try:
            value = self.decode_json(data)
        except JSONDecodeError as error:
            raise HTTPException(400, f"Send valid JSON: {error.msg}.") from error
        if not isinstance(value, dict | None):
            raise HTTPException(400, 'Send a JSON object: {"query": …, "variables": …}.')
        return value or {}

    def decode_json(self, data: str | bytes) -> object:
        """Strictly: no lone surrogates, which Python's own decoder lets pass."""
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise JSONDecodeError(str(error), "", 0) from error

    def encode_json(self, data: object) -> str:
        return msgspec.json.encode(data).decode()


class _BoundedRequest(StarletteRequestAdapter):
    """A request whose body is read no further than its `state.max_bytes`."""

    async def get_body(self) -> bytes:
        limit: int = self._request.state.max_bytes
        body = bytearray()
        async for chunk in self._request.stream():
            body += chunk
            if len(body) > limit:
                reason = f"The body has more than {limit} bytes (MAX_REQUEST_BYTES)."
                raise HTTPException(413, f"{reason} Send less at once.")
        return bytes(body)


def bearer_token(headers: Mapping[str, Any]) -> str | None:
    """The token of an `Authorization: Bearer …`, whatever the name's case; None without one."""
    for name, value in headers.items():
        if name.lower() == "authorization" and value is not None:
            scheme, _, token = str(value).partition(" ")
            return token.strip() if scheme.lower() == "bearer" else str(value)
    return None


def _negotiate(request: Request, response: Response) -> None:
    """GraphQL over HTTP: the media type that the client prefers, and the status that goes with it.

    https://graphql.github.io/graphql-over-http/draft/#sec-Media-Types
    """
    if RESPONSE_JSON not in request.headers.get("accept", ""):
        return
    response.headers["content-type"] = f"{RESPONSE_JSON}; charset=utf-8"
    if getattr(request.state, "refused", False):
        response.status_code = 400


def _refusal(error: HTTPException) -> Response:
    """A request that is no GraphQL request, answered as GraphQL answers."""
    place = _PLACE.search(error.reason)
    problem = BadInput(error.reason, place[1] if place else "request")
    body = {"errors": [{"message": problem.message, "extensions": problem.extensions}]}
    return JSONResponse(body, status_code=error.status_code)
