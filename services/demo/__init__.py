"""A demo shop in an empty database: a catalogue, customers with a past, and schedules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from importlib import resources
from typing import Any, Final

from services.host import Runtime
from services.notifications.catalogue import keep_products
from services.scheduler import mock
from services.scheduler.models import Schedule
from services.scheduler.service import Plan
from services.shared.errors import CannotStart, Conflict, NotFound
from services.shared.events import (
    Event,
    OrderStatusChanged,
    ProductChanged,
    RecommendationsRequested,
    UserActivity,
)
from services.shared.log import get_logger
from services.shared.vocabulary import ActivityKind, Role
from services.shared.worker import when_back
from services.users.models import User
from services.users.service import Registration

log = get_logger()


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody of the demo. The password is no secret: demo data is for trying out."""

    key: str
    name: str
    email: str
    password: str
    role: Role


@dataclass(frozen=True, slots=True)
class Product:
    """What the demo sells. `price`: euros."""

    product_id: str
    name: str
    category: str
    price: int
    about: str


# The admin comes last: who is there tells that all the rest is.
ACCOUNTS: Final = (
    Account("alice", "Alice Baker", "alice@shop.example", "alice likes running", Role.USER),
    Account("ben", "Ben Carter", "ben@shop.example", "ben is new here", Role.USER),
    Account("admin", "Ada Admin", "admin@shop.example", "ada runs this shop", Role.ADMIN),
)

_EVERY_MINUTE: Final = "* * * * *"
_EVERY_HOUR: Final = "0 * * * *"  # oftener, the catalogue is soon used up: nothing comes twice
SCHEDULES: Final = (
    Plan("Demo: order updates", _EVERY_MINUTE, "UTC", {"type": mock.ORDER}),
    Plan("Demo: promotions", _EVERY_MINUTE, "UTC", {"type": mock.PROMOTION}),
    Plan(
        "Demo: recommendations",
        _EVERY_HOUR,
        "UTC",
        {"type": RecommendationsRequested.type, "data": {}},
    ),
)
_SECONDS_BETWEEN_FIRST_RUNS: Final = 5


async def fill(runtime: Runtime) -> None:
    """Fill a database that holds nobody but demo accounts. What is there already stays."""
    emails = [account.email for account in ACCOUNTS]
    if await User.by_email_key(emails[-1]) is not None:
        return
    if await User.find_one({"email_key": {"$nin": emails}}) is not None:
        log.info("demo_data_skipped", reason="the database has users of its own")
        return
    await _keep_catalogue(runtime)
    customers, admin = ACCOUNTS[:-1], ACCOUNTS[-1]
    ids = await asyncio.gather(*(_account(runtime, account) for account in customers))
    keys = [account.key for account in customers]
    await _keep_history(runtime, dict(zip(keys, ids, strict=True)))
    for plan in SCHEDULES:
        with suppress(Conflict):
            await runtime.schedules.create(plan)
    await _account(runtime, admin)


async def check_gone() -> None:
    """Raises CannotStart while anybody could come in with the demo's passwords."""
    emails = [account.email for account in ACCOUNTS]
    left = await User.find({"email_key": {"$in": emails}, "disabled_at": None}).to_list()
    if left:
        names = ", ".join(user.email for user in left)
        raise CannotStart(
            f"PROFILE is production, and everybody may read the passwords of the demo: {names}. "
            "Disable each with `python -m services disable-user --email …`, or name another "
            "MONGODB_DATABASE."
        )


async def people() -> Sequence[Account]:
    """The demo's accounts, where the database holds the demo."""
    there = await User.by_email_key(ACCOUNTS[-1].email) is not None
    return ACCOUNTS if there else ()


@cache
def catalogue() -> Sequence[Product]:
    """What the demo sells, by category."""
    return [
        Product(row["productId"], row["name"], row["category"], row["price"], row["about"])
        for row in _read("catalogue.json")
    ]


async def run_schedules_once(runtime: Runtime) -> None:
    """Run the demo's schedules soon after the start: nobody likes to wait for the full minute.

    An order update is one customer's turn; here each has one, of an order that is new.
    """
    for plan in SCHEDULES:
        await asyncio.sleep(_SECONDS_BETWEEN_FIRST_RUNS)
        await when_back(partial(_run_once, runtime, plan), plan.name)


async def _run_once(runtime: Runtime, plan: Plan) -> None:
    schedule = next((one for one in await Schedule.all_by_name() if one.name == plan.name), None)
    if schedule is None or schedule.paused:
        return
    if plan.event["type"] == mock.ORDER:
        await _place_orders(runtime)
    else:
        with suppress(NotFound):
            await runtime.schedules.run(str(schedule.id))


async def _place_orders(runtime: Runtime) -> None:
    number = int(runtime.clock.now().timestamp()) % 1_000_000
    for position, account in enumerate(ACCOUNTS[:-1]):
        if user := await User.by_email_key(account.email):
            order = OrderStatusChanged(
                order_id=f"{number}{position}", user_id=str(user.id), status="placed", version=1
            )
            await runtime.intake.accept(order, source="demo", event_id=None)


async def _account(runtime: Runtime, account: Account) -> str:
    known = await User.by_email_key(account.email)
    user = known or await runtime.users.create(
        Registration(account.name, account.email, account.password, timezone="Europe/Vienna"),
        account.role,
    )
    return str(user.id)


async def _keep_catalogue(runtime: Runtime) -> None:
    now = runtime.clock.now()
    await keep_products(
        [
            (
                ProductChanged(product_id=one.product_id, name=one.name, category=one.category),
                now,
            )
            for one in catalogue()
        ]
    )


async def _keep_history(runtime: Runtime, ids: Mapping[str, str]) -> None:
    """Shoppers in the background have no account: they only bought things."""
    now = runtime.clock.now()
    await runtime.users.keep_activities(
        [
            Event.of(
                UserActivity(
                    user_id=ids.get(row["user"], f"demo-{row['user']}"),
                    kind=ActivityKind(row["kind"]),
                    product_id=row["productId"],
                ),
                time=now - timedelta(days=row["daysAgo"]),
                id=f"demo/{number}",
            )
            for number, row in enumerate(_read("history.json"))
        ]
    )


def _read(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(resources.files(__name__).joinpath(name).read_text())
    return rows
