"""The composition root: what a process is made of, chosen by its settings.

Two settings decide: without MONGODB_URL a private mongod, without RABBITMQ_URL the embedded bus.
Everything else is the same code, in one process or in many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import aio_pika

from services.notifications import models as notification_models
from services.notifications.handlers import NotificationHandlers
from services.notifications.intake import Intake
from services.notifications.service import NotificationService
from services.scheduler import models as scheduler_models
from services.scheduler.service import SchedulerService
from services.shared import embedded, events, outbox
from services.shared.amqp import FAULTS, close
from services.shared.bus import Bus
from services.shared.clock import Clock, SystemClock
from services.shared.embedded import EmbeddedBus
from services.shared.errors import CannotStart
from services.shared.mongod import private_mongod
from services.shared.outbox import Outbox
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.store import Store, open_store
from services.shared.worker import work
from services.users import handlers as user_handlers
from services.users import models as user_models
from services.users.service import UserService
from services.users.tokens import AccessTokens, signing_secret

USERS: Final = "users"
NOTIFICATIONS: Final = "notifications"
SCHEDULER: Final = "scheduler"
WORKERS: Final = (USERS, NOTIFICATIONS, SCHEDULER)

MODELS: Final = (
    *user_models.MODELS,
    *notification_models.MODELS,
    *scheduler_models.MODELS,
    *outbox.MODELS,
    *embedded.MODELS,
)


@dataclass(frozen=True)
class Runtime:
    """An open process: its services, and what they stand on."""

    settings: Settings
    clock: Clock
    store: Store
    bus: Bus
    outbox: Outbox
    users: UserService
    notifications: NotificationService
    intake: Intake
    schedules: SchedulerService
    fault: asyncio.Future[str]

    async def ping(self) -> None:
        """Raises PyMongoError or Unavailable when the process can't do its work."""
        await self.store.ping()
        await self.bus.ping()


@asynccontextmanager
async def open_runtime(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Runtime]:
    """Open what the settings ask for, and close it at the end. Raises CannotStart."""
    check(settings)
    clock = clock or SystemClock()
    fault: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:
        url = settings.mongodb_url or await stack.enter_async_context(
            private_mongod(settings.data_dir, lambda sentence: _report(fault, sentence))
        )
        tokens = AccessTokens(
            signing_secret(settings), timedelta(seconds=settings.access_token_seconds), clock
        )
        store = await stack.enter_async_context(
            open_store(
                url,
                settings.mongodb_database,
                MODELS,
                timeout=settings.mongodb_timeout_seconds,
                patience=settings.startup_wait_seconds,
            )
        )
        bus: Bus
        if settings.rabbitmq_url:
            bus = rabbit = RabbitBus(settings.rabbitmq_url, clock, settings)
            stack.push_async_callback(rabbit.close)
        else:
            bus = EmbeddedBus(store, clock, settings)
        relay = Outbox(bus, clock, settings)
        yield Runtime(
            settings=settings,
            clock=clock,
            store=store,
            bus=bus,
            outbox=relay,
            users=UserService(store, relay, tokens, clock, settings),
            notifications=NotificationService(store, relay, bus, clock, settings),
            intake=Intake(store, relay, clock, settings),
            schedules=SchedulerService(store, relay, clock, settings),
            fault=fault,
        )


async def run(runtime: Runtime, workers: Sequence[str]) -> None:
    """Relay the outbox and run these workers until cancelled. One that fails ends them all."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_end_on_fault(runtime.fault))
        group.create_task(runtime.outbox.relay())
        if USERS in workers:
            table = user_handlers.handlers(runtime.users)
            group.create_task(
                work(runtime.bus, events.USERS, table, runtime.clock, runtime.settings)
            )
        if NOTIFICATIONS in workers:
            table = NotificationHandlers(
                runtime.notifications, runtime.clock, runtime.settings
            ).table()
            group.create_task(
                work(runtime.bus, events.NOTIFICATIONS, table, runtime.clock, runtime.settings)
            )
        if SCHEDULER in workers:
            group.create_task(runtime.schedules.keep_ticking())


async def reach(settings: Settings) -> None:
    """Ask the database and the broker for an answer, and nothing else. Raises CannotStart."""
    seconds = settings.rabbitmq_timeout_seconds
    try:
        async with open_store(
            settings.mongodb_url,
            settings.mongodb_database,
            (),
            timeout=settings.mongodb_timeout_seconds,
            patience=0,
        ):
            connection = await aio_pika.connect(settings.rabbitmq_url, timeout=seconds)
            await close(connection)
    except FAULTS as error:
        raise CannotStart(f"RabbitMQ does not answer: {error!r}.") from error


def check(settings: Settings) -> None:
    """Raises CannotStart for settings that contradict one another."""
    if settings.rabbitmq_url and not _is_amqp(settings.rabbitmq_url):
        raise CannotStart(
            "RABBITMQ_URL is not a RabbitMQ address: one looks like "
            "amqp://user:password@host:5672/ or amqps://host/."
        )
    if settings.rabbitmq_url and not settings.mongodb_url:
        raise CannotStart(
            "RABBITMQ_URL is set and MONGODB_URL is not: processes that share a broker must share "
            "a database. Set both, or neither for the embedded defaults."
        )
    if settings.jwt_secret or settings.mongodb_url:
        signing_secret(settings)
    if settings.write_window_seconds <= settings.mongodb_timeout_seconds:
        raise CannotStart(
            "WRITE_WINDOW_SECONDS must be more than MONGODB_TIMEOUT_SECONDS: it bounds a write."
        )


def check_single(settings: Settings, name: str) -> None:
    """Raises CannotStart when the service can't run as a process of its own."""
    if not settings.rabbitmq_url:
        raise CannotStart(
            f"`{name}` as a process of its own needs RABBITMQ_URL and MONGODB_URL, to share events "
            "and data with the others. On one machine use `serve`, which runs everything."
        )


def _is_amqp(url: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    return False


async def _end_on_fault(fault: asyncio.Future[str]) -> None:
    raise CannotStart(await fault)


def _report(fault: asyncio.Future[str], sentence: str) -> None:
    if not fault.done():
        fault.set_result(sentence)
