"""Dead letters in GraphQL, on both transports: looked at, put back, thrown away."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import HeadersType
from structlog.testing import capture_logs

from services.shared.bus import DeadLetter
from services.shared.clock import SystemClock
from services.shared.embedded import BuriedMessage
from services.shared.events import NOTIFICATIONS
from services.shared.rabbit import RabbitBus
from services.shared.rabbit_letters import DeadLetterQueue
from services.shared.store import Row, parts
from services.shared.topology import DEAD_LETTERS
from services.shared.vocabulary import Role
from services.users.models import User
from tests.entry import refusal, refused
from tests.kit import House, Somebody, forget_queues, open_house, quick_settings
from tests.servers import PrivateMongod, PrivateRabbitMQ, until

LETTERS = """query($first: Int! = 20) { deadLetters(first: $first) {
  id queue eventId type reason failedAt attempts body bodyBytes } }"""
REPLAY = "mutation($id: ID!) { replayDeadLetter(id: $id) }"
DISCARD = "mutation($id: ID!) { discardDeadLetter(id: $id) }"
PROMOTION = "mutation($input: PromotionInput!) { publishPromotion(input: $input) { eventId } }"
SHOWN_BYTES = 400
MOST = 5000
NO_ID = "0123456789abcdef01234567"


@asynccontextmanager
async def broken(house: House, somebody: Somebody) -> AsyncIterator[None]:
    """Nobody can be told anything in this user's language meanwhile."""
    users, they = User.get_pymongo_collection(), {"email": somebody.email}
    await users.update_one(they, {"$set": {"locale": 5}})
    try:
        yield
    finally:
        await users.update_one(they, {"$set": {"locale": "en"}})


@pytest.fixture(scope="module", params=["embedded", "between_processes"])
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    if request.param == "embedded":
        return ""
    rabbitmq: PrivateRabbitMQ = request.getfixturevalue("rabbitmq")
    return rabbitmq.url


@pytest.fixture(scope="module")
async def shop(mongod: PrivateMongod, rabbitmq_url: str) -> AsyncIterator[House]:
    settings = quick_settings(
        mongod.url,
        rabbitmq_url=rabbitmq_url,
        dead_letter_shown_bytes=SHOWN_BYTES,
        dead_letters_gone_through=MOST,
    )
    if rabbitmq_url:
        await forget_queues(rabbitmq_url, settings)
    async with open_house(settings) as open_:
        yield open_


async def dead(
    shop: House, admin: Somebody, user: Somebody, ids: Sequence[str], body: str = "b"
) -> list[Any]:
    """The dead letters of promotions with these ids, when they lie there."""
    await until(lambda: promoted(user))  # the welcome
    async with broken(shop, user):
        for id in ids:
            input = {"title": "t", "body": body, "userIds": [user.id], "eventId": id}
            await admin.api.ask(PROMOTION, input=input)

        async def letters() -> list[Any]:
            shown: list[Any] = (await admin.api.ask(LETTERS))["deadLetters"]
            return shown if len(shown) == len(ids) else []

        return await until(letters)


async def promoted(user: Somebody) -> int:
    """How many promotions they have."""
    count: int = (await user.api.ask("{ unreadCount(types: [PROMOTION]) }"))["unreadCount"]
    return count


async def bury(shop: House, bodies: Sequence[bytes]) -> list[str]:
    """Dead letters of such bodies; their ids, in order."""
    ids, now = [f"{number:032x}" for number in range(len(bodies))], shop.runtime.clock.now()
    if not shop.runtime.settings.rabbitmq_url:
        row = {"queue": NOTIFICATIONS, "reason": "r", "failures": 1}
        row |= {"first_seen": now, "died_at": now}
        rows: list[Row] = [
            {"letter": id, "body": body} | row for id, body in zip(ids, bodies, strict=True)
        ]
        for part in parts(rows, lambda row: len(row["body"])):
            await BuriedMessage.get_pymongo_collection().insert_many(part)
        return ids
    headers: HeadersType = {"x-tidings-queue": NOTIFICATIONS, "x-tidings-died-at": now.isoformat()}
    bus = shop.runtime.bus
    assert isinstance(bus, RabbitBus)
    messages = [
        ("", DEAD_LETTERS, aio_pika.Message(body, headers={**headers, "x-tidings-id": id}))
        for id, body in zip(ids, bodies, strict=True)
    ]
    for some in parts(messages, lambda message: 5000 + len(message[2].body)):
        await bus.publisher.send(some)

    async def are_there() -> bool:
        return (await shop.runtime.bus.depths()).dead_letters == len(ids)

    await until(are_there)
    return ids


@asynccontextmanager
async def buried(shop: House, bodies: Sequence[bytes]) -> AsyncIterator[list[str]]:
    """As `bury`; what is left of them goes at the end."""
    try:
        yield await bury(shop, bodies)
    finally:
        await shop.runtime.bus.discard()


async def test_of_thousands_one_is_found_in_time_and_the_others_keep_their_order(
    shop: House,
) -> None:
    admin = await shop.somebody(Role.ADMIN)
    async with buried(shop, [b"{}"] * MOST) as ids:
        began = time.monotonic()
        shown = (await admin.api.ask(LETTERS))["deadLetters"]
        assert (await admin.api.ask(DISCARD, id=ids[3]))["discardDeadLetter"]
        assert (await admin.api.ask(DISCARD, id=ids[4000]))["discardDeadLetter"]
        assert time.monotonic() - began < 5
        assert [one["id"] for one in shown] == ids[:20]
        left = [letter.id for letter in await shop.runtime.bus.dead_letters(len(ids))]
        assert left == [id for id in ids if id not in (ids[3], ids[4000])]
        assert await shop.runtime.bus.discard() == len(left)


