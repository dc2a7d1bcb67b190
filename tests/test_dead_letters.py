"""What an operator types about dead letters, beside a running shop, on both transports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from pymongo import AsyncMongoClient

from services.shared.events import NOTIFICATIONS
from services.shared.mongod import running_url
from services.shared.topology import EVENTS
from tests.kit import forget_queues, quick_settings
from tests.processes import elsewhere, tidings
from tests.servers import PrivateMongod, PrivateRabbitMQ, until


@dataclass
class Shop:
    """A running shop, how to poison it, and the settings of a command beside it."""

    folder: Path
    environment: dict[str, Any]
    poison: Callable[[bytes], Awaitable[None]]

    async def letters(self, *arguments: str) -> str:
        """What `dead-letters` says."""
        async with tidings(
            "dead-letters", *arguments, folder=self.folder, **self.environment
        ) as run:
            assert await run.ended() == 0, run.errors
            return run.output

    async def refused(self, *arguments: str) -> str:
        async with tidings(
            "dead-letters", *arguments, folder=self.folder, **self.environment
        ) as run:
            return await run.refused()

    async def listed(self, count: int) -> list[str]:
        """The lines of that many dead letters, when there are so many."""
        total = f"{count} dead letter{'' if count == 1 else 's'}."

        async def lines() -> list[str]:
            output = (await self.letters()).splitlines()
            return output[1:-1] if output[-1] == total else []

        return await until(lines, timeout=20)


@pytest.fixture(params=["embedded", "between_processes"])
def shop(request: pytest.FixtureRequest) -> Shop:
    chosen: Shop = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(autouse=True)
async def _no_letters(shop: Shop) -> None:
    await shop.letters("discard", "--all")


@pytest.fixture(scope="module")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder = tmp_path_factory.mktemp("embedded")
    async with tidings("serve", folder=folder / "shop") as run:
        await run.ready()
        url = running_url(run.data_dir)
        assert url is not None

        async def poison(body: bytes) -> None:
            now = datetime.now(UTC)
            row = {"queue": NOTIFICATIONS, "body": body, "failures": 0, "first_seen": now}
            async with AsyncMongoClient[dict[str, Any]](url) as client:
                await client.tidings.embedded_queue.insert_one(row | {"due_at": now})

        yield Shop(folder, {"DATA_DIR": run.data_dir}, poison)


@pytest.fixture(scope="module")
async def between_processes(
    tmp_path_factory: pytest.TempPathFactory, mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ
) -> AsyncIterator[Shop]:
    folder = tmp_path_factory.mktemp("between")
    await forget_queues(rabbitmq.url, quick_settings(""))
    environment = elsewhere(mongod.url) | {
        "RABBITMQ_URL": rabbitmq.url,
        "MONGODB_DATABASE": f"test_{uuid4().hex[:12]}",
    }

    async def poison(body: bytes) -> None:
        async with await aio_pika.connect(rabbitmq.url) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(EVENTS)
            await exchange.publish(aio_pika.Message(body), "order.eaten")

    async with tidings("notifications", folder=folder / "worker", **environment) as run:
        yield Shop(folder, environment, poison)
        assert run.process.returncode is None, run.errors


async def test_a_dead_letter_is_listed_in_one_line_and_shown_in_whole(shop: Shop) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "order.eaten", "data": {}}
    await shop.poison(json.dumps(event).encode())
    [line] = await shop.listed(1)
    assert NOTIFICATIONS in line
    assert "Unknown event type" in line
    page = await shop.letters("show", line.split()[0])
    fields, _, body = page.partition("\n\n")
    assert json.loads(body) == event
    for name in ("id", "queue", "reason", "failures", "first seen", "given up"):
        assert f"{name}:" in fields
    assert "failures:   1" in fields
    assert line.split()[0] in fields


async def test_a_body_that_is_no_text_is_shown_and_steers_no_terminal(shop: Shop) -> None:
    await shop.poison(b"\xff\x00binary")
    await shop.poison(b"text with \x1b[2J")
    pages = [await shop.letters("show", line.split()[0]) for line in await shop.listed(2)]
    assert r"b'\xff\x00binary'" in pages[0]
    assert r"text with \x1b[2J" in pages[1]


async def test_a_replayed_letter_goes_through_its_queue_again(shop: Shop) -> None:
    await shop.poison(b"first")
    [line] = await shop.listed(1)
    await shop.poison(b"second")
    await shop.listed(2)
    assert await shop.letters("replay", line.split()[0]) == "Put back 1 dead letter.\n"
    lines = await shop.listed(2)  # nobody can handle it this time either, so it is another letter
    assert line.split()[0] not in " ".join(lines)
    assert await shop.letters("replay", "--all") == "Put back 2 dead letters.\n"
    again = await shop.listed(2)
    assert not {one.split()[0] for one in again} & {one.split()[0] for one in lines}


async def test_a_discarded_letter_is_gone_and_the_others_are_not(shop: Shop) -> None:
    for body in (b"first", b"second", b"third"):
        await shop.poison(body)
    lines = await shop.listed(3)
    assert await shop.letters("discard", lines[1].split()[0]) == "Deleted 1 dead letter.\n"
    assert await shop.listed(2) == [lines[0], lines[2]]
    assert "there are more" in await shop.letters("list", "--limit", "1")
    assert await shop.letters("discard", "--all") == "Deleted 2 dead letters.\n"
    assert await shop.letters("list") == "0 dead letters.\n"


async def test_an_id_that_names_none_or_several_is_told_in_a_sentence(shop: Shop) -> None:
    for _ in range(17):  # of sixteen first digits
        await shop.poison(b"poison")
    lines = await shop.listed(17)
    digits = [line[0] for line in lines]
    several = next(digit for digit in digits if digits.count(digit) > 1)
    for verb in ("show", "replay", "discard"):
        assert "no dead letter" in await shop.refused(verb, "nothing")
    assert "Several" in await shop.refused("discard", several)
    await shop.listed(17)
