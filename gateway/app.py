"""The gateway as an ASGI application, and as a server in a process."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from pymongo.errors import PyMongoError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway.back_pressure import BoundedSocket
from gateway.bounded_request import BoundedRequest
from gateway.context import Services
from gateway.endpoint import Endpoint
from gateway.live import Live
from gateway.pages import GRAPHQL, DemoAccount, DemoProduct, DemoShop, Pages
from gateway.persisted import load_documents
from gateway.schema import make_schema
from gateway.security import SecurityHeaders
from gateway.unsubscribe import UnsubscribePage
from services import demo
from services.host import Runtime
from services.notifications.together import Together
from services.shared.errors import CannotStart
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.users.links import PATH

log = get_logger()


def create_app(runtime: Runtime, live: Live, stop: asyncio.Event) -> Starlette:
    """The application on an open runtime, ready until `stop` is set.

    `live` must be running for subscriptions to move.
    """
    settings = runtime.settings
    services = Services(
        settings=settings,
        clock=runtime.clock,
        bus=runtime.bus,
        outbox=runtime.outbox,
        pulse=runtime.pulse,
        counts=runtime.counts,
        intake=runtime.intake,
        sessions=runtime.sessions,
        together=Together(
            max(1, settings.mongodb_connections // 2), settings.mongodb_timeout_seconds
        ),
        access=runtime.access,
        api_keys=runtime.api_keys,
        users=runtime.users,
        choosing=runtime.choosing,
        links=runtime.links,
        texts=runtime.texts,
        announcing=runtime.announcing,
        notifications=runtime.notifications,
        states=runtime.states,
        scheduling=runtime.scheduling,
        broadcasting=runtime.broadcasting,
        schedules=runtime.schedules,
        live=live,
    )

    pages = Pages(settings, _demo_shop if settings.demo_data else _no_demo)
    endpoint = Endpoint(make_schema(settings), services, load_documents(settings), pages.graphiql)

    async def ready(request: Request) -> Response:
        return await _readiness(runtime, live, stop)

    return Starlette(
        routes=[
            Route(GRAPHQL, endpoint),
            Route("/healthz", _healthy),
            Route("/readyz", ready),
            Route(f"{PATH}/{{token}}", UnsubscribePage(services).answer, methods=["GET", "POST"]),
            *pages.routes(),
        ],
        middleware=_middleware(settings, endpoint),
    )


def _middleware(settings: Settings, endpoint: Endpoint) -> list[Middleware]:
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    stack = [Middleware(SocketsFirst, endpoint=endpoint, path=GRAPHQL), cors]
    if settings.trusted_proxies:
        trusted = list(settings.trusted_proxies)
        stack.insert(0, Middleware(ProxyHeadersMiddleware, trusted_hosts=trusted))
    return stack


class SocketsFirst:
    """Leads websockets to the endpoint, past what answers requests: each middleware and router that
    they came through would stay on the stack as long as they are open."""

    def __init__(self, app: ASGIApp, endpoint: ASGIApp, path: str) -> None:
        self._app = app
        self._endpoint = endpoint
        self._path = path

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_socket = scope["type"] == "websocket" and scope["path"] == self._path
        return (self._endpoint if is_socket else self._app)(scope, receive, send)


def listen(settings: Settings) -> socket.socket:
    """The gateway's listening socket. Raises CannotStart when the port is not to be had."""
    family = socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.gateway_host, settings.gateway_port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        no_such_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        advice = (
            "set GATEWAY_HOST to an address of this machine"
            if no_such_host
            else "stop what listens there, or set GATEWAY_PORT to another port"
        )
        raise CannotStart(
            f"The gateway can't listen on {settings.gateway_host}:{settings.gateway_port} "
            f"({error.strerror}): {advice}."
        ) from error
    return listening


async def serve(runtime: Runtime, listening: Sequence[socket.socket], stop: asyncio.Event) -> None:
    """Serve until `stop` is set or the task cancelled; requests finish within SHUTDOWN_SECONDS."""
    settings = runtime.settings
    live = Live(runtime.bus, runtime.clock, settings)
    config = uvicorn.Config(
        SecurityHeaders(create_app(runtime, live, stop)),
        interface="asgi3",
        lifespan="off",
        http=BoundedRequest.within(settings),
        limit_concurrency=settings.max_connections + 1,  # it counts the one that is too many
        proxy_headers=False,  # it would trust whoever comes from this machine
        log_config=None,
        access_log=False,
        ws=BoundedSocket.lasting(settings.socket_send_seconds),
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.socket_ping_seconds,
        ws_ping_timeout=settings.socket_ping_seconds,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=round(settings.shutdown_seconds),
        server_header=False,
    )
    server = _Server(config)

    async with _hearing(live):
        serving = asyncio.create_task(server.serve(sockets=list(listening)))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            server.should_exit = True
            await serving
        if not stop.is_set():
            raise RuntimeError("The gateway's server has ended.")


@asynccontextmanager
async def _hearing(live: Live) -> AsyncIterator[None]:
    """Hear live events; if that loop dies, so does the block, and the log says why."""
    try:
        async with live.running():
            yield
    except ExceptionGroup as group:
        log.error("loop_died", loop="live feed", exc_info=group.exceptions[0])
        raise


class _Server(uvicorn.Server):
    """A server that leaves signals to the process: it is not alone in it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _readiness(runtime: Runtime, live: Live, stop: asyncio.Event) -> Response:
    if stop.is_set():
        return JSONResponse({"status": "stopping"}, status_code=503)
    away = dict(await runtime.away())
    if not away and not live.is_heard:
        away["live"] = "Live events have not got through from the broker yet."
    if away:
        answer = {"status": "not ready", "reason": " ".join(away.values()), "away": away}
        if runtime.settings.in_production:  # strangers need not know where our servers are
            log.warning("not_ready", **away)
            answer = {"status": "not ready", "away": list(away)}
        return JSONResponse(answer, status_code=503)
    return JSONResponse({"status": "ready"})


async def _healthy(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _demo_shop() -> DemoShop:
    try:
        people = await demo.people()
    except PyMongoError:
        people = demo.ACCOUNTS  # the pages open all the same, and their buttons say what is wrong
    return DemoShop(
        [DemoAccount(one.name, one.email, one.password, one.role.name) for one in people],
        [
            DemoProduct(one.product_id, one.name, one.category, one.price, one.about)
            for one in demo.catalogue()
        ],
    )


async def _no_demo() -> DemoShop:
    return DemoShop()
