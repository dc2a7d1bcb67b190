"""One websocket of GraphQL: graphql-transport-ws as the protocol's text wants it.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

from graphql import GraphQLError
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)

from gateway.context import Context
from services.shared.errors import TooComplex, Unauthenticated

FORBIDDEN: Final = 4403

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
}


class Socket(BaseGraphQLTransportWSHandler[Context, None]):
    """One websocket: what the protocol's text wants, message by message."""

    _expiry: asyncio.Task[None] | None = None

    async def handle_message(self, message: Any) -> None:
        if problem := _malformed(message):
            await self.handle_invalid_message(problem)
        else:
            await super().handle_message(message)

    async def handle_connection_init(self, message: Any) -> None:
        message["payload"] = message.get("payload") or {}
        await super().handle_connection_init(message)
        token = self.context.token
        if self._expiry is None and self.connection_acknowledged and token is not None:
            self._expiry = asyncio.create_task(self._end_with(token))

    async def handle_subscribe(self, message: Any) -> None:
        """One operation more than allowed is refused; the socket lives."""
        limit = self.max_subscriptions_per_connection
        running = len(self.operations) - (message["id"] in self.operations)
        if not self.connection_acknowledged or limit is None or running < limit:
            former = self.context  # each operation asks anew whether the session is still open
            self.context = Context(former.services, former.token, former.connection_params)
            await super().handle_subscribe(message)
            return
        error = TooComplex(f"{limit} operations run on this socket, the most: complete one first.")
        problem = GraphQLError(error.message, extensions=error.extensions)
        await self.send_message(
            {"id": message["id"], "type": "error", "payload": [problem.formatted]}
        )

    def forget_id(self, id: str) -> None:
        """The client may have completed it meanwhile, and begun another of the same id."""
        operation = self.operations.get(id)
        if operation is not None and operation.task is asyncio.current_task():
            del self.operations[id]

    async def handle_ping(self, message: Any) -> None:
        message["type"] = "pong"  # and the payload as it came
        await self.send_message(message)

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):  # who is gone is told nothing
            await super().handle_task_exception(error)

    async def shutdown(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        await super().shutdown()

    async def _send_result_stream(
        self, operation: Operation[Context, None], result_source: AsyncIterator[Any]
    ) -> None:
        """A result without data ends the operation with an `error` message."""
        async for result in result_source:
            if result.data is None and result.errors:
                await operation.send_initial_errors(result.errors)
                return
            await operation.send_next(result)

    async def _end_with(self, token: str) -> None:
        """Close when the access token expires; clients then come back with a new one."""
        services = self.context.services
        with suppress(Unauthenticated):  # it has expired meanwhile
            left = services.users.read_token(token).expires_at - services.clock.now()
            await asyncio.sleep(left.total_seconds())
        await self.websocket.close(FORBIDDEN, "The access token has expired: refreshSession")


def _malformed(message: Any) -> str | None:
    """What is wrong with the form of a client's message, if anything."""
    if not isinstance(message, dict) or message.get("type") not in tuple(_SHAPES):
        return "A message is an object with a type of the protocol"
    problem = _misshapen(message, _SHAPES[message["type"]])
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
