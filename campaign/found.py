"""What database and broker hold when all is over: gathered here, compared elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from aio_pika.abc import AbstractIncomingMessage
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from campaign.clients import Gateways
from campaign.deeds import digest, gist, version_in
from campaign.environment import Endpoints
from campaign.journal import Journal, Outcome
from services.shared import topology
from services.shared.amqp import close, connect

Collection = AsyncCollection[dict[str, Any]]
Database = AsyncDatabase[dict[str, Any]]
Stored = Mapping[str, Any]
T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class Broadcast:
    """`key`: its dedupKey. `total` and what follows: its counters."""

    id: str
    key: str
    state: str
    per_second: int | None
    total: int
    sent: int
    held: int = 0
    suppressed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Later:
    """Something that was scheduled. `key`: its dedupKey."""

    id: str
    key: str
    user: str
    state: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """`at`: when it was decided last, `due`: when a held one is decided anew; by the services'
    clock. `digest`: the delivery in which it went out. `holds`: of a digest, how many."""

    id: str
    user: str
    event: str
    channel: str
    type: str
    state: str
    at: datetime
    due: datetime | None = None
    digest: str = ""
    holds: int = 0


Spent = tuple[str, str, datetime]
"""Of a cap: for which event, on which channel, and when."""


@dataclass(frozen=True)
class Found:
    """`activities`: by event key, and by `user kind product` for those that have none of ours.

    `moved`: the rows of orders that move. `counts`: by user, what was answered and what was
    counted. `unexplained`: dead letters that don't say why. `leftovers`: by place, what still
    waits when all services have ended. `ledgers`: by user, what of the caps is spent.
    """

    rows: Sequence[Row]
    at: float
    """When it was gathered."""
    moved: Sequence[Row] = ()
    broadcasts: Sequence[Broadcast] = ()
    later: Sequence[Later] = ()
    deliveries: Sequence[Delivery] = ()
    ledgers: Mapping[str, Sequence[Spent]] = field(default_factory=dict)
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
        async with client.start_session(snapshot=True) as session:
            found = await _stored(database, session, journal.offset)
        counts = await _counts(endpoints, journal, database["notifications"])
    finally:
        await client.close()
    dead = await _dead_letters(endpoints)
    poison = {attempt.key for attempt in journal.attempts if attempt.kind == "poison"}
    letters = {digest(letter.body): letter.body for letter in dead}
    return replace(
        found,
        dead=frozenset(letters),
        innocents=[
            body[:500].decode(errors="replace")
            for key, body in letters.items()
            if key not in poison
        ],
        unexplained=sum(not _says_why(letter) for letter in dead),
        counts=counts,
    )


async def _stored(database: Database, session: AsyncClientSession, offset: float) -> Found:
    """All of it as it was at one instant."""
    at = time.time()

    async def every(name: str, make: Callable[[Stored], T]) -> list[T]:
        return [make(one) async for one in database[name].find({}, session=session)]

    rows = await every("notifications", lambda one: _row(one, offset))
    activities: Counter[str] = Counter()
    async for one in database["activities"].find({}, session=session):
        activities[one["event"]] += 1
        if one["event"].startswith("urn:tidings "):
            activities[f"{one['user_id']} {one['kind']} {one['product_id']}"] += 1
    return Found(
        rows=[row for row in rows if not row.version],
        moved=[row for row in rows if row.version],
        at=at,
        broadcasts=await every("broadcasts", _broadcast),
        later=await every("scheduled_notifications", _later),
        deliveries=await every("deliveries", _delivery),
        ledgers=dict(await every("cap_ledgers", _ledger)),
        activities=activities,
        products=frozenset(await every("products", lambda one: str(one["_id"]))),
    )


def _row(one: Stored, offset: float) -> Row:
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
        version=version_in(content),
    )


def _broadcast(one: Stored) -> Broadcast:
    counters = ("total", "sent", "held", "suppressed", "failed")
    return Broadcast(
        id=str(one["_id"]),
        key=one.get("dedup_key", ""),
        state=one["state"],
        per_second=one.get("per_second"),
        **{name: one[name] for name in counters},
    )


def _later(one: Stored) -> Later:
    return Later(str(one["_id"]), one.get("dedup_key", ""), one["user_id"], one["state"])


def _delivery(one: Stored) -> Delivery:
    content = one["content"]
    titles = content.get("titles", ()) if isinstance(content, dict) else ()
    return Delivery(
        id=str(one["_id"]),
        user=one["user_id"],
        event=one["event"],
        channel=one["channel"],
        type=one["type"],
        state=one["state"],
        at=one["decision"]["at"],
        due=one["due_at"],
        digest=str(one.get("digest", "")),
        holds=len(titles),
    )


def _ledger(one: Stored) -> tuple[str, Sequence[Spent]]:
    return one["_id"], [(spent["event"], spent["channel"], spent["at"]) for spent in one["spent"]]


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
