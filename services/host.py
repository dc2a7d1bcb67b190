"""The composition root: what a process is made of, chosen by its settings.

Two settings decide: without MONGODB_URL a private mongod, without RABBITMQ_URL the embedded bus.
Everything else is the same code, in one process or in many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from services.checks import check
from services.notifications import (
    broadcasts,
    catalogue,
    deliveries,
    ledgers,
    overrides,
    revisions,
    scheduled,
    traces,
)
from services.notifications import models as notification_models
from services.notifications.announcing import Announcing
from services.notifications.broadcasting import Broadcasting
from services.notifications.delivering import Delivering
from services.notifications.fan_out import FanOut
from services.notifications.firing import Firing
from services.notifications.handlers import NotificationHandlers
from services.notifications.intake import Intake
from services.notifications.recipients import Recipients
from services.notifications.releasing import Releasing
from services.notifications.scheduling import Scheduling
from services.notifications.service import NotificationService
from services.notifications.states import States
from services.notifications.wording import Texts
from services.scheduler import models as scheduler_models
from services.scheduler.service import SchedulerService
from services.shared import embedded, events, inbox, outbox, pulse, throttle
from services.shared.bus import Bus
from services.shared.clock import Clock, DatabaseClock
from services.shared.embedded import EmbeddedBus
from services.shared.errors import CannotStart, Unavailable
from services.shared.inbox import Inbox
from services.shared.log import get_logger
from services.shared.mongod import private_mongod
from services.shared.outbox import Outbox
from services.shared.pulse import Counts, Pulse
from services.shared.rabbit import RabbitBus
from services.shared.settings import Settings
from services.shared.store import Store, is_away, open_store
from services.shared.tasks import end_if_cancelled, vital
from services.shared.throttle import Throttle
from services.shared.worker import when_back, work
from services.users import credentials
from services.users import handlers as user_handlers
from services.users import models as user_models
from services.users.access import Access
from services.users.api_keys import ApiKeys
from services.users.choosing import Choosing
from services.users.links import UnsubscribeLinks
from services.users.open_sessions import OpenSessions
from services.users.passwords import Passwords
from services.users.service import UserService
from services.users.sessions import Sessions
from services.users.tokens import AccessTokens, SigningKeys, signing_keys

SERVE: Final = "serve"
GATEWAY: Final = "gateway"
USERS: Final = "users"
NOTIFICATIONS: Final = "notifications"
SCHEDULER: Final = "scheduler"
_ADJUST_SECONDS: Final = 30  # a machine's clock drifts by less than 10 ms in that time
log = get_logger()

WORKERS: Final = (USERS, NOTIFICATIONS, SCHEDULER)
ANSWER_SECONDS: Final = 1.8  # what asks whether we are ready waits for 2

MODELS: Final = (
    *user_models.MODELS,
    *credentials.MODELS,
    *throttle.MODELS,
    *notification_models.MODELS,
    *catalogue.MODELS,
    *revisions.MODELS,
    *overrides.MODELS,
    *traces.MODELS,
    *scheduled.MODELS,
    *deliveries.MODELS,
    *ledgers.MODELS,
    *broadcasts.MODELS,
    *scheduler_models.MODELS,
    *outbox.MODELS,
    *inbox.MODELS,
    *embedded.MODELS,
    *pulse.MODELS,
)


@dataclass(frozen=True)
class Runtime:
    """An open process: its services, and what they stand on."""

    settings: Settings
    clock: Clock
    store: Store
    bus: Bus
    outbox: Outbox
    inbox: Inbox
    sessions: Sessions
    access: Access
    api_keys: ApiKeys
    users: UserService
    choosing: Choosing
    links: UnsubscribeLinks
    texts: Texts
    announcing: Announcing
    notifications: NotificationService
    states: States
    scheduling: Scheduling
    firing: Firing
    releasing: Releasing
    delivering: Delivering
    broadcasting: Broadcasting
    recipients: Recipients
    fan_out: FanOut
    intake: Intake
    schedules: SchedulerService
    counts: Counts
    pulse: Pulse
    fault: asyncio.Future[str]

    async def ping(self) -> None:
        """Raises Unavailable, with a reason for each server, when it can't do its work."""
        if away := await self.away():
            raise Unavailable(" ".join(away.values()))

    async def away(self) -> Mapping[str, str]:
        """Why a server does not answer, by server, within ANSWER_SECONDS."""
        pings = {"database": self.store.ping()}
        if self.settings.rabbitmq_url:
            pings["broker"] = self.bus.ping()
        reasons = await asyncio.gather(*map(_why_not, pings.values()))
        return {server: reason for server, reason in zip(pings, reasons, strict=True) if reason}


