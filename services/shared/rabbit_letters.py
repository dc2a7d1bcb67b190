"""The dead-letter queue of the broker, looked at and emptied one letter at a time.

A queue has no random access: letters are taken in order, and those that stay are given back. What
is given back goes behind what was given back before, so it is always all, or they would change
places. While one command has them in hand, another sees fewer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import uuid4

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, HeadersType

from services.shared.amqp import FAULTS, Connection, bounded, close, pause
from services.shared.bus import DeadLetter, Delivery
from services.shared.errors import NotFound, Unavailable
from services.shared.events import QUEUES
from services.shared.settings import Settings
from services.shared.topology import DEAD_LETTERS, DELIVERY_LIMIT

T = TypeVar("T")
Letters = AsyncGenerator[tuple[AbstractIncomingMessage, DeadLetter], None]

# Right after a restart the broker may leave a question about a queue unanswered.
_ATTEMPTS: Final = 5
_SETTLING_SECONDS: Final = 0.02


class DeadLetterQueue:
    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        put_back: Callable[[DeadLetter], Awaitable[None]],
        settings: Settings,
    ) -> None:
        self._connect = connect
        self._put_back = put_back
        self._settings = settings

    async def look(self, limit: int, prefix: str) -> Sequence[DeadLetter]:
        """The oldest whose id starts so. Raises Unavailable, as all of these do."""

        async def collect(letters: Letters) -> Sequence[DeadLetter]:
            found: list[DeadLetter] = []
            async for _, letter in letters:
                if len(found) < limit and letter.id.startswith(prefix):
                    found.append(letter)
            return found

        return await self._walk(collect)

    async def replay(self, id: str | None) -> int:
        """Put one back, or all; how many. Raises NotFound for a queue that is no more."""

        async def put_back(letter: DeadLetter) -> None:
            if letter.queue not in QUEUES:
                raise NotFound(
                    f"Dead letter {letter.id} came from the queue {letter.queue!r}, which Tidings "
                    "does not have: it can only be discarded."
                )
            await self._put_back(letter)

        return await self._remove(id, put_back)

    async def discard(self, id: str | None) -> int:
        """Delete one, or all; how many there were."""

        async def forget(_: DeadLetter) -> None:
            return

        return await self._remove(id, forget)

    async def _remove(self, id: str | None, first: Callable[[DeadLetter], Awaitable[None]]) -> int:
        removed = 0

        async def remove(letters: Letters) -> None:
            nonlocal removed
            async for message, letter in letters:
                if id is None or (letter.id == id and not removed):
                    await first(letter)
                    async with bounded(self._settings.rabbitmq_timeout_seconds):
                        await message.ack()
                    removed += 1

        await self._walk(remove)
        return removed

    async def _walk(self, action: Callable[[Letters], Awaitable[T]]) -> T:
        """Run `action` over the letters that lie there now; what it does not ack stays there."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                connection = await self._connect()
                try:
                    async with bounded(self._settings.rabbitmq_timeout_seconds):
                        channel = await connection.channel()
                    kept: list[int] = []
                    try:
                        async with aclosing(self._letters(channel, kept)) as letters:
                            return await action(letters)
                    finally:
                        with suppress(*FAULTS):
                            await self._give_back(channel, kept)
                finally:
                    await close(connection)
            except FAULTS as error:
                if attempt == _ATTEMPTS:
                    raise Unavailable(f"RabbitMQ is away: {error!r}") from error
            await pause(self._settings)
        raise AssertionError("unreachable")

    async def _letters(self, channel: AbstractChannel, kept: list[int]) -> Letters:
        """Each that waits; the delivery tags of those that were not acked are put in `kept`."""
        queue = await channel.get_queue(DEAD_LETTERS, ensure=False)
        for _ in range(await self._waiting(channel)):  # not those that die again meanwhile
            async with bounded(self._settings.rabbitmq_timeout_seconds):
                message = await queue.get(fail=False)
            if message is None:
                return
            try:
                yield message, _dead_letter(message)
            finally:
                if not message.processed and message.delivery_tag is not None:
                    kept.append(message.delivery_tag)

    async def _give_back(self, channel: AbstractChannel, kept: Sequence[int]) -> None:
        """Give back what was taken, and wait until it is there for the next who looks."""
        if not kept:
            return
        async with bounded(self._settings.rabbitmq_timeout_seconds):
            underlay = await channel.get_underlay_channel()
            await underlay.basic_nack(kept[-1], multiple=True, requeue=True)
            while await self._waiting(channel) < len(kept):  # noqa: ASYNC110 - it is the broker's
                await asyncio.sleep(_SETTLING_SECONDS)

    async def _waiting(self, channel: AbstractChannel) -> int:
        async with bounded(self._settings.rabbitmq_timeout_seconds):
            underlay = await channel.get_underlay_channel()
            state = await underlay.queue_declare(DEAD_LETTERS, passive=True)
        return state.message_count or 0


def burial(
    queue: str, delivery: Delivery, reason: str, now: datetime, *, given_up: bool
) -> dict[str, Any]:
    """What a message carries on its way to a retry, or to the dead letters, in its headers."""
    headers = {
        "x-tidings-queue": queue,
        "x-tidings-reason": reason[:2000],
        "x-tidings-first-seen": delivery.first_seen.isoformat(),
        "x-tidings-failures": delivery.failures + 1,
    }
    if given_up:
        headers |= {"x-tidings-id": uuid4().hex, "x-tidings-died-at": now.isoformat()}
    return headers


def instant(headers: HeadersType, name: str) -> datetime | None:
    """The time in a header of ours, or None."""
    with suppress(ValueError):
        return datetime.fromisoformat(str(headers.get(name)))
    return None


def _dead_letter(message: AbstractIncomingMessage) -> DeadLetter:
    """Ours say all; of those that the broker gave up the id is that of the body."""
    headers = message.headers
    death = _last_death(headers)
    reason = str(headers.get("x-tidings-reason", ""))
    died_at = instant(headers, "x-tidings-died-at")
    if died_at is None:
        died_at = _aware(death.get("time"))
        cause = str(death.get("reason", "unknown"))
        if cause == "delivery_limit":
            cause = f"its consumer was lost {DELIVERY_LIMIT} times"
        reason = f"{cause}; before that: {reason}" if reason else cause
    queue = str(headers.get("x-tidings-queue") or death.get("queue", ""))
    failures = headers.get("x-tidings-failures", 0)
    return DeadLetter(
        id=str(headers.get("x-tidings-id") or hashlib.sha256(message.body).hexdigest()[:32]),
        queue=queue.removeprefix("tidings."),
        body=message.body,
        reason=reason,
        failures=failures if isinstance(failures, int) else 0,
        first_seen=instant(headers, "x-tidings-first-seen") or died_at,
        died_at=died_at,
    )


def _last_death(headers: HeadersType) -> Mapping[str, Any]:
    deaths: Any = headers.get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths else {}


def _aware(time: Any) -> datetime:
    """The broker's times are UTC; without one, the beginning of time."""
    moment = time if isinstance(time, datetime) else datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
