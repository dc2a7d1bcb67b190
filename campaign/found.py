"""What database and broker hold when all is over: gathered here, compared elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aio_pika.abc import AbstractIncomingMessage
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from campaign.clients import Gateways
from campaign.deeds import digest, gist
from campaign.environment import Endpoints
from campaign.journal import Journal, Outcome
from services.shared import topology
from services.shared.amqp import close, connect

Collection = AsyncCollection[dict[str, Any]]

_ANSWER_TRIES: Final = 5
_READING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """A stored notification. `sent`: seconds since 1970 by the campaign's clock, not the services'.

    `tag`: what its content calls its attempt. `order`, `version`: of one that moves.
    """

    id: str
    user: str
    event: str
    type: str
    sent: float
    gist: str = ""
    tag: str = ""
    read: bool = False
    archived: bool = False
    order: str = ""
    version: int = 0


@dataclass(frozen=True)
class Found:
    """`activities`: by event key, and by `user kind product` for those that have none of ours.

    `moved`: the rows of orders that move. `counts`: by user, what was answered and what was
    counted. `unexplained`: dead letters that don't say why. `leftovers`: by place, what still
    waits when all services have ended.
    """

    rows: Sequence[Row]
    at: float = float("inf")
    """When it was gathered."""
    moved: Sequence[Row] = ()
    activities: Mapping[str, int] = field(default_factory=dict)
    products: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    innocents: Sequence[str] = ()
    unexplained: int = 0
    leftovers: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, tuple[int | None, int]] = field(default_factory=dict)


async def gather(endpoints: Endpoints, journal: Journal) -> Found:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        endpoints.mongodb_url, tz_aware=True
    )
    try:
        database = client[endpoints.database]
        rows = [_row(one, journal.offset) async for one in database["notifications"].find({})]
        activities: Counter[str] = Counter()
        async for one in database["activities"].find({}):
            activities[one["event"]] += 1
            if one["event"].startswith("urn:tidings "):
                activities[f"{one['user_id']} {one['kind']} {one['product_id']}"] += 1
        known = database["products"].find({}, {"_id": 1})
        products = frozenset([one["_id"] async for one in known])
        counts = await _counts(endpoints, journal, database["notifications"])
    finally:
        await client.close()
    dead = await _dead_letters(endpoints)
    poison = {attempt.key for attempt in journal.attempts if attempt.kind == "poison"}
    letters = {digest(letter.body): letter.body for letter in dead}
    return Found(
        rows=[row for row in rows if not row.version],
        moved=[row for row in rows if row.version],
        at=time.time(),
        activities=activities,
        products=products,
        dead=frozenset(letters),
        innocents=[
            body[:500].decode(errors="replace")
            for key, body in letters.items()
            if key not in poison
        ],
        unexplained=sum(not _says_why(letter) for letter in dead),
        counts=counts,
    )


def _row(one: Mapping[str, Any], offset: float) -> Row:
    content = one["content"]
    told = content if isinstance(content, dict) else {}
    return Row(
        id=str(one["_id"]),
        user=one["user_id"],
        event=one["event"],
        type=one["type"],
        sent=one["sent_at"].timestamp() - offset,
        gist=gist(content),
        tag=str(told.get("attempt", "")),
        read=one["read"],
        archived=one["archived"],
        order=str(told.get("orderId", "")),
        version=told.get("version", 0),
    )


async def _dead_letters(endpoints: Endpoints) -> list[AbstractIncomingMessage]:
    """All of them, looked at and left there."""
    connection = await connect(endpoints.direct_rabbitmq_url, endpoints.settings)
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    try:
        channel = await connection.channel()
        queue = await channel.declare_queue(topology.DEAD_LETTERS, passive=True)
        count = queue.declaration_result.message_count or 0
        await queue.consume(arrived.put)
        async with asyncio.timeout(_READING_SECONDS):
            return [await arrived.get() for _ in range(count)]
    finally:
        await close(connection)


def _says_why(letter: AbstractIncomingMessage) -> bool:
    """Whether its headers name a reason, ours or the broker's, and when it was first seen."""
    ours = letter.headers.get("x-tidings-reason") and letter.headers.get("x-tidings-first-seen")
    return bool(ours or letter.headers.get("x-death"))


async def _counts(
    endpoints: Endpoints, journal: Journal, rows: Collection
) -> Mapping[str, tuple[int | None, int]]:
    """Asked and counted, again when they differ: a schedule may fire in between."""
    gateways = Gateways(endpoints.gateways)
    counts: dict[str, tuple[int | None, int]] = {}
    try:
        for number, person in enumerate(journal.people):
            unread = {"user_id": person.id, "read": False, "archived": False}
            for attempt in range(_ANSWER_TRIES):
                answer = await gateways.ask(
                    number + attempt, person.token, "query { unreadCount }", {}
                )
                answered = answer.data["unreadCount"] if answer.outcome is Outcome.OK else None
                counts[person.id] = (answered, await rows.count_documents(unread))
                if answered == counts[person.id][1]:
                    break
                await asyncio.sleep(0.5)
    finally:
        await gateways.close()
    return counts
