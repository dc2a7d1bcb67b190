"""Dead letters in GraphQL, on both transports: looked at, put back, thrown away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.shared.vocabulary import Role
from services.users.models import User
from tests.entry import refused
from tests.kit import House, Somebody, forget_queues, open_house, quick_settings
from tests.servers import PrivateMongod, PrivateRabbitMQ, until

LETTERS = """query($first: Int! = 20) { deadLetters(first: $first) {
  id queue eventId type reason failedAt attempts body bodyBytes } }"""
REPLAY = "mutation($id: ID!) { replayDeadLetter(id: $id) }"
DISCARD = "mutation($id: ID!) { discardDeadLetter(id: $id) }"
PROMOTION = "mutation($input: PromotionInput!) { publishPromotion(input: $input) { eventId } }"
SHOWN_BYTES = 400
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
async def shop(request: pytest.FixtureRequest, mongod: PrivateMongod) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, dead_letter_shown_bytes=SHOWN_BYTES)
    if request.param == "between_processes":
        rabbitmq: PrivateRabbitMQ = request.getfixturevalue("rabbitmq")
        settings = settings.model_copy(update={"rabbitmq_url": rabbitmq.url})
        await forget_queues(rabbitmq.url, settings)
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
    done = {line["event"]: line["letter"] for line in lines if line.get("by") == admin.id}
    assert done == {
        "dead_letter_replayed": replayed["id"],
        "dead_letter_discarded": discarded["id"],
    }
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
