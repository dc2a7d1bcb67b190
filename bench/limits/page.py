"""The least that a page and a read mark can cost in Python: no GraphQL, no models, no limits.

A bare Starlette endpoint on the same server, driver and token library as the gateway's, with the
same commands to MongoDB: what the rows `page` and `mutation` are measured against.

Environment: PORT, MONGODB_URL, MONGODB_DATABASE, JWT_SECRET. Prints `ready`.

    POST /graphql   {"variables": {"first": 20}}    answers as the page query does
    POST /mutation  {"variables": {"id": "…"}}      answers as markNotificationRead does
"""

from __future__ import annotations

import asyncio
import base64
import os
from datetime import UTC, datetime
from functools import lru_cache
from socket import socket
from typing import Any, Final
from uuid import uuid4

import jwt
import msgspec
import uvicorn
from bson import ObjectId, Timestamp
from pymongo import AsyncMongoClient, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.limits.ready import say_ready
from services.shared import loop
from services.shared.condition_wait import mend_waiting
from services.shared.fair_pool import FairPool

SECRET: Final = os.environ["JWT_SECRET"]
TYPES: Final = ["order_update", "promotion", "recommendation"]
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SHOWN: Final = dict.fromkeys(
    (
        "user_id",
        "type",
        "title",
        "body",
        "content",
        "sent_at",
        "read",
        "read_at",
        "seen",
        "archived",
        "snoozed_until",
        "expires_at",
        "revision",
    ),
    1,
)
TIMEOUT_MS: Final = 1200  # of an operation of the database, as the gateway has it

client: AsyncMongoClient[dict[str, Any]]
database: Any


async def page(request: Request) -> Response:
    asked = msgspec.json.decode(await request.body())
    user_id = await identify(request)
    rows, unread = await asyncio.gather(
        newest(user_id, asked["variables"]["first"] + 1), unread_count(user_id)
    )
    more = len(rows) > asked["variables"]["first"]
    edges = [{"cursor": cursor(row), "node": shown(row)} for row in rows[: len(rows) - more]]
    info = {
        "hasNextPage": more,
        "hasPreviousPage": False,
        "startCursor": edges[0]["cursor"] if edges else None,
        "endCursor": edges[-1]["cursor"] if edges else None,
    }
    return answer({"notifications": {"edges": edges, "pageInfo": info}, "unreadCount": unread})


async def mutation(request: Request) -> Response:
    asked = msgspec.json.decode(await request.body())
    user_id = await identify(request)
    id = ObjectId(asked["variables"]["id"])

    async def mark(session: AsyncClientSession) -> dict[str, Any] | None:
        now = datetime.now(UTC)
        row: dict[str, Any] | None = await database.notifications.find_one_and_update(
            {"_id": id, "user_id": user_id, "read": False, "expires_at": {"$not": {"$lte": now}}},
            {
                "$set": {
                    "read": True,
                    "read_at": now,
                    "seen": True,
                    "change": "read",
                    "changed_at": now,
                }
            },
            projection=SHOWN,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if row is None:
            return None
        event = {
            "specversion": "1.0",
            "id": uuid4().hex,
            "source": "urn:tidings",
            "type": "notification.changed",
            "subject": user_id,
            "time": now,
            "datacontenttype": "application/json",
            "data": {"userId": user_id, "kind": "read", "notificationIds": [str(id)]},
        }
        outbox = {
            "event": msgspec.json.encode(event),
            "subject": user_id,
            "written": Timestamp(0, 0),
            "claimed_until": EPOCH,
        }
        await database.outbox.insert_one(outbox, session=session)
        return row

    async with client.start_session() as session:
        row = await session.with_transaction(mark)
    if row is None:  # it was read before
        row = await database.notifications.find_one({"_id": id, "user_id": user_id}, SHOWN)
    assert row is not None
    return answer({"markNotificationRead": shown(row)})


async def identify(request: Request) -> str:
    """The user's id. Raises for a token that does not count, and for a session that has ended."""
    claims = read_token(request.headers["authorization"].removeprefix("Bearer "))
    is_open = {"_id": ObjectId(claims["sid"]), "expires_at": {"$gt": datetime.now(UTC)}}
    if await database.sessions.find_one(is_open, {"_id": 1}) is None:
        raise PermissionError
    return str(claims["sub"])


@lru_cache(10_000)
def read_token(token: str) -> dict[str, Any]:
    """Checked once, as the gateway does it; none ends while a bench runs."""
    claims: dict[str, Any] = jwt.decode(
        token, SECRET, algorithms=["HS256"], audience="tidings", issuer="tidings"
    )
    return claims


async def newest(user_id: str, limit: int) -> list[dict[str, Any]]:
    found = database.notifications.find(which(user_id, [False, True]), SHOWN)
    rows: list[dict[str, Any]] = await (
        found.sort([("sent_at", -1), ("_id", -1)]).limit(limit).to_list()
    )
    return rows


async def unread_count(user_id: str) -> int:
    counted: int = await database.notifications.count_documents(which(user_id, [False]))
    return counted


def which(user_id: str, read: list[bool]) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "archived": {"$in": [False]},
        "read": {"$in": read},
        "type": {"$in": TYPES},
        "expires_at": {"$not": {"$lte": datetime.now(UTC)}},
        "snoozed_until": {"$not": {"$gt": EPOCH}},
    }


def cursor(row: dict[str, Any]) -> str:
    """As the gateway's are where all is settled: the place, and the next millisecond."""
    at = round(row["sent_at"].timestamp() * 1000)
    packed = msgspec.msgpack.encode([at, row["_id"].binary, at + 1, (), True])
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row["_id"]),
        "userId": row["user_id"],
        "type": row["type"].upper(),
        "title": row["title"],
        "body": row["body"],
        "content": row["content"],
        "sentAt": row["sent_at"].isoformat(),
        "read": row["read"],
        "readAt": stamp(row.get("read_at")),
        "seen": row["seen"],
        "archived": row["archived"],
        "snoozedUntil": stamp(row.get("snoozed_until")),
        "expiresAt": stamp(row.get("expires_at")),
        "revision": row.get("revision", 1),
    }


def stamp(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def answer(data: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode({"data": data}), media_type="application/json")


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        say_ready()


async def serve() -> None:
    global client, database
    mend_waiting()
    client = AsyncMongoClient(
        os.environ["MONGODB_URL"],
        tz_aware=True,
        maxPoolSize=8,
        timeoutMS=TIMEOUT_MS,
        _pool_class=FairPool,  # else some of 64 clients wait for seconds
    )
    database = client[os.environ["MONGODB_DATABASE"]]
    app = Starlette(
        routes=[
            Route("/graphql", page, methods=["POST"]),
            Route("/mutation", mutation, methods=["POST"]),
        ]
    )
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    await Server(config).serve()


if __name__ == "__main__":
    loop.run(serve())
