"""Before a process starts: whether its settings fit together, and whether its servers answer."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from services.shared.amqp import FAULTS, close, connect
from services.shared.errors import CannotStart
from services.shared.settings import Settings
from services.shared.store import open_store
from services.users.tokens import signing_keys

LEAST_BCRYPT_COST: Final = 10
LEAST_PREFIX: Final = {4: 8, 6: 32}  # bits of a network of trusted proxies, by the IP's version
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")
_PUBLIC_URL: Final = re.compile(rf"(?:{_ORIGIN.pattern})(/[A-Za-z0-9._~-]+)*/?")


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
        signing_keys(settings)
    for origin in settings.allowed_origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise CannotStart(
                f"ALLOWED_ORIGINS holds {origin!r}, which is no origin: one looks like "
                "https://shop.example or http://localhost:3000, with nothing behind it."
            )
    if settings.public_url and not _PUBLIC_URL.fullmatch(settings.public_url):
        raise CannotStart(
            f"PUBLIC_URL is {settings.public_url!r}: one looks like https://tidings.shop.example, "
            "perhaps with a path."
        )
    for network in settings.trusted_proxies:
        if network != "*" and not _is_network(network):
            raise CannotStart(
                f"TRUSTED_PROXIES holds {network!r}: name addresses such as 10.0.0.7, or networks "
                "such as 10.0.0.0/24."
            )
    if settings.max_message_bytes <= settings.max_content_bytes:
        raise CannotStart(
            "MAX_MESSAGE_BYTES must be more than MAX_CONTENT_BYTES, which comes by websocket, too."
        )
    if settings.in_production:
        check_production(settings)
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


def check_production(settings: Settings) -> None:
    """Raises CannotStart that names every setting that is for development only."""
    faults = {
        "MONGODB_URL is not set: the private database is for trying out": not settings.mongodb_url,
        "DEMO_DATA is on: anybody may read its passwords": settings.demo_data,
        f"BCRYPT_COST is below {LEAST_BCRYPT_COST}": settings.bcrypt_cost < LEAST_BCRYPT_COST,
        "ALLOWED_ORIGINS holds more than your shop's own https:// origins": not all(
            origin.startswith("https://") for origin in settings.allowed_origins
        ),
        "PUBLIC_URL is no https:// address: mails carry links to it": not (
            settings.public_url.startswith("https://")
        ),
        "TRUSTED_PROXIES holds half the world: name yours": any(
            map(_is_too_wide, settings.trusted_proxies)
        ),
        "RABBITMQ_URL logs in as guest, or with the user's name as the password": bool(
            settings.rabbitmq_url
        )
        and _is_for_guests(settings.rabbitmq_url),
    }
    if found := [fault for fault, is_there in faults.items() if is_there]:
        raise CannotStart(f"PROFILE is production, and {'; '.join(found)}.")


def what_is_open(settings: Settings) -> str:
    """What the development profile leaves open, in one sentence."""
    origins = "any origin" if "*" in settings.allowed_origins else "its own origin and those named"
    return (
        "introspection, GraphiQL, the pages and suggestions in errors, "
        f"to {origins}: set PROFILE=production before strangers can reach it"
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


def _is_network(text: str) -> bool:
    with suppress(ValueError):
        ip_network(text)
        return True
    return False


def _is_too_wide(network: str) -> bool:
    if network == "*":
        return True
    parsed = ip_network(network)
    return parsed.prefixlen < LEAST_PREFIX[parsed.version]


def _is_for_guests(url: str) -> bool:
    parts = urlsplit(url)
    return parts.username in (None, "", "guest") or parts.password in (None, "", parts.username)


def _is_amqp(url: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    return False
