"""A gateway's connection to the live events of those users that somebody there looks at.

With them come some of others, which were told in the same messages, and all that is told to many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from typing import Final
from uuid import uuid4

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq.abc import AbstractChannel as UnderlayChannel

from services.shared.amqp import FAULTS, Connection, abandon, bounded, on_break, pause
from services.shared.clock import Clock
from services.shared.events import Event, Malformed, decode, split_batch
from services.shared.frames import Received
from services.shared.inflow import Inflow
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.tasks import end_if_cancelled
from services.shared.topology import EVERYBODY, LIVE

log = get_logger()
_AT_ONCE: Final = 50  # users that are bound in RABBITMQ_TIMEOUT_SECONDS, however slow the broker
_MUCH: Final = 4096  # bytes


class _Bindings:
    """Who is to be heard of, who is, and who waits for that.

    One task binds and unbinds. A question to the broker that is cancelled would cost the channel,
    so it is never a reader's own, and a reader that waits in line can leave, or go on unbound.
    """

    def __init__(self, on_late: Callable[[], None], seconds: float) -> None:
        self._on_late = on_late
        self._seconds = seconds
        self._is_open = False
        self._is_late = False
        self._wanted: set[str] = set()
        self._bound: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._superfluous: set[str] = set()
        self._news = asyncio.Event()

    async def want(self, user_id: str) -> None:
        """Return when the user is bound, or after `seconds`, or at once while nothing is open."""
        self._wanted.add(user_id)
        self._superfluous.discard(user_id)
        if not self._is_open or user_id in self._bound:
            return
        waiting = self._wait_for(user_id)
        self._news.set()
        done, _ = await asyncio.wait({waiting}, timeout=self._seconds)
        self._is_late = self._is_late or not done

    def forget(self, user_id: str) -> None:
        self._wanted.discard(user_id)
        self._let_go(user_id)
        if user_id in self._bound:
            self._superfluous.add(user_id)
            self._news.set()

    def open(self) -> None:
        """There is a new queue with nobody bound to it: when all are, all are told of the gap."""
        self._is_open = True
        self._is_late = False
        for user_id in self._wanted:
            self._wait_for(user_id)

    def close(self) -> None:
        """The queue is gone. Who waits goes on: all will be bound, and told of the gap."""
        self._is_open = False
        self._bound.clear()
        self._superfluous.clear()
        for user_id in tuple(self._waiting):
            self._let_go(user_id)

    async def bind(self, channel: UnderlayChannel, queue: str) -> None:
        """Bind all who wait. Who went on meanwhile is told of the gap. Raises what FAULTS lists."""
        while self._waiting:
            users = list(islice(self._waiting, _AT_ONCE))
            async with bounded(self._seconds):
                for user_id in users[:-1]:  # unanswered: what is answered next comes after them
                    await channel.queue_bind(queue, LIVE, user_id, nowait=True)
                await channel.queue_bind(queue, LIVE, users[-1])
            for user_id in users:
                self._bound.add(user_id)
                self._let_go(user_id)
                if user_id not in self._wanted:
                    self._superfluous.add(user_id)
        if self._is_late:
            self._is_late = False
            self._on_late()

    async def follow(self, channel: UnderlayChannel, queue: str) -> None:
        """Bind and unbind as is wanted, until cancelled. Raises what FAULTS lists."""
        while True:
            end_if_cancelled()
            self._news.clear()
            await self.bind(channel, queue)
            if self._superfluous:
                user_id = self._superfluous.pop()
                self._bound.discard(user_id)
                async with bounded(self._seconds):
                    await channel.queue_unbind(queue, LIVE, user_id)
            else:
                await self._news.wait()

    def _wait_for(self, user_id: str) -> asyncio.Future[None]:
        if user_id not in self._waiting:
            self._waiting[user_id] = asyncio.get_running_loop().create_future()
        return self._waiting[user_id]

    def _let_go(self, user_id: str) -> None:
        waiting = self._waiting.pop(user_id, None)
        if waiting is not None:
            waiting.set_result(None)


class LiveConnection:
    """Live events of the watched users: an exclusive queue, bound user by user; and what is
    told to everybody.

    A flood waits in that queue. What it has no room for falls out at its head into a queue of one
    message, `<name>.lost`: a message there says that some were lost.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        on_event: Callable[[Event], None],
        on_gap: Callable[[], None],
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._connect = connect
        self._on_event = on_event
        self._on_gap = on_gap
        self._clock = clock
        self._settings = settings
        self._bindings = _Bindings(on_gap, settings.rabbitmq_timeout_seconds)
        self.hears = False

    async def watch(self, user_id: str) -> None:
        """Have the user bound; while the broker is away, that is done when it is back."""
        await self._bindings.want(user_id)

    def unwatch(self, user_id: str) -> None:
        """Returns at once: what is still heard is nobody's."""
        self._bindings.forget(user_id)

    async def follow(self) -> None:
        """Listen until cancelled; after every break, bind anew and tell of the gap."""
        while True:
            end_if_cancelled()
            try:
                connection = await self._connect()
                try:
                    await self._listen(connection)
                finally:
                    self._bindings.close()
                    abandon(connection)
            except FAULTS as error:
                log.warning("live_feed_waits", error=repr(error))
            await pause(self._settings)

    async def _listen(self, connection: Connection) -> None:
        seconds = self._settings.rabbitmq_timeout_seconds
        async with bounded(seconds):
            channel = await connection.channel(publisher_confirms=False)
            losses = await connection.channel(publisher_confirms=False)
            queue = await self._declare(channel, losses)
        inflow = Inflow(connection, channel, queue, self._settings)
        await on_break(losses, inflow.end)
        underlay = await channel.get_underlay_channel()
        self._bindings.open()
        await self._bindings.bind(underlay, queue)
        await inflow.start(self._settings.live_prefetch)
        self.hears = True
        self._on_gap()
        binding = asyncio.create_task(self._bind(underlay, queue, inflow))
        try:
            while True:
                messages = await inflow.take(self._settings.live_prefetch)
                for message in messages:
                    self._hear(message)
                    if len(message.body) > _MUCH:
                        await asyncio.sleep(0)  # it may be for many
                async with bounded(seconds):
                    await messages[-1].ack(multiple=True)
        finally:
            self.hears = False
            binding.cancel()

    async def _bind(self, channel: UnderlayChannel, queue: str, inflow: Inflow) -> None:
        """Who could not be bound would hear nothing: then connect anew, and bind all."""
        try:
            await self._bindings.follow(channel, queue)
        except FAULTS as error:
            log.warning("live_feed_broke", error=repr(error))
        finally:
            inflow.end()

    async def _declare(self, channel: AbstractChannel, losses: AbstractChannel) -> str:
        """The names of the queues are new each time: nobody has to wait for the former's end."""
        name = f"tidings.gateway.{uuid4().hex}"
        lost = await losses.declare_queue(
            f"{name}.lost", exclusive=True, auto_delete=True, arguments={"x-max-length": 1}
        )
        await losses.set_qos(prefetch_count=1)
        await lost.consume(self._lose)
        queue = await channel.declare_queue(
            name,
            exclusive=True,
            auto_delete=True,
            arguments={
                "x-max-length-bytes": self._settings.live_queue_bytes,
                "x-overflow": "drop-head",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": f"{name}.lost",
            },
        )
        await queue.bind(LIVE, EVERYBODY)
        return name

    async def _lose(self, message: AbstractIncomingMessage) -> None:
        """Readers read the database again; one reading makes up for all that was lost so far."""
        with suppress(*FAULTS):
            await asyncio.sleep(self._settings.reconnect_seconds)
            async with bounded(self._settings.rabbitmq_timeout_seconds):
                await message.ack()
        log.warning("live_events_lost")
        self._on_gap()

    def _hear(self, message: Received) -> None:
        now = self._clock.now()
        refused: Malformed | None = None
        for body in split_batch(message.body):
            try:
                self._on_event(decode(body, received=now, checked=True))
            except Malformed as error:
                refused = error
        if refused is not None:
            log.warning("live_event_refused", error=str(refused).partition(": ")[0])
            self._on_gap()  # of another version, perhaps: readers find it in the database