async def test_long_bodies_are_not_held_in_whole(shop: House) -> None:
    admin, count, long = await shop.somebody(Role.ADMIN), 100, 500_000
    async with buried(shop, [b"x" * long] * count):
        tracemalloc.start()
        try:
            shown = (await admin.api.ask(LETTERS, first=count))["deadLetters"]
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [one["bodyBytes"] for one in shown] == [long] * count
    assert most < 0.4 * count * long


async def test_all_are_gone_when_it_says_so_from_a_queue_that_is_slow(
    rabbitmq: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ keeps back what a channel acks beyond 32 that its queue has not read, and forgets
    it when the channel closes."""
    monkeypatch.setattr("services.shared.rabbit_letters._REPLAYED_AT_ONCE", 500)
    settings = quick_settings("", rabbitmq_url=rabbitmq.url, rabbitmq_timeout_seconds=10)
    bus = RabbitBus(rabbitmq.url, SystemClock(), settings)
    await bus.discard()
    headers: HeadersType = {"x-tidings-queue": NOTIFICATIONS}
    messages = [("", DEAD_LETTERS, aio_pika.Message(b"{}", headers=headers))] * 100
    await bus.publisher.send(messages)
    async with AsyncExitStack() as stuck, asyncio.TaskGroup() as tasks:
        seen = 0

        async def get_stuck(_: DeadLetter) -> None:
            nonlocal seen
            seen += 1
            if seen == 1:
                await stuck.enter_async_context(rabbitmq.stuck(DEAD_LETTERS))
                tasks.create_task(get_on())

        async def get_on() -> None:
            await asyncio.sleep(0.3)
            await stuck.aclose()

        assert await DeadLetterQueue(bus.connect, get_stuck, settings).replay(None) == seen
    assert await bus.discard() == 0
    await bus.close()


async def test_more_than_graphql_goes_through_are_left_to_the_command_line(shop: House) -> None:
    admin = await shop.somebody(Role.ADMIN)
    async with buried(shop, [b"{}"] * (MOST + 1)) as ids:
        if shop.runtime.settings.rabbitmq_url:
            for document in (LETTERS, REPLAY, DISCARD):
                error = await refusal(
                    admin.api, document, **({} if document == LETTERS else {"id": ids[0]})
                )
                assert error["extensions"]["code"] == "QUERY_TOO_COMPLEX"
                assert "python -m services dead-letters" in error["message"]
        assert await shop.runtime.bus.discard(ids[0]) == 1  # as the command does
        shown = (await admin.api.ask(LETTERS))["deadLetters"]
        assert [one["id"] for one in shown] == ids[1:21]


async def test_dead_letters_are_looked_at_replayed_and_discarded(shop: House) -> None:
    admin, ann = await shop.somebody(Role.ADMIN), await shop.somebody()
    letters = await dead(shop, admin, ann, ["one", "two", "three"])
    assert sorted(one["eventId"] for one in letters) == ["one", "three", "two"]
    assert (await admin.api.ask(LETTERS, first=2))["deadLetters"] == letters[:2]
    assert (await admin.api.ask(LETTERS, first=0))["deadLetters"] == []
    for one in letters:
        assert (one["queue"], one["type"]) == ("notifications", "promotion.announced")
        assert (one["attempts"], one["bodyBytes"]) == (3, len(one["body"]))
        assert one["reason"].startswith("failed 3 times")
        assert ann.id in one["body"]
    replayed, discarded, left = letters
    with capture_logs() as lines:
        assert (await admin.api.ask(REPLAY, id=replayed["id"]))["replayDeadLetter"]
        assert (await admin.api.ask(DISCARD, id=discarded["id"]))["discardDeadLetter"]
    done = [(line["event"], line["letter"]) for line in lines if line.get("by") == admin.id]
    assert done == [
        ("dead_letter_replaying", replayed["id"]),
        ("dead_letter_replayed", replayed["id"]),
        ("dead_letter_discarding", discarded["id"]),
        ("dead_letter_discarded", discarded["id"]),
    ]
    assert (await admin.api.ask(LETTERS))["deadLetters"] == [left]

    async def is_told() -> bool:
        return await promoted(ann) == 2

    await until(is_told)
    for id in (replayed["id"], discarded["id"], left["id"][:8], NO_ID, ""):
        for document in (REPLAY, DISCARD):
            with refused("NOT_FOUND"):
                await admin.api.ask(document, id=id)
    assert (await admin.api.ask(LETTERS))["deadLetters"] == [left]
    await admin.api.ask(DISCARD, id=left["id"])


async def test_a_long_body_is_shown_in_part(shop: House) -> None:
    admin, ann = await shop.somebody(Role.ADMIN), await shop.somebody()
    [letter] = await dead(shop, admin, ann, ["long"], "€" * 1000)
    shown, mark = letter["body"][:-1], letter["body"][-1]
    assert mark == "…"
    assert SHOWN_BYTES - 3 < len(shown.encode()) <= SHOWN_BYTES
    assert shown.endswith("€")
    assert letter["bodyBytes"] > 3000
    assert letter["eventId"] == "long"
    await admin.api.ask(DISCARD, id=letter["id"])
