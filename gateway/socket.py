"""One websocket of GraphQL: graphql-transport-ws as the protocol's text wants it.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from json import JSONDecodeError
from typing import Any, Final

from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import (
    NonJsonMessageReceived,
    NonTextMessageReceived,
    WebSocketDisconnected,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.types.execution import PreExecutionError

from gateway.admission import TryAgainLater
from gateway.context import Context
from gateway.direct import DIRECT
from gateway.errors import as_told, mapped, masked
from gateway.http import GraphQLRequest
from gateway.news import AtOnce
from gateway.streams import Source
from services.shared.errors import DomainError, TooComplex, Unauthenticated
from services.users.api_keys import is_api_key

TRY_AGAIN_LATER: Final = 1013
FORBIDDEN: Final = 4403
INTERNAL: Final = 4500
LONGEST_ID: Final = 200  # characters
_LONGEST_REASON: Final = 123  # bytes: RFC 6455, 5.5
_LAST_SECONDS: Final = 1.0

# A message's fields and the JSON types that they may have.
_SHAPES: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "connection_init": {"payload": (dict, type(None))},
    "ping": {"payload": (dict, type(None))},
    "pong": {"payload": (dict, type(None))},
    "subscribe": {"id": (str,), "payload": (dict,)},
    "complete": {"id": (str,)},
}
_OPERATION: Final[Mapping[str, tuple[type, ...]]] = {
    "query": (str,),
    "variables": (dict, type(None)),
    "operationName": (str, type(None)),
    "extensions": (dict, type(None)),
    "documentId": (str, type(None)),
}


class SocketAdapter(ASGIWebSocketAdapter):
    """Keeps no message while it waits for the next. A client that is gone, or whose socket is being
    closed, hears no more; that is no fault."""

    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object]:
        """Raises NonJsonMessageReceived and NonTextMessageReceived."""
        try:
            while self.ws.application_state is not WebSocketState.DISCONNECTED:
                yield self.view.decode_json(await self.ws.receive_text())
        except WebSocketDisconnect:
            return
        except JSONDecodeError as error:
            raise NonJsonMessageReceived from error
        except KeyError as error:
            raise NonTextMessageReceived from error

    async def send_json(self, message: Mapping[str, object]) -> None:
        """Raises WebSocketDisconnected."""
        try:
            await super().send_json(message)
        except RuntimeError as error:
            if self.ws.application_state is not WebSocketState.DISCONNECTED:
                raise
            raise WebSocketDisconnected from error

    async def close(self, code: int, reason: str) -> None:
        """`reason` is cut to the bytes that it may have."""
        if self.ws.application_state is WebSocketState.DISCONNECTED:
            return
        with suppress(WebSocketDisconnect):
            await super().close(code, reason.encode()[:_LONGEST_REASON].decode(errors="ignore"))


class _Operation(Operation[Context, None]):
    follows = False  # what happens, as an open subscription does

    async def refuse(self, problem: GraphQLError) -> None:
        """Before it has begun: nothing is to be forgotten."""
        await self.handler.send_message(
            {"id": self.id, "type": "error", "payload": [problem.formatted]}
        )


class Socket(BaseGraphQLTransportWSHandler[Context, None]):
    """One websocket: what the protocol's text wants, message by message."""

    _watching: asyncio.Task[None] | None = None
    _stop_watching: Callable[[], None] | None = None
    _expiry: asyncio.TimerHandle | None = None
    _ending: asyncio.Task[None] | None = None

    async def handle_message(self, message: Any) -> None:
        if problem := _malformed(message):
            await self.handle_invalid_message(problem)
        else:
            await super().handle_message(message)
            message.clear()  # who called us holds it until the next one comes

    async def handle_connection_init(self, message: Any) -> None:
        message["payload"] = message.get("payload") or {}
        try:
            await super().handle_connection_init(message)
        except TryAgainLater as error:
            await self.websocket.close(TRY_AGAIN_LATER, str(error))
            return
        except WebSocketDisconnected:
            raise
        except Exception as error:
            await self.websocket.close(INTERNAL, masked(error).message)
            return
        self.connection_init_timeout_task = None  # it is over, and would be kept with its frames
        token = self.context.token
        if token is None or is_api_key(token):  # each operation asks whether the key still counts
            return
        if self._watching is None and self._expiry is None and self.connection_acknowledged:
            self._watching = asyncio.create_task(self._end_with(token))

    async def handle_subscribe(self, message: Any) -> None:
        """One operation more than allowed, or an unknown document, is refused; the socket lives."""
        id, limit = message["id"], self.max_subscriptions_per_connection
        if not self.connection_acknowledged or id in self.operations:
            await super().handle_subscribe(message)  # which closes
            return
        request = GraphQLRequest.of(message["payload"])
        operation = _Operation(self, id, "", None, request.operation_name)
        try:
            if limit is not None and len(self.operations) >= limit:
                raise TooComplex(
                    f"{limit} operations run on this socket, the most: complete one first."
                )
            document = self.view.documents.document(request)  # type: ignore[attr-defined]
        except DomainError as error:
            await operation.refuse(GraphQLError(error.message, extensions=error.extensions))
            return
        # Of its own, since each operation asks anew whether the session is still open.
        context = self.context.again(request.asks_for_cost, self._at_once(id))
        self.operations[id] = operation
        operation.task = asyncio.create_task(self._run(operation, document, request, context))
        operation.task.add_done_callback(self._task_done)

    async def _run(
        self, operation: _Operation, document: str, request: GraphQLRequest, context: Context
    ) -> None:
        results: Any = await self.schema.stream(
            document,
            variable_values=request.variables,
            context_value=context,
            operation_name=request.operation_name,
        )
        del document, request  # an open subscription keeps no more than it needs
        source: Source | None = None
        try:
            async with aclosing(results):
                async for result in results:
                    if isinstance(result, Source):
                        source = result
                    elif not await self._tell(operation, result):
                        return
            if source is not None:
                del results, result
                if not await self._follow(operation, source, context):
                    return
            await operation.send_operation_message({"id": operation.id, "type": "complete"})
        except WebSocketDisconnected:  # who is gone is told nothing
            self.operations.pop(operation.id, None)
        except Exception as error:
            await operation.send_initial_errors([masked(error)])

    async def _follow(self, operation: _Operation, source: Source, context: Context) -> bool:
        """Tell what happens until nothing more will; whether it came to its end. Whatever ends it
        before is told as its result."""
        operation.follows = True
        if context.at_once is not None:
            context.at_once.shape = source.shape
        async with aclosing(source.events):
            async for event in source.events:
                result = await source.execute(event)
                settings = context.services.settings
                result.errors = as_told(result.errors or (), settings, valid=True)
                if not await self._tell(operation, result):
                    return False
        return True

    async def _tell(self, operation: _Operation, result: Any) -> bool:
        """Whether more may follow."""
        errors = [mapped(error, valid=False) for error in result.errors or ()]
        was_executed = any(error.path for error in errors) or result.data is not None
        if isinstance(result, PreExecutionError) or not was_executed:
            await operation.send_initial_errors(errors)
            return False
        result.errors = errors or None
        await operation.send_next(result)
        return True

    def _at_once(self, id: str) -> AtOnce | None:
        direct = self.websocket.ws.scope["extensions"].get(DIRECT)  # type: ignore[attr-defined]
        return AtOnce(id, direct) if direct is not None else None

    def forget_id(self, id: str) -> None:
        """The client may have completed it meanwhile, and begun another of the same id."""
        operation = self.operations.get(id)
        if operation is not None and operation.task is asyncio.current_task():
            del self.operations[id]

    async def handle_ping(self, message: Any) -> None:
        message["type"] = "pong"  # and the payload as it came
        await self.send_message(message)

    async def shutdown(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._stop_watching is not None:
            self._stop_watching()
        if self._expiry is not None:
            self._expiry.cancel()
        try:
            await self._end_of_what_was_asked()
        finally:
            await super().shutdown()

    async def _end_of_what_was_asked(self) -> None:
        """A page that is left by a link has just said that something was read. It keeps its place
        among the sockets meanwhile, for a second at most: a process that stops waits for it."""
        asked = [
            one.task
            for one in self.operations.values()
            if one.task and not (isinstance(one, _Operation) and one.follows)
        ]
        if asked:
            await asyncio.wait(asked, timeout=_LAST_SECONDS)

    async def _end_with(self, token: str) -> None:
        """Close when the access token expires, on which clients come back with a new one, or when
        its session ends."""
        services = self.context.services
        left = 0.0
        try:
            identity = services.sessions.read_token(token)
        except Unauthenticated:  # it has expired meanwhile
            pass
        else:
            assert identity.expires_at is not None
            left = (identity.expires_at - services.clock.now()).total_seconds()
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(left, self._end, "access token has expired: refresh")
        if left > 0:
            ended = partial(self._end, "session has ended: log in")
            self._stop_watching = await services.live.watch_session(identity, ended)
        self._watching = None

    def _end(self, why: str) -> None:
        """Once: a slow client may take long to close."""
        if self._ending is None:
            self._ending = asyncio.create_task(self.websocket.close(FORBIDDEN, f"The {why}"))


def _malformed(message: Any) -> str | None:
    """What is wrong with the form of a client's message, if anything."""
    if not isinstance(message, dict) or message.get("type") not in tuple(_SHAPES):
        return "A message is an object with a type of the protocol"
    shape = _SHAPES[message["type"]]
    problem = _misshapen(message, shape)
    if problem is None and "id" in shape and not 1 <= len(message["id"]) <= LONGEST_ID:
        problem = f"An id has 1 to {LONGEST_ID} characters"
    if problem is None and message["type"] == "subscribe":
        problem = _misshapen(message["payload"], _OPERATION)
    return problem


def _misshapen(fields: Mapping[str, Any], shape: Mapping[str, tuple[type, ...]]) -> str | None:
    for name, types in shape.items():
        if name not in fields:
            if type(None) not in types:
                return f"{name} is missing"
        elif not isinstance(fields[name], types):
            return f"{name} has a wrong type"
    return None
