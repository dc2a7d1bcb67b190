"""What tests use instead of insides: a whole house on a port, and clients that speak GraphQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import aio_pika
import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from gateway import app
from services import host
from services.host import Runtime
from services.shared import events, topology
from services.shared.clock import Clock, SystemClock, whole_milliseconds
from services.shared.events import Event
from services.shared.inbox import Inbox
from services.shared.settings import Settings
from services.shared.store import Session, Store
from services.shared.vocabulary import Role
from services.users.service import Registration
from services.users.sessions import Caller

T = TypeVar("T")

PASSWORD = "a password for tests"
PATIENCE = 20.0


class GraphQLFailed(AssertionError):
    """The answer had errors; the first one's code, message and extensions."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(json.dumps(errors, indent=1))
        self.message: str = errors[0]["message"]
        self.extensions: dict[str, Any] = errors[0].get("extensions", {})
        self.code: str | None = self.extensions.get("code")
        self.field: str | None = self.extensions.get("field")


class ShiftedClock:
    """The system's clock, moved by as much as a test likes, or stopped."""

    def __init__(self) -> None:
        self.shift = timedelta()
        self._stopped_at: datetime | None = None

    def now(self) -> datetime:
        time = self._stopped_at or SystemClock().now()
        return whole_milliseconds(time + self.shift)

    @contextmanager
    def moved(self, by: timedelta) -> Iterator[None]:
        """So much later, or earlier, in here."""
        self.shift += by
        try:
            yield
        finally:
            self.shift -= by

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens in here happens at one instant."""
        self._stopped_at = SystemClock().now()
        try:
            yield
        finally:
            self._stopped_at = None


class Elsewhere(Store):
    """A store on which something happens just before a transaction, or just after it."""

    def __init__(
        self,
        store: Store,
        before: Callable[[], Awaitable[object]] | None = None,
        after: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._store = store
        self._before = before
        self._after = after

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        if self._before:
            await self._before()
        result = await self._store.transact(work)
        if self._after:
            await self._after()
        return result


class Killed(BaseException):
    """The end of the process."""


async def killed() -> None:
    raise Killed


class ForgetfulInbox(Inbox):
    """An inbox that needs no database, since every event is new to it."""

    def __init__(self) -> None:
        super().__init__(SystemClock(), Settings(_env_file=None))

    async def conflicting(self, events: Sequence[Event]) -> set[int]:
        return set()


NO_MEMORY = ForgetfulInbox()


@dataclass(frozen=True)
class Somebody:
    """A user of the house, logged in."""

    id: str
    email: str
    api: Api
    tokens: Mapping[str, Any]


def http_client(**kwargs: Any) -> httpx.AsyncClient:
    """One that checks no certificates: to read them takes 20 ms, and a test may make hundreds."""
    given = {"timeout": PATIENCE, "trust_env": False, "verify": False} | kwargs
    return httpx.AsyncClient(**given)


class Api:
    """GraphQL over HTTP and websocket at one gateway, with or without a token."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.token = token

    def as_(self, token: str | None) -> Api:
        return Api(self.url, token)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    async def post(self, **kwargs: Any) -> httpx.Response:
        """A raw request to the endpoint."""
        headers = self.headers | kwargs.pop("headers", {})
        async with http_client() as client:
            return await client.post(self.url, headers=headers, **kwargs)

    async def ask(self, document: str, **variables: Any) -> Any:
        """The answer's data. Raises GraphQLFailed."""
        response = await self.post(json={"query": document, "variables": variables})
        answer = response.json()
        if answer.get("errors"):
            raise GraphQLFailed(answer["errors"])
        return answer["data"]

    @asynccontextmanager
    async def socket(self, init: object = ...) -> AsyncIterator[Socket]:
        """A websocket after connection_init was acknowledged."""
        payload = self.headers if init is ... else init
        async with raw_socket(self.url) as connection:
            socket = Socket(connection)
            await socket.send({"type": "connection_init", "payload": payload})
            assert (await socket.receive())["type"] == "connection_ack"
            yield socket

    @asynccontextmanager
    async def follow(self, document: str, **variables: Any) -> AsyncIterator[Stream]:
        """A running subscription on a socket of its own."""
        async with self.socket() as socket:
            yield await socket.subscribe(document, **variables)


