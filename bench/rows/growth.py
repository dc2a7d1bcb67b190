"""Row `growth`: the same inbox among few notifications and among very many."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from bench.filling import fill_notifications, user_id
from bench.http_load import ask, request
from bench.people import token
from bench.queries import PAGE
from bench.results import TIDINGS, Measure, Row, Target, alternated
from bench.world import Program, World
from services.notifications.models import Notification

MANY: Final = 10_000_000
FEW: Final = 10_000
EACH: Final = 200
AMONG_FEW: Final = f"among {FEW:,}"
_MARK_ALL: Final = "mutation { markAllNotificationsRead { marked unreadCount } }"
_ROUNDS: Final = 5
_PAGES: Final = 400
_CHANGE: Final = {"change": "", "changed_at": ""}

Database = AsyncDatabase[dict[str, Any]]


async def growth(world: World) -> Sequence[Row]:
    """One client, so that what grows is not hidden by a full processor; the same users in both,
    again and again, and once the others."""
    gateways: dict[str, Program] = {}
    databases: dict[str, Database] = {}
    async with AsyncExitStack() as stack:
        for name, count in ((TIDINGS, MANY), (AMONG_FEW, FEW)):
            database = await stack.enter_async_context(world.database(f"growth_{count}"))
            databases[name] = database
        async with world.filling():
            for name, count in ((TIDINGS, MANY), (AMONG_FEW, FEW)):
                await fill_notifications(databases[name], count // EACH, EACH, world.progress)
        for name, database in databases.items():
            service = world.service("gateway", database.name)
            gateways[name] = await stack.enter_async_context(service)
        asked = range(FEW // EACH)
        seldom = random.Random(7).sample(range(FEW // EACH, MANY // EACH), _PAGES)
        first_time = await _pages(gateways[TIDINGS], seldom, _PAGES)()
        pages = await alternated(
            {name: _pages(one, asked, _PAGES) for name, one in gateways.items()},
            _ROUNDS,
            world.progress,
        )
        marks = await alternated(
            {name: _marks(one, databases[name], asked) for name, one in gateways.items()},
            _ROUNDS,
            world.progress,
        )
    work = f"{EACH} in the inbox, {MANY:,} in all, one client"
    targets = [Target(AMONG_FEW, most=1.5)]
    return [
        Row(
            "growth, page",
            f"a page of 20 and the unread count: {work}",
            "ms, p50",
            pages,
            targets,
            {"whoever was not asked before": f"{first_time:.1f} ms"},
        ),
        Row("growth, mark all", f"all that is unread: {work}", "ms, p50", marks, targets),
    ]


def _pages(gateway: Program, users: Sequence[int], count: int) -> Measure:
    messages = [
        request("/graphql", {"query": PAGE, "variables": {"first": 20}}, token(number))
        for number in users
    ]

    async def measured() -> float:
        """The median of a page, milliseconds."""
        seconds = [await _seconds(gateway, messages[n % len(messages)]) for n in range(count)]
        return 1000 * statistics.median(seconds)

    return measured


def _marks(gateway: Program, database: Database, users: Sequence[int]) -> Measure:
    notifications = database[Notification.Settings.name]

    async def measured() -> float:
        """The median of marking a whole inbox, milliseconds. Then it is unread again."""
        seconds = []
        for number in users:
            unread = {"user_id": user_id(number), "read": False}
            ids = [row["_id"] async for row in notifications.find(unread, {"_id": 1})]
            message = request("/graphql", {"query": _MARK_ALL}, token(number))
            seconds.append(await _seconds(gateway, message))
            again = {"$set": {"read": False, "read_at": None}, "$unset": _CHANGE}
            changed = await notifications.update_many({"_id": {"$in": ids}, "read": True}, again)
            assert changed.modified_count, "nothing was marked"
        return 1000 * statistics.median(seconds)

    return measured


async def _seconds(gateway: Program, message: bytes) -> float:
    began = time.perf_counter()
    await ask(gateway.port, message)
    return time.perf_counter() - began
