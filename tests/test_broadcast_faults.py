"""Broadcasts whose servers and workers are really killed: each recipient once all the same."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from services.notifications.broadcasts import Broadcast
from services.shared.vocabulary import BroadcastState
from tests.crowds import assert_all_served_once, crowd, have, now, resting, start
from tests.kit import ShiftedClock, forget_queues, quick_settings
from tests.outages import away
from tests.processes import SECRET, tidings
from tests.servers import PrivateMongod, PrivateRabbitMQ, private_mongod_server, until

CHUNK = 10


async def test_a_broadcast_outlives_an_outage_of_the_database(
    tmp_path_factory: pytest.TempPathFactory, clock: ShiftedClock
) -> None:
    async with (
        private_mongod_server(tmp_path_factory.mktemp("mongod")) as mongod,
        resting(mongod.url, clock, fan_out_size=CHUNK, broadcast_lease_seconds=1) as shop,
    ):
        ids = await crowd(clock, 10 * CHUNK)
        broadcast = await start(shop)
        loops = [
            asyncio.create_task(loop())
            for loop in (shop.recipients.keep_finding, shop.fan_out.keep_sending)
        ]
        await until(lambda: have(broadcast))
        async with away(mongod, "killed"):
            await asyncio.sleep(0.5)
        await until(lambda: is_done(broadcast), timeout=30)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await assert_all_served_once(broadcast, ids)


async def is_done(broadcast: Broadcast) -> bool:
    return (await now(broadcast)).state is BroadcastState.DONE


async def test_a_process_that_is_killed_in_a_chunk_costs_nobody_theirs_and_no_counter(
    rabbitmq: PrivateRabbitMQ, mongod: PrivateMongod, clock: ShiftedClock, tmp_path: Path
) -> None:
    settings = quick_settings(mongod.url)
    environment: dict[str, Any] = {
        "MONGODB_URL": mongod.url,
        "MONGODB_DATABASE": settings.mongodb_database,
        "RABBITMQ_URL": rabbitmq.url,
        "JWT_SECRET": SECRET,
        "FAN_OUT_SIZE": 50,
        "BROADCAST_LEASE_SECONDS": 1,
    }
    await forget_queues(rabbitmq.url, settings)
    async with resting(mongod.url, clock, mongodb_database=settings.mongodb_database) as shop:
        ids = await crowd(clock, 500)
        broadcast = await start(shop)
        first = tidings("notifications", folder=tmp_path / "first", **environment)
        second = tidings("notifications", folder=tmp_path / "second", **environment)
        async with first as dying:
            await until(lambda: have(broadcast), timeout=30, every=0.002)
            dying.send(signal.SIGKILL)
            await dying.ended()
        assert len(await have(broadcast)) < len(ids)
        async with second:
            await until(lambda: is_done(broadcast), timeout=30)
        await assert_all_served_once(broadcast, ids)
