"""How it goes, in GraphQL: what an operator looks at to see whether all is well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Final

import strawberry
from strawberry import ID

from gateway.context import Info, only
from gateway.enums import Role
from services.shared import bus, pulse
from services.shared.errors import BadInput

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


@strawberry.type(description="How it goes, in all processes together.")
class Operations:
    at: datetime = strawberry.field(description="When it was asked: the database's time.")
    minutes: list[OperationsMinute] = strawberry.field(
        description="The oldest first, and each is there; the last one is going on. What a process "
        "did it tells within PULSE_SECONDS."
    )
    outbox: int = strawberry.field(description="Events that are stored and not handed on yet.")
    outbox_oldest_at: datetime | None = strawberry.field(
        description="Since when the oldest of them waits."
    )
    sockets: int = strawberry.field(description="Websockets that were open, of all processes.")
    processes: list[ProcessState] = strawberry.field(
        description="Those that live, by service, the oldest first."
    )
    ask_depths: strawberry.Private[Callable[[], Coroutine[Any, Any, bus.Depths]]]

    @strawberry.field(
        description="What waits in the queues. Null, with an error, while the broker is away."
    )
    async def queues(self) -> list[QueueState] | None:
        return [QueueState.of(one) for one in (await self._depths).queues]

    @strawberry.field(
        description="How many dead letters lie there. Null, with an error, while the broker is "
        "away."
    )
    async def dead_letters(self) -> int | None:
        return (await self._depths).dead_letters

    @cached_property
    def _depths(self) -> asyncio.Task[bus.Depths]:
        """Asked once for both fields, and only if one is wanted."""
        return asyncio.create_task(self.ask_depths())


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
        rates, backlog, living = await asyncio.gather(
            services.pulse.minutes(minutes), services.outbox.backlog(), services.pulse.processes()
        )
        at = services.clock.now()
        return Operations(
            at=at,
            minutes=[OperationsMinute.of(one) for one in rates],
            outbox=backlog.rows,
            outbox_oldest_at=at - backlog.age if backlog.rows else None,
            sockets=sum(one.sockets for one in living),
            processes=[ProcessState.of(one) for one in living],
            ask_depths=services.bus.depths,
        )
