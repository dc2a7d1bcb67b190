"""The dead-letter queue of the broker, looked at and emptied.

A queue has no random access: letters are taken in order, and those that stay are given back. What
is given back goes behind what was given back before, so it is always all, or they would change
places. While one command has them in hand, another sees fewer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import uuid4

from aio_pika.abc import HeadersType

from services.shared.amqp import FAULTS, MOST_AT_ONCE, Connection, bounded, close, pause
from services.shared.bus import DeadLetter, Delivery
from services.shared.errors import NotFound, Unavailable
from services.shared.events import QUEUES
from services.shared.frames import Received
from services.shared.letters_in_hand import Hand
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled
from services.shared.topology import DELIVERY_LIMIT

T = TypeVar("T")

# Right after a restart the broker may leave a question about a queue unanswered.
_ATTEMPTS: Final = 5
# Their bodies are in memory meanwhile; those that are replayed are so twice if we are killed.
_DISCARDED_AT_ONCE: Final = 500
_REPLAYED_AT_ONCE: Final = 25


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

    async def look(self, limit: int, prefix: str, keep: Callable[[DeadLetter], T]) -> Sequence[T]:
        """What `keep` makes of the oldest whose id starts so. Raises Unavailable, as all of these
        do."""

        async def collect(hand: Hand) -> Sequence[T]:
            found: list[T] = []

            def sift(message: Received) -> None:
                if len(found) < limit:
                    letter = _dead_letter(message)
                    if letter.id.startswith(prefix):
                        found.append(keep(letter))

            async for _ in hand.batches(sift, MOST_AT_ONCE):
                pass
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

        return await self._remove(id, put_back, _REPLAYED_AT_ONCE)

    async def discard(self, id: str | None) -> int:
        """Delete one, or all; how many there were."""

        async def forget(_: DeadLetter) -> None:
            return

        return await self._remove(id, forget, _DISCARDED_AT_ONCE)

    async def _remove(
        self, id: str | None, first: Callable[[DeadLetter], Awaitable[None]], at_once: int
    ) -> int:
        """How many it has told the broker to delete: `first` is done with each before. Where an
        answer is lost it looks again for those that are still there."""
        removed = 0

        def sift(message: Received) -> DeadLetter | None:
            letter = _dead_letter(message)
            return letter if id in (None, letter.id) else None

        async def remove_it(hand: Hand) -> None:
            nonlocal removed
            is_done = False
            async for batch in hand.batches(sift, MOST_AT_ONCE):
                if batch and not is_done:
                    tag, letter = batch[0]
                    await first(letter)
                    is_done, removed = True, 1
                    await hand.ack(tag)

        async def remove_all(hand: Hand) -> None:
            nonlocal removed
            async for batch in hand.batches(sift, at_once):
                done: list[int] = []
                try:
                    for tag, letter in batch:
                        await first(letter)
                        done.append(tag)
                finally:
                    if done:
                        removed += len(done)
                        await hand.ack(done[-1], len(done))

        await self._walk(remove_all if id is None else remove_it)
        return removed

    async def _walk(self, action: Callable[[Hand], Awaitable[T]]) -> T:
        """Run `action` over the letters that lie there now; what it does not ack stays there."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                connection = await self._connect()
                try:
                    async with bounded(self._settings.rabbitmq_timeout_seconds):
                        channel = await (await connection.channel()).get_underlay_channel()
                    hand = Hand(connection, channel, self._settings)
                    try:
                        return await action(hand)
                    finally:
                        with suppress(*FAULTS):
                            await hand.give_back()
                finally:
                    await close(connection)
            except FAULTS as error:
                end_if_cancelled()
                if attempt == _ATTEMPTS:
                    raise Unavailable(f"RabbitMQ is away: {error!r}") from error
            await pause(self._settings)
        raise AssertionError("unreachable")


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
    if (told := headers.get(name)) is None:
        return None
    with suppress(ValueError):
        return datetime.fromisoformat(str(told))
    return None


def _dead_letter(message: Received) -> DeadLetter:
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
