"""Before a process starts: whether its settings fit together, and whether its servers answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from services.shared.amqp import FAULTS, close, connect
from services.shared.errors import CannotStart
from services.shared.settings import Settings
from services.shared.store import open_store
from services.users.tokens import signing_secret


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
    if settings.rabbitmq_url and (
        settings.outbox_lease_seconds < 2 * settings.rabbitmq_timeout_seconds
    ):
        raise CannotStart(
            "OUTBOX_LEASE_SECONDS must be twice RABBITMQ_TIMEOUT_SECONDS or more: a relay that "
            "connects and waits for a confirm takes as long, and another would do its work again."
        )


def check_single(settings: Settings, name: str) -> None:
    """Raises CannotStart when the service can't run as a process of its own."""
    if not settings.rabbitmq_url:
        raise CannotStart(
            f"`{name}` as a process of its own needs RABBITMQ_URL and MONGODB_URL, to share events "
            "and data with the others. On one machine use `serve`, which runs everything."
        )


async def reach(settings: Settings) -> None:
    """Ask the database and the broker for an answer, and nothing else. Raises CannotStart."""
    answers = await asyncio.gather(
        _reach_database(settings), _reach_broker(settings), return_exceptions=True
    )
    faults = [answer for answer in answers if answer is not None]
    if any(not isinstance(fault, CannotStart) for fault in faults):
        raise BaseExceptionGroup("health", faults)
    if faults:
        raise CannotStart(" ".join(map(str, faults)))


async def _reach_database(settings: Settings) -> None:
    async with open_store(
        settings.mongodb_url,
        settings.mongodb_database,
        (),
        timeout=settings.mongodb_timeout_seconds,
        patience=0,
    ):
        return


async def _reach_broker(settings: Settings) -> None:
    try:
        connection = await connect(settings.rabbitmq_url, settings)
    except FAULTS as error:
        raise CannotStart(f"RabbitMQ does not answer: {error!r}.") from error
    await close(connection)


def _is_amqp(url: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    return False