@asynccontextmanager
async def raw_socket(url: str, **kwargs: Any) -> AsyncIterator[ClientConnection]:
    address = url.replace("http", "ws", 1)
    subprotocols = [Subprotocol("graphql-transport-ws")]
    async with connect(address, subprotocols=subprotocols, proxy=None, **kwargs) as connection:
        yield connection


class Socket:
    """graphql-transport-ws, one message at a time."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: object) -> None:
        await self.connection.send(json.dumps(message))

    async def receive(self, timeout: float = PATIENCE) -> Any:
        async with asyncio.timeout(timeout):
            return json.loads(await self.connection.recv())

    async def subscribe(self, document: str, **variables: Any) -> Stream:
        id = uuid4().hex
        payload = {"query": document, "variables": variables}
        await self.send({"id": id, "type": "subscribe", "payload": payload})
        return Stream(self, id)


class Stream:
    """The results of one operation."""

    def __init__(self, socket: Socket, id: str) -> None:
        self.socket = socket
        self.id = id

    async def next(self, timeout: float = PATIENCE) -> Any:
        """The next result's data. Raises GraphQLFailed for an error message."""
        message = await self.socket.receive(timeout)
        assert message["id"] == self.id, message
        if message["type"] == "error":
            raise GraphQLFailed(message["payload"])
        assert message["type"] == "next", message
        if message["payload"].get("errors"):
            raise GraphQLFailed(message["payload"]["errors"])
        return message["payload"]["data"]


@dataclass(frozen=True)
class House:
    """Everything in this process, its gateway on a free port."""

    runtime: Runtime
    api: Api

    async def somebody(self, role: Role = Role.USER, **registration: Any) -> Somebody:
        """A new user, logged in."""
        email = registration.pop("email", f"{uuid4().hex}@shop.example")
        user = await self.runtime.users.create(
            Registration("Some Body", email, PASSWORD, **registration), role
        )
        login = await self.runtime.sessions.open(user, Caller("127.0.0.1"))
        tokens = {"accessToken": login.access_token, "refreshToken": login.refresh_token}
        return Somebody(str(user.id), email, self.api.as_(login.access_token), tokens)


def quick_settings(mongodb_url: str, **changes: Any) -> Settings:
    """Settings for tests: everything on, nothing slow, a database of its own."""
    values: dict[str, Any] = {
        "mongodb_url": mongodb_url,
        "mongodb_database": f"test_{uuid4().hex[:12]}",
        "jwt_secret": "a secret for tests, and only for tests",
        "gateway_port": 0,
        "bcrypt_cost": 4,
        "login_failures_per_address": 100_000,
        "registrations_per_address": 100_000,
        "resets_per_address": 100_000,
        "retry_waits": (0.1, 0.2),
        "outbox_poll_seconds": 0.05,
        "scheduler_tick_seconds": 0.05,
        "mongodb_timeout_seconds": 2.4,  # a busy machine is no outage
        "write_window_seconds": 2.5,
        "shutdown_seconds": 1,
    }
    return Settings(_env_file=None, **(values | changes))


@asynccontextmanager
async def open_house(
    settings: Settings, clock: Clock | None = None, workers: tuple[str, ...] = host.WORKERS
) -> AsyncIterator[House]:
    """Run everything in this process until the end of the block.

    One at a time: Beanie binds its models to one database in a process.
    """
    stop = asyncio.Event()
    listening = app.listen(settings)
    port = listening.getsockname()[1]
    async with host.open_runtime(settings, clock) as runtime, asyncio.TaskGroup() as group:
        working = group.create_task(host.run(runtime, workers))
        serving = group.create_task(app.serve(runtime, [listening], stop))
        api = Api(f"http://127.0.0.1:{port}/graphql")
        try:
            await runtime.ping()
            yield House(runtime, api)
        finally:
            stop.set()
            await serving
            working.cancel()
            await runtime.store.drop()


async def forget_queues(rabbitmq_url: str, settings: Settings) -> None:
    """Delete the queues of earlier tests from a broker that tests share."""
    names = [topology.DEAD_LETTERS]
    for queue in events.QUEUES:
        names.append(topology.queue_name(queue))
        names += [topology.retry_queue_name(queue, wait) for wait in settings.retry_waits]
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name)
