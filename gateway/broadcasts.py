"""Broadcasts in GraphQL: started, steered, and followed to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Final

import strawberry
from strawberry import ID
from strawberry.scalars import JSON

from gateway.arguments import row_id, span_of
from gateway.audiences import AudienceCount, AudienceInput
from gateway.context import Info, only
from gateway.enums import BroadcastState, Role
from gateway.notification_types import PageInfo
from services.notifications import broadcasts
from services.notifications.broadcasting import Wish
from services.shared.errors import NotFound

_LOOK_SECONDS: Final = 1.0


@strawberry.type(description="A promotion for everybody in an audience, and how far it has come.")
class Broadcast:
    id: ID = strawberry.field(
        description="Its id; explainEvent(eventId) takes it with broadcast/ in front."
    )
    title: str = strawberry.field(description="The promotion's title.")
    body: str = strawberry.field(description="Its body.")
    audience: JSON = strawberry.field(
        description="Who it is for, as it was given; enums as events write them, in lower case."
    )
    state: BroadcastState = strawberry.field(description="Where it stands.")
    started_at: datetime = strawberry.field(
        description="Who had registered then is meant, and what they had done until then."
    )
    per_second: int | None = strawberry.field(description="Recipients in a second, on average.")
    expires_at: datetime | None = strawberry.field(
        description="When what it sent disappears; null: as promotions do."
    )
    total: int | None = strawberry.field(
        description="How many recipients it has; null while they are being found, and for good if "
        "it was cancelled meanwhile."
    )
    sent: int = strawberry.field(
        description="How many got it on one channel at least: in the app, or READY elsewhere."
    )
    held: int = strawberry.field(
        description="Who got it on no channel, while it waits on some. It is decided anew at its "
        "time, and that is not counted."
    )
    suppressed: int = strawberry.field(
        description="How many did not want it, or were gone or disabled when it came to them."
    )
    failed: int = strawberry.field(
        description="How many could not be served, for a fault of ours, each time it was tried. "
        "They are not tried again."
    )

    @classmethod
    def of(cls, row: broadcasts.Broadcast) -> Broadcast:
        return cls(
            id=ID(str(row.id)),
            title=row.title,
            body=row.body,
            audience=JSON(row.audience),
            state=row.state,
            started_at=row.started_at,
            per_second=row.per_second,
            expires_at=row.expires_at,
            total=row.recipients,
            sent=row.sent,
            held=row.held,
            suppressed=row.suppressed,
            failed=row.failed,
        )


@strawberry.type(description="A broadcast in a list.")
class BroadcastEdge:
    cursor: str = strawberry.field(description="Opaque; for paging.")
    node: Broadcast = strawberry.field(description="The broadcast.")


@strawberry.type(description="A page of broadcasts, newest first (Relay Cursor Connections).")
class BroadcastConnection:
    edges: list[BroadcastEdge] = strawberry.field(description="The broadcasts.")
    page_info: PageInfo = strawberry.field(description="Where this page stands.")


@strawberry.input(description="A promotion, and who shall get it.")
class BroadcastInput:
    title: str = strawberry.field(description="1 to 500 characters.")
    body: str = strawberry.field(description="1 to 5,000 characters.")
    audience: AudienceInput = strawberry.field(description="Who gets it; {} is everybody.")
    per_second: int | None = strawberry.field(
        default=None, description="Recipients in a second, on average; null: as fast as it goes."
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it is over, and disappears; null: as promotions do."
    )
    dedup_key: str | None = strawberry.field(
        default=None,
        description="The caller's own key: the same one again answers with the first broadcast.",
    )

    def wish(self) -> Wish:
        return Wish(
            self.title,
            self.body,
            self.audience.read("input.audience"),
            self.per_second,
            self.expires_at,
            self.dedup_key,
        )


Id = Annotated[ID, strawberry.argument(description="The broadcast's id.")]


@strawberry.type
class BroadcastQuery:
    @strawberry.field(
        description="Who is in an audience now; nothing is sent. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def audience(
        self,
        info: Info,
        input: Annotated[AudienceInput, strawberry.argument(description="The conditions.")],
    ) -> AudienceCount:
        broadcasting = info.context.services.broadcasting
        return AudienceCount.of(await broadcasting.dry_run(input.read("input")))

    @strawberry.field(
        description="One broadcast; null when there is none, or it is forgotten. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def broadcast(self, id: Id) -> Broadcast | None:
        row = await broadcasts.Broadcast.by_id(id)
        return Broadcast.of(row) if row else None

    @strawberry.field(
        description="All broadcasts, newest first. For ADMIN.", extensions=only(Role.ADMIN)
    )
    async def broadcasts(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description="How many.")] = None,
        after: Annotated[
            str | None, strawberry.argument(description="Only older than this cursor.")
        ] = None,
    ) -> BroadcastConnection:
        size = span_of(first, None, None, None, info.context.services.settings).size
        rows = await broadcasts.Broadcast.page(row_id(after, "after"), size + 1)
        edges = [BroadcastEdge(cursor=str(row.id), node=Broadcast.of(row)) for row in rows[:size]]
        return BroadcastConnection(
            edges=edges,
            page_info=PageInfo(
                has_next_page=len(rows) > size,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


@strawberry.type
class BroadcastMutation:
    @strawberry.mutation(
        description="Send a promotion to everybody who is in an audience now, once to each. "
        "For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def create_broadcast(
        self,
        info: Info,
        input: Annotated[BroadcastInput, strawberry.argument(description="What, and to whom.")],
    ) -> Broadcast:
        source = await info.context.source()
        return Broadcast.of(await info.context.services.broadcasting.create(input.wish(), source))

    @strawberry.mutation(
        description="Let a broadcast rest; what a worker has in hand still goes out. Answers how "
        "it stands, DONE when that came too late. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def pause_broadcast(self, info: Info, id: Id) -> Broadcast:
        return Broadcast.of(await info.context.services.broadcasting.pause(id))

    @strawberry.mutation(
        description="Let a paused broadcast go on. Answers how it stands. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def resume_broadcast(self, info: Info, id: Id) -> Broadcast:
        return Broadcast.of(await info.context.services.broadcasting.resume(id))

    @strawberry.mutation(
        description="End a broadcast: what went out stays out, what a worker has in hand still "
        "goes out. Answers how it stands, DONE when that came too late. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def cancel_broadcast(self, info: Info, id: Id) -> Broadcast:
        return Broadcast.of(await info.context.services.broadcasting.cancel(id))


@strawberry.type
class BroadcastSubscription:
    @strawberry.subscription(
        description="How a broadcast stands now, and whenever that has changed, looked at once a "
        "second; until it has ended and nobody has a part of it in hand. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def broadcast_progress(self, info: Info, id: Id) -> AsyncIterator[Broadcast]:
        live, told = info.context.services.live, None
        while True:
            row = await live.ask(lambda: broadcasts.Broadcast.by_id(id), "a broadcast's progress")
            if row is None:
                raise NotFound("There is no such broadcast.")
            if row.progress != told:
                told = row.progress
                yield Broadcast.of(row)
            if not row.is_open:
                return
            await asyncio.sleep(_LOOK_SECONDS)
