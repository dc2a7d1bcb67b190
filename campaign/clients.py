"""How the campaign's clients speak: GraphQL to a gateway, events straight to the exchange.

Every answer is one of three: done, refused for good, or nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import aio_pika
import httpx
from aio_pika.abc import AbstractExchange

from campaign.journal import Outcome
from services.shared import topology
from services.shared.amqp import FAULTS, Connection, close, connect
from services.shared.settings import Settings

TIMEOUT: Final = 3.0
NOT_GRAPHQL: Final = "not GraphQL"
_FOR_GOOD: Final = {
    "BAD_USER_INPUT",
    "CONFLICT",
    "FORBIDDEN",
    "NOT_FOUND",
    "UNAUTHENTICATED",
    "QUERY_TOO_COMPLEX",
    "GRAPHQL_PARSE_FAILED",
    "GRAPHQL_VALIDATION_FAILED",
}


class Answer(NamedTuple):
    """`code`: the error's, or what broke. `data`: only with OK."""

    outcome: Outcome
    code: str
    data: Mapping[str, Any]


class Gateways:
    """GraphQL over HTTP at any of some gateways, each request with a time limit."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = urls
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=40)
        self._clients = [
            httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, limits=limits) for _ in urls
        ]

    async def ask(
        self, number: int, token: str, document: str, variables: Mapping[str, Any]
    ) -> Answer:
        number %= len(self.urls)
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._clients[number].post(
                    self.urls[number],
                    json={"query": document, "variables": variables},
                    headers={"authorization": f"Bearer {token}"},
                )
                answer = response.json()
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            return Answer(Outcome.INDETERMINATE, type(error).__name__, {})
        except ValueError:
            return Answer(Outcome.INDETERMINATE, NOT_GRAPHQL, {})
        if not isinstance(answer, dict):
            return Answer(Outcome.INDETERMINATE, NOT_GRAPHQL, {})
        if errors := answer.get("errors"):
            code = str(errors[0].get("extensions", {}).get("code", "NONE"))
            return Answer(Outcome.REFUSED if code in _FOR_GOOD else Outcome.INDETERMINATE, code, {})
        return Answer(Outcome.OK, "", answer.get("data") or {})

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


class Exchange:
    """A shop's backend that publishes straight to `tidings.events`, with confirms."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._connection: Connection | None = None
        self._exchange: AbstractExchange | None = None
        self._opening = asyncio.Lock()

    async def publish(self, body: bytes, routing_key: str) -> Answer:
        exchange: AbstractExchange | None = None
        try:
            async with asyncio.timeout(TIMEOUT):
                exchange = await self._open()
                message = aio_pika.Message(
                    body,
                    content_type="application/cloudevents+json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                await exchange.publish(message, routing_key, mandatory=False, timeout=TIMEOUT)
        except FAULTS as error:
            await self._drop(exchange)
            return Answer(Outcome.INDETERMINATE, type(error).__name__, {})
        except asyncio.CancelledError:
            # A connection that closes may cancel what waits for its confirms.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._drop(exchange)
            return Answer(Outcome.INDETERMINATE, "Cancelled", {})
        return Answer(Outcome.OK, "", {})

    async def close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            with suppress(*FAULTS):
                await close(connection)

    async def _open(self) -> AbstractExchange:
        async with self._opening:
            if self._exchange is not None and self._alive():
                return self._exchange
            await self.close()
            self._connection = await connect(self._url, self._settings)
            channel = await self._connection.channel(publisher_confirms=True)
            self._exchange = await channel.get_exchange(topology.EVENTS, ensure=False)
            return self._exchange

    def _alive(self) -> bool:
        return self._connection is not None and not self._connection.is_closed

    async def _drop(self, exchange: AbstractExchange | None) -> None:
        if exchange is None or exchange is self._exchange:
            await self.close()
