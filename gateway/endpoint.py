"""The GraphQL endpoint: HTTP and graphql-transport-ws at one address.

Strawberry's own for websockets, each of which is counted. Over HTTP it is ours: Strawberry's knows
neither the media types nor the statuses that the specification wants.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from json import JSONDecodeError
from typing import Any, Final

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType
from strawberry.types.unset import UnsetType

from gateway.admission import Admission, TryAgainLater, network_of
from gateway.context import Context, Services
from gateway.documents import NO_OPERATION
from gateway.encoding import encode
from gateway.errors import mapped
from gateway.http import (
    ALLOW,
    HTML,
    JSON,
    GraphQLRequest,
    Refused,
    answered,
    media_type,
    read_json,
    read_request,
    refusal,
    response_body,
)
from gateway.persisted import PersistedDocuments
from gateway.socket import TRY_AGAIN_LATER, Socket, SocketAdapter
from services.shared.errors import BadInput, DomainError, Unauthenticated
from services.shared.store import is_away
from services.users.api_keys import is_api_key
from services.users.sessions import Caller

SUBSCRIPTION: Final = OperationType.SUBSCRIPTION
_BY_GET: Final = OperationType.from_http("GET") - {SUBSCRIPTION}
_BY_POST: Final = OperationType.from_http("POST") - {SUBSCRIPTION}


class Endpoint(GraphQL[Context, None]):
    """`page`: what is shown to a browser that visits."""

    def __init__(
        self,
        schema: Schema,
        services: Services,
        documents: PersistedDocuments,
        page: Callable[[], Awaitable[Response]],
    ) -> None:
        settings = services.settings
        super().__init__(
            schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=settings.connection_init_seconds),
            max_subscriptions_per_connection=settings.max_operations_per_socket,
            allowed_origins=settings.allowed_origins,
        )
        self.graphql_transport_ws_handler_class = Socket
        self.websocket_adapter_class = SocketAdapter
        self.documents = documents
        self._services = services
        self._settings = settings
        self._admission = Admission(settings, services.counts)
        self._page = page

    async def run(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(request, Request):
            return await self._answer(request)
        try:
            with self._admission.arrival(_address(request)) as request.state.place:
                return await super().run(request, *args, **kwargs)
        except TryAgainLater as error:
            await request.accept(subprotocol=await self.pick_websocket_subprotocol(request))
            await request.close(TRY_AGAIN_LATER, str(error))

    async def get_context(self, request: HTTPConnection, response: Response | WebSocket) -> Context:
        """A websocket's. Its headers are forgotten: they would stay as long as it is open."""
        context = self._context(request, tells_cost=False)
        request.scope["headers"].clear()
        return context

    def _context(self, request: HTTPConnection, *, tells_cost: bool) -> Context:
        return Context(
            self._services,
            _token_of(request.headers.get("authorization")),
            Caller(_address(request), request.headers.get("user-agent", "")),
            getattr(request.state, "place", None),
            tells_cost,
        )

    async def on_ws_connect(self, context: Context) -> UnsetType | dict[str, object] | None:
        """Take the token of connection_init before the header's; refuse one that is not valid.

        Raises TryAgainLater for one socket too many of its user. While the database is away,
        whether a session is open is left to the operations: a client that was sent away would come
        back, and ask again.
        """
        token, context.connection_params = bearer_token(context.connection_params), {}
        context.token = context.token if token is None else token
        if context.token is not None and context.place is not None:
            try:
                identity = await context.identity()
            except Unauthenticated as error:
                raise ConnectionRejectionError from error
            except Exception as error:
                if not is_away(error):
                    raise
                if is_api_key(context.token):
                    raise TryAgainLater("The database does not answer") from error
                identity = self._services.sessions.read_token(context.token)
            context.place.name(identity.user_id)
        return await super().on_ws_connect(context)

    def decode_json(self, data: str | bytes) -> object:
        """A websocket's message, read as strictly as a request's body."""
        try:
            return read_json(data, self._settings)
        except Refused as refused:
            raise JSONDecodeError(str(refused), "", 0) from refused

    def encode_json(self, data: object) -> str:
        return encode(data).decode()

    async def _answer(self, request: Request) -> Response:
        media = JSON
        try:
            if request.method not in ("GET", "POST"):
                advice = f"GraphQL takes GET and POST, not {request.method}."
                raise Refused(405, BadInput(advice, "method"), ALLOW)
            if not self._settings.in_production and _asks_for_a_page(request):
                return await self._page()
            media = media_type(request)
            asked = await read_request(request, self._settings)
            result = await self._execute(request, asked)
        except Refused as refused:
            return refusal(refused, media)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        except DomainError as problem:
            error = {"message": problem.message, "extensions": problem.extensions}
            return answered({"errors": [error]}, media)
        # What an extension of the schema raises comes past those that map.
        result.errors = [mapped(error, valid=False) for error in result.errors or ()]
        executed = result.data is not None or any(error.path for error in result.errors)
        return answered(response_body(result, executed=executed), media)

    async def _execute(self, request: Request, asked: GraphQLRequest) -> ExecutionResult:
        """A query, or by POST a mutation. Raises Refused and DomainError."""
        if asked.query is None and self.documents.id_of(asked) is None:
            raise Refused(400, BadInput("Send a GraphQL document as `query`.", "query"))
        try:
            return await self.schema.execute(
                self.documents.document(asked),
                variable_values=asked.variables,
                context_value=self._context(request, tells_cost=asked.asks_for_cost),
                operation_name=asked.operation_name,
                allowed_operation_types=_allowed(request.method),
            )
        except CannotGetOperationTypeError as error:
            raise BadInput(NO_OPERATION, "operationName") from error
        except InvalidOperationTypeError as error:
            wanted = error.operation_type
            over_socket = wanted is SUBSCRIPTION
            way = "over a websocket" if over_socket else "by POST"
            advice = f"The `query` holds a {wanted.value}: send it {way}."
            if request.method == "GET" and not over_socket:
                raise Refused(405, BadInput(advice, "query"), {"allow": "POST"}) from error
            raise BadInput(advice, "query") from error


def bearer_token(payload: Mapping[str, Any]) -> str | None:
    """The token of an `Authorization: Bearer …`, whatever the name's case; None without one."""
    for name, value in payload.items():
        if name.lower() == "authorization" and value is not None:
            return _token_of(str(value))
    return None


def _token_of(authorization: str | None) -> str | None:
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else authorization


def _allowed(method: str) -> set[OperationType]:
    return _BY_GET if method == "GET" else _BY_POST


def _asks_for_a_page(request: Request) -> bool:
    """Whether it is a browser's visit: GraphQL's own clients never prefer HTML."""
    asks = {"query", "documentId", "extensions"} & request.query_params.keys()
    return request.method == "GET" and not asks and HTML in request.headers.get("accept", "")


def _address(connection: HTTPConnection) -> str:
    return network_of(connection.client.host) if connection.client else "unknown"