@asynccontextmanager
async def open_runtime(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Runtime]:
    """Open what the settings ask for, and close it at the end. Raises CannotStart."""
    check(settings)
    fault: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:
        url = settings.mongodb_url or await stack.enter_async_context(
            private_mongod(
                settings.data_dir,
                lambda sentence: _report(fault, sentence),
                stop_seconds=settings.shutdown_seconds / 2,  # the rest is for what uses it
            )
        )
        keys = signing_keys(settings)
        store = await stack.enter_async_context(
            open_store(
                url,
                settings.mongodb_database,
                MODELS,
                timeout=settings.mongodb_timeout_seconds,
                patience=settings.startup_wait_seconds,
                connections=settings.mongodb_connections,
            )
        )
        await _compare_window(store, settings)
        if clock is None:
            clock = steady = DatabaseClock(store.time)
            await when_back(steady.adjust, "the database's time")
        bus: Bus
        if settings.rabbitmq_url:
            bus = rabbit = RabbitBus(settings.rabbitmq_url, clock, settings)
            stack.push_async_callback(rabbit.close)
        else:
            bus = EmbeddedBus(store, clock, settings)
        runtime = _put_together(settings, clock, store, bus, keys, fault)
        stack.push_async_callback(runtime.pulse.leave)  # after a gateway's last request, too
        await when_back(runtime.texts.read, "the texts")
        yield runtime


def _put_together(
    settings: Settings,
    clock: Clock,
    store: Store,
    bus: Bus,
    keys: SigningKeys,
    fault: asyncio.Future[str],
) -> Runtime:
    relay = Outbox(bus, clock, settings)
    seen = Inbox(clock, settings)
    life = timedelta(seconds=settings.access_token_seconds)
    tokens = AccessTokens(keys, life, clock, settings.kept_tokens)
    open_sessions = OpenSessions(clock, settings.kept_tokens)
    sessions = Sessions(store, relay, tokens, open_sessions, clock, settings)
    passwords = Passwords(
        settings.bcrypt_cost,
        settings.bcrypt_at_once,
        settings.bcrypt_waiting,
        settings.bcrypt_per_address,
    )
    attempts = Throttle(clock)
    choosing = Choosing(store, relay, clock, settings)
    texts = Texts(clock, settings)
    counts = Counts()
    announcing = Announcing(store, relay, bus, clock, settings, counts)
    return Runtime(
        settings=settings,
        clock=clock,
        store=store,
        bus=bus,
        outbox=relay,
        inbox=seen,
        sessions=sessions,
        access=Access(store, relay, sessions, passwords, attempts, clock, settings),
        api_keys=ApiKeys(clock, settings),
        users=UserService(store, relay, sessions, passwords, attempts, choosing, clock, settings),
        choosing=choosing,
        links=UnsubscribeLinks(keys, clock, settings),
        texts=texts,
        announcing=announcing,
        notifications=NotificationService(announcing, texts, clock, settings),
        states=States(store, relay, clock, settings),
        scheduling=Scheduling(store, clock, settings),
        firing=Firing(store, relay, announcing, texts, clock, settings),
        releasing=Releasing(store, texts, clock, settings),
        delivering=Delivering(store, clock, settings),
        broadcasting=Broadcasting(clock, settings),
        recipients=Recipients(store, clock, settings),
        fan_out=FanOut(store, announcing, texts, clock, settings),
        intake=Intake(store, relay, seen, clock, settings),
        schedules=SchedulerService(store, relay, clock, settings),
        counts=counts,
        pulse=Pulse(counts, clock, settings),
        fault=fault,
    )


