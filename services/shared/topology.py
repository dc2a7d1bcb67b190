"""What stands on the broker: exchanges, queues and bindings.

Every process declares all of it once, and again when it finds something missing.

tidings.events (topic) ──type──▶ tidings.<queue> (quorum) ──▶ consumers
    └─ unrouted ─▶ tidings.notifications            │ given back: tidings.retry.<queue>.<ms>
tidings.live (topic) ──user id──▶ one queue a gateway│ given up:  tidings.dead-letters
    └─ everybody ─▶ each of them
"""

from __future__ import annotations

from typing import Any, Final

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel

from services.shared.events import NOTIFICATIONS, QUEUES
from services.shared.settings import Settings

EVENTS: Final = "tidings.events"
LIVE: Final = "tidings.live"
EVERYBODY: Final = "everybody"  # a routing key of LIVE, and no user's id: those are hex digits
UNROUTED: Final = "tidings.unrouted"
DEAD: Final = "tidings.dead"
DEAD_LETTERS: Final = "tidings.dead-letters"

# Times an event is redelivered whose consumer died: the queue's for life, so no setting.
DELIVERY_LIMIT: Final = 20
# RabbitMQ 4 drops what was looked at 20 times, unless told otherwise; 3.10 has no word for "never".
_LOOKS_AT_A_DEAD_LETTER: Final = 1_000_000


def queue_name(queue: str) -> str:
    return f"tidings.{queue}"


def retry_queue_name(queue: str, wait: float) -> str:
    """`wait`: seconds. It is part of the name, since a queue's waiting time can't be changed."""
    return f"tidings.retry.{queue}.{round(wait * 1000)}"


async def declare_topology(channel: AbstractChannel, settings: Settings) -> None:
    """Make what is missing, each thing in bounded time. The same on RabbitMQ 3.10 and 4."""
    seconds = settings.rabbitmq_timeout_seconds
    unrouted = await channel.declare_exchange(
        UNROUTED, ExchangeType.FANOUT, durable=True, timeout=seconds
    )
    events = await channel.declare_exchange(
        EVENTS,
        ExchangeType.TOPIC,
        durable=True,
        arguments={"alternate-exchange": UNROUTED},
        timeout=seconds,
    )
    await channel.declare_exchange(LIVE, ExchangeType.TOPIC, durable=True, timeout=seconds)
    dead = await channel.declare_exchange(DEAD, ExchangeType.FANOUT, durable=True, timeout=seconds)
    letters = await channel.declare_queue(
        DEAD_LETTERS,
        durable=True,
        arguments={"x-queue-type": "quorum", "x-delivery-limit": _LOOKS_AT_A_DEAD_LETTER},
        timeout=seconds,
    )
    await letters.bind(dead, timeout=seconds)
    for name, types in QUEUES.items():
        queue = await channel.declare_queue(
            queue_name(name),
            durable=True,
            arguments=_without_loss(DEAD) | {"x-delivery-limit": DELIVERY_LIMIT},
            timeout=seconds,
        )
        for data in types:
            await queue.bind(events, data.type, timeout=seconds)
        if name == NOTIFICATIONS:
            await queue.bind(unrouted, timeout=seconds)
        for wait in settings.retry_waits:
            await channel.declare_queue(
                retry_queue_name(name, wait),
                durable=True,
                arguments=_without_loss("", queue_name(name))
                | {"x-message-ttl": round(wait * 1000)},
                timeout=seconds,
            )


def _without_loss(dead_letter_exchange: str, routing_key: str | None = None) -> dict[str, Any]:
    """Arguments of a quorum queue whose dead letters are confirmed before they leave it."""
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": dead_letter_exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return arguments | ({"x-dead-letter-routing-key": routing_key} if routing_key else {})
