"""A flood of events waits in the broker, not in a worker's memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import aio_pika
import psutil

from services import host
from services.notifications.catalogue import Product
from services.shared.clock import SystemClock
from services.shared.events import NOTIFICATIONS, Event, ProductChanged
from services.shared.rabbit import RabbitBus
from services.shared.store import open_store
from services.shared.topology import queue_name
from tests.kit import forget_queues, quick_settings
from tests.processes import elsewhere, tidings
from tests.servers import PrivateRabbitMQ, hang, private_mongod_server, until

FLOOD = 15_000
BATCH = 500
AT_ONCE = 6
MIB = 2**20


async def test_a_flood_waits_in_the_broker_while_the_database_hangs(
    tmp_path: Path, rabbitmq: PrivateRabbitMQ
) -> None:
    """All of it would take 22 MiB of a worker; what it may hold takes 5."""
    async with private_mongod_server(tmp_path / "mongod") as mongod:
        settings = quick_settings(mongod.url, rabbitmq_url=rabbitmq.url, mongodb_database="tidings")
        await forget_queues(rabbitmq.url, settings)
        worker = tidings(
            "notifications",
            folder=tmp_path / "worker",
            RABBITMQ_URL=rabbitmq.url,
            BATCH_SIZE=BATCH,
            BATCHES_AT_ONCE=AT_ONCE,
            **elsewhere(mongod.url),
        )
        bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
        async with worker as run, await aio_pika.connect(rabbitmq.url) as connection:
            channel = await connection.channel()

            async def state() -> tuple[int, int]:
                queue = await channel.declare_queue(queue_name(NOTIFICATIONS), passive=True)
                declared = queue.declaration_result
                return declared.consumer_count or 0, declared.message_count or 0

            async def consumes() -> bool:
                return (await state())[0] == 1

            await bus.ping()
            await until(consumes)
            process = psutil.Process(run.process.pid)
            before = process.memory_info().rss
            await hang(mongod.pid)
            try:
                for start in range(0, FLOOD, 1000):
                    await bus.publish([_product(start + number) for number in range(1000)])
                waiting = (await state())[1]
                grown = process.memory_info().rss - before
            finally:
                os.kill(mongod.pid, signal.SIGCONT)
            assert FLOOD - (AT_ONCE + 1) * BATCH - 1 <= waiting < FLOOD  # the first came alone
            assert grown < 10 * MIB
            async with open_store(mongod.url, "tidings", host.MODELS, timeout=5, patience=20):

                async def all_are_kept() -> bool:
                    return await Product.count() == FLOOD

                await until(all_are_kept, timeout=60, every=0.2)
        await bus.close()


def _product(number: int) -> Event:
    data = ProductChanged(product_id=f"p-{number}", name="A product " * 40, category="things")
    return Event.of(data, time=SystemClock().now())