async def run(runtime: Runtime, workers: Sequence[str], stop: asyncio.Event | None = None) -> None:
    """Relay the outbox and run these workers until cancelled. One that fails ends them all.

    When `stop` is set, they take no new work and have half of SHUTDOWN_SECONDS for what is in hand;
    the other half is for closing what they stand on, which may hang.
    """
    stop = stop or asyncio.Event()
    async with asyncio.TaskGroup() as group:
        consuming = [
            group.create_task(vital(name, partial(consume, stop), stop))
            for name, consume in _consumers(runtime, workers).items()
        ]
        others = [
            group.create_task(vital(name, loop)) for name, loop in _loops(runtime, workers).items()
        ]
        await stop.wait()
        if consuming:
            await asyncio.wait(consuming, timeout=runtime.settings.shutdown_seconds / 2)
        for task in (*consuming, *others):
            task.cancel()


def _consumers(
    runtime: Runtime, workers: Sequence[str]
) -> Mapping[str, Callable[[asyncio.Event], Awaitable[None]]]:
    """What has to end between two batches, by name; each is given the sign to stop."""
    clock, settings = runtime.clock, runtime.settings
    tables = {
        USERS: (events.USERS, user_handlers.handlers(runtime.users)),
        NOTIFICATIONS: (
            events.NOTIFICATIONS,
            NotificationHandlers(
                runtime.announcing,
                runtime.scheduling,
                runtime.texts,
                clock,
                settings,
            ).table(),
        ),
    }
    handle = partial(work, counts=runtime.counts)
    return {
        name: partial(handle, runtime.bus, queue, table, runtime.inbox, clock, settings)
        for name, (queue, table) in tables.items()
        if name in workers
    }


def _loops(
    runtime: Runtime, workers: Sequence[str]
) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """What may be cut off anywhere, by name: the next process goes on from what is stored."""
    loops: dict[str, Callable[[], Awaitable[object]]] = {
        "mongod": partial(_end_on_fault, runtime.fault),
        "outbox": runtime.outbox.relay,
        "texts": runtime.texts.keep_reading,
        "pulse": partial(runtime.pulse.keep_beating, _called(workers)),
    }
    if NOTIFICATIONS in workers:
        loops["scheduled notifications"] = runtime.firing.keep_working
        loops["held deliveries"] = runtime.releasing.keep_working
        loops["snoozed notifications"] = runtime.states.keep_waking
        loops["broadcasts' recipients"] = runtime.recipients.keep_finding
        loops["broadcasts"] = runtime.fan_out.keep_sending
    if SCHEDULER in workers:
        loops[SCHEDULER] = runtime.schedules.keep_ticking
    if isinstance(runtime.clock, DatabaseClock):
        loops["clock"] = partial(_keep_time, runtime.clock)
    return loops


def _called(workers: Sequence[str]) -> str:
    """What an operator calls a process with these: as its command is called."""
    return SERVE if tuple(workers) == WORKERS else ", ".join(workers) or GATEWAY


async def _compare_window(store: Store, settings: Settings) -> None:
    """Warn of a window in which a write of this database may not be over."""
    longest = await when_back(store.longest_write, "the database")
    if longest is not None and longest >= settings.write_window_seconds:
        log.warning(
            "write_window_too_short",
            advice=f"set WRITE_WINDOW_SECONDS to {longest} or more, or MongoDB's "
            "transactionLifetimeLimitSeconds to 2: else a held-back write may be missed",
        )


async def _keep_time(clock: DatabaseClock) -> None:
    while True:
        end_if_cancelled()
        await asyncio.sleep(_ADJUST_SECONDS)
        await when_back(clock.adjust, "the database's time")


async def _why_not(ping: Coroutine[object, object, None]) -> str | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await ping
    except TimeoutError:
        return "It does not answer."
    except Exception as error:
        if not (is_away(error) or isinstance(error, Unavailable)):
            raise
        return str(error).partition(" (configured timeouts")[0] or repr(error)
    return None


async def _end_on_fault(fault: asyncio.Future[str]) -> None:
    raise CannotStart(await asyncio.shield(fault))


def _report(fault: asyncio.Future[str], sentence: str) -> None:
    if not fault.done():
        fault.set_result(sentence)
