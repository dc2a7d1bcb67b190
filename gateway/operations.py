"""How it goes, in GraphQL: what an operator looks at to see whether all is well."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated, Final

import strawberry
from strawberry import ID

from gateway.context import Info, Services, only
from gateway.enums import Role
from services.shared import bus, pulse
from services.shared.errors import BadInput
from services.shared.outbox import Backlog

_MOST_MINUTES: Final = 1440


@strawberry.type(description="What all processes did in one minute.")
class OperationsMinute:
    at: datetime = strawberry.field(description="When it began.")
    events: int = strawberry.field(
        description="Events that were handled; one that two queues want counts in each."
    )
    sent: int = strawberry.field(description="Notifications that were stored or revised.")
    suppressed: int = strawberry.field(
        description="Those that were refused, or held, by what their users want, instead."
    )
    failed: int = strawberry.field(
        description="How often an event failed: it is tried again, or is a dead letter."
    )

    @classmethod
    def of(cls, minute: pulse.Minute) -> OperationsMinute:
        return cls(**minute._asdict())


@strawberry.type(description="A queue of events.")
class QueueState:
    name: str = strawberry.field(description="Whose it is: the service's name.")
    waiting: int = strawberry.field(
        description="Events that nobody has in hand; on the embedded bus these count, too."
    )
    retrying: int = strawberry.field(description="Those that failed, and wait to be tried again.")
    consumers: int = strawberry.field(description="Processes that take events from it.")

    @classmethod
    def of(cls, depth: bus.QueueDepth) -> QueueState:
        return cls(**depth._asdict())


@strawberry.type(description="A process that lives.")
class ProcessState:
    id: ID = strawberry.field(description="Its host, its process id, and some digits of its own.")
    service: str = strawberry.field(description="What it runs; serve: everything.")
    started_at: datetime = strawberry.field(description="When it started.")
    seen_at: datetime = strawberry.field(
        description="When it told this; one that has not for three PULSE_SECONDS is not listed."
    )
    sockets: int = strawberry.field(description="Websockets that were open in it.")
    memory_bytes: float = strawberry.field(description="Memory that it had, bytes.")

    @classmethod
    def of(cls, living: pulse.LivingProcess) -> ProcessState:
        return cls(
            id=ID(living.id),
            service=living.service,
            started_at=living.started_at,
            seen_at=living.seen_at,
            sockets=living.sockets,
            memory_bytes=float(living.memory_bytes),
        )


@strawberry.type(
    description="How it goes, in all processes together. Each part is asked for only where it is "
    "wanted; one that does not answer is null, with an error, and the others are there."
)
class Operations:
    at: datetime = strawberry.field(description="When it was asked: the database's time.")
    minutes_wanted: strawberry.Private[int]
    services: strawberry.Private[Services]

    @strawberry.field(
        description="The oldest first, and each is there; the last one is going on. What a process "
        "did it tells within PULSE_SECONDS."
    )
    async def minutes(self) -> list[OperationsMinute] | None:
        found = await self.services.pulse.minutes(self.minutes_wanted)
        return [OperationsMinute.of(one) for one in found]

    @strawberry.field(description="Events that are stored and not handed on yet.")
    async def outbox(self) -> int | None:
        return (await self._backlog).rows

    @strawberry.field(description="Since when the oldest of them waits.")
    async def outbox_oldest_at(self) -> datetime | None:
        backlog = await self._backlog
        return self.at - backlog.age if backlog.rows else None

    @strawberry.field(
        description="What waits in the queues, as it was within the last second. Null, with an "
        "error, while the broker is away."
    )
    async def queues(self) -> list[QueueState] | None:
        return [QueueState.of(one) for one in (await self._depths).queues]

    @strawberry.field(
        description="How many dead letters lie there, without those that somebody looks at in the "
        "same moment on RabbitMQ. Null, with an error, while the broker is away."
    )
    async def dead_letters(self) -> int | None:
        return (await self._depths).dead_letters

    @strawberry.field(description="Websockets that were open, of all processes.")
    async def sockets(self) -> int | None:
        return sum(one.sockets for one in await self._living)

    @strawberry.field(description="Those that live, by service, the oldest first.")
    async def processes(self) -> list[ProcessState] | None:
        return [ProcessState.of(one) for one in await self._living]

    @cached_property
    def _backlog(self) -> asyncio.Task[Backlog]:
        """As the others, asked once for both fields."""
        return asyncio.create_task(self.services.outbox.backlog())

    @cached_property
    def _depths(self) -> asyncio.Task[bus.Depths]:
        return asyncio.create_task(self.services.bus.depths())

    @cached_property
    def _living(self) -> asyncio.Task[Sequence[pulse.LivingProcess]]:
        return asyncio.create_task(self.services.pulse.processes())


@strawberry.type
class OperationsQuery:
    @strawberry.field(
        description="How it goes: rates, backlog and processes. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def operations(
        self,
        info: Info,
        minutes: Annotated[
            int, strawberry.argument(description="How many of the last minutes: 1 to 1,440.")
        ] = 60,
    ) -> Operations:
        if not 1 <= minutes <= _MOST_MINUTES:
            raise BadInput(f"Ask for 1 to {_MOST_MINUTES} minutes.", "minutes")
        services = info.context.services
        return Operations(at=services.clock.now(), minutes_wanted=minutes, services=services)
