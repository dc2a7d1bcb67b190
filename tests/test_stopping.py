"""SIGTERM: readiness goes down, sockets say why, work in hand ends, and all of it in time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import psutil
import pytest
from aio_pika.abc import AbstractChannel
from pymongo import AsyncMongoClient
from websockets.exceptions import ConnectionClosed

from gateway.app import create_app
from gateway.live import Live
from services import demo
from services.shared import topology
from services.shared.clock import SystemClock
from services.shared.events import NOTIFICATIONS, Event, ProductChanged, encode
from services.shared.settings import Settings
from tests.kit import Api, House, forget_queues, raw_socket
from tests.processes import Run, elsewhere, tidings
from tests.servers import PrivateRabbitMQ, hang, private_mongod_server, until

ALICE = demo.ACCOUNTS[0]
ADDED = "subscription { notificationAdded { node { id } } }"
LOGIN = "mutation($input: LoginInput!) { login(input: $input) { accessToken } }"
SHUTDOWN_SECONDS = 3
MARGIN_SECONDS = 2.5


async def test_readiness_goes_down_at_the_stop_signal(house: House) -> None:
    runtime, stop = house.runtime, asyncio.Event()
    live = Live(runtime.bus, runtime.clock, runtime.settings)
    transport = httpx.ASGITransport(create_app(runtime, live, stop))
    async with (
        live.running(),
        httpx.AsyncClient(transport=transport, base_url="http://tidings") as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        stop.set()
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})
        assert (await client.get("/healthz")).status_code == 200


async def test_a_stop_closes_sockets_with_1012_and_lets_queries_in_hand_finish(
    tmp_path: Path,
) -> None:
    async with private_mongod_server(tmp_path / "mongod") as mongod:
        settings = elsewhere(mongod.url) | {"DEMO_DATA": "true"}
        async with tidings("serve", folder=tmp_path, **settings) as run:
            alice = await _login(await run.ready())
            async with raw_socket(alice.url) as connection, _frozen(mongod.pid):
                asking = asyncio.create_task(alice.ask("{ me { name } }"))
                await until(lambda: _connections(run) >= 2)
                run.send(signal.SIGTERM)
                await until(lambda: "stopping" in run.errors)
                with pytest.raises(ConnectionClosed) as closed:
                    await connection.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
                assert not asking.done()
            assert (await asking)["me"]["name"]
            assert await run.ended(SHUTDOWN_SECONDS + MARGIN_SECONDS) == 0
            assert "Traceback" not in run.errors


@pytest.mark.parametrize("whose", ["its own", "another's"])
async def test_a_database_that_hangs_does_not_hold_up_the_end(tmp_path: Path, whose: str) -> None:
    async with private_mongod_server(tmp_path / "mongod") as other:
        settings = elsewhere(other.url) if whose != "its own" else {}
        async with tidings(
            "serve",
            folder=tmp_path,
            DEMO_DATA="true",
            SHUTDOWN_SECONDS=SHUTDOWN_SECONDS,
            **settings,
        ) as run:
            alice = await _login(await run.ready())
            pid = other.pid if settings else run.mongods[0]
            async with alice.follow(ADDED), _frozen(pid):
                asking = asyncio.create_task(alice.ask("{ me { name } }"))
                await until(lambda: _connections(run) >= 2)
                run.send(signal.SIGTERM)
                assert await run.ended(SHUTDOWN_SECONDS + MARGIN_SECONDS) == 0
                with suppress(AssertionError, httpx.TransportError):
                    await asking
            assert "Traceback" not in run.errors


async def test_an_event_in_hand_is_handled_and_settled_before_a_worker_ends(
    rabbitmq: PrivateRabbitMQ, tmp_path: Path
) -> None:
    queue = topology.queue_name(NOTIFICATIONS)
    async with (
        private_mongod_server(tmp_path / "mongod") as mongod,
        await aio_pika.connect(rabbitmq.url) as broker,
        AsyncMongoClient[dict[str, Any]](mongod.url) as client,
    ):
        defaults = Settings(_env_file=None)
        await forget_queues(rabbitmq.url, defaults)
        channel, products = await broker.channel(), client.tidings.products
        await topology.declare_topology(channel, defaults)
        settings = elsewhere(mongod.url) | {"RABBITMQ_URL": rabbitmq.url, "SHUTDOWN_SECONDS": 20}
        async with tidings("notifications", folder=tmp_path, **settings) as run:
            await until(lambda: _has_consumer(channel, queue))
            async with _frozen(mongod.pid):
                await _publish_product(channel, "in hand")
                await until(lambda: 'what="the inbox"' in run.errors, 20)
                run.send(signal.SIGTERM)
                await until(lambda: "action=stopping" in run.errors)
            assert await run.ended() == 0
        left = await channel.declare_queue(queue, passive=True)
        assert await products.count_documents({}) == 1
        assert left.declaration_result.message_count == 0


async def _has_consumer(channel: AbstractChannel, queue: str) -> bool:
    found = await channel.declare_queue(queue, passive=True)
    return bool(found.declaration_result.consumer_count)


async def _publish_product(channel: AbstractChannel, product_id: str) -> None:
    product = ProductChanged(product_id=product_id, name="Tent", category="Tents")
    message = aio_pika.Message(encode(Event.of(product, time=SystemClock().now())))
    exchange = await channel.get_exchange(topology.EVENTS)
    await exchange.publish(message, ProductChanged.type)


@asynccontextmanager
async def _frozen(pid: int) -> AsyncIterator[None]:
    await hang(pid)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _connections(run: Run) -> int:
    """How many clients the gateway has accepted."""
    connections = psutil.Process(run.process.pid).net_connections("tcp")
    return sum(
        bool(one.laddr.port == run.port and one.status == psutil.CONN_ESTABLISHED)
        for one in connections
    )


async def _login(run: Run) -> Api:
    credentials = {"email": ALICE.email, "password": ALICE.password}
    answer = await run.api.ask(LOGIN, input=credentials)
    return run.api.as_(answer["login"]["accessToken"])
