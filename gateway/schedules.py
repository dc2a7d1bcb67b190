"""Schedules, as GraphQL shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID
from strawberry.scalars import JSON

from gateway.context import Info, only
from gateway.enums import Role
from gateway.events import Accepted
from services.scheduler import models
from services.scheduler.service import Plan


@strawberry.type(description="An event that is published whenever its cron expression fires.")
class Schedule:
    id: ID = strawberry.field(description="Its id.")
    name: str = strawberry.field(description="Its unique name.")
    cron: str = strawberry.field(description="Five fields: minute, hour, day, month, weekday.")
    timezone: str = strawberry.field(description="The IANA time zone that cron is read in.")
    event: JSON = strawberry.field(
        description='What is published at each fire: {"type": …, "data": {…}}.'
    )
    paused: bool = strawberry.field(description="Whether it rests.")
    next_fire_at: datetime | None = strawberry.field(
        description="When it fires next; null while it is paused."
    )
    last_fired_at: datetime | None = strawberry.field(description="When it last fired.")

    @classmethod
    def of(cls, schedule: models.Schedule) -> Schedule:
        return cls(
            id=ID(str(schedule.id)),
            name=schedule.name,
            cron=schedule.cron,
            timezone=schedule.timezone,
            event=JSON(schedule.event),
            paused=schedule.paused,
            next_fire_at=None if schedule.paused else schedule.next_fire_at,
            last_fired_at=schedule.last_fired_at,
        )


@strawberry.input(description="What a schedule shall be.")
class ScheduleInput:
    name: str = strawberry.field(description="Unique, 1 to 100 characters.")
    cron: str = strawberry.field(description="Five fields: minute, hour, day, month, weekday.")
    timezone: str = strawberry.field(
        default="UTC", description="The IANA time zone that cron is read in."
    )
    event: JSON = strawberry.field(
        description='What to publish: {"type": …, "data": {…}} of type order.status_changed, '
        "promotion.announced or recommendations.requested."
    )

    def plan(self) -> Plan:
        return Plan(self.name, self.cron, self.timezone, self.event)


Id = Annotated[ID, strawberry.argument(description="The schedule's id.")]
ScheduleArgument = Annotated[
    ScheduleInput, strawberry.argument(description="What the schedule shall be.")
]


@strawberry.type
class ScheduleQuery:
    @strawberry.field(description="All schedules, by name. For ADMIN.", extensions=only(Role.ADMIN))
    async def schedules(self) -> list[Schedule]:
        return [Schedule.of(schedule) for schedule in await models.Schedule.all_by_name()]


@strawberry.type
class ScheduleMutation:
    @strawberry.mutation(description="Make a schedule. For ADMIN.", extensions=only(Role.ADMIN))
    async def create_schedule(self, info: Info, input: ScheduleArgument) -> Schedule:
        return Schedule.of(await info.context.services.schedules.create(input.plan()))

    @strawberry.mutation(description="Change a schedule. For ADMIN.", extensions=only(Role.ADMIN))
    async def update_schedule(self, info: Info, id: Id, input: ScheduleArgument) -> Schedule:
        return Schedule.of(await info.context.services.schedules.update(id, input.plan()))

    @strawberry.mutation(
        description="Let a schedule rest, or go on with its next fire. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def pause_schedule(
        self,
        info: Info,
        id: Id,
        paused: Annotated[bool, strawberry.argument(description="False: go on.")] = True,
    ) -> Schedule:
        return Schedule.of(await info.context.services.schedules.pause(id, paused))

    @strawberry.mutation(description="Delete a schedule. For ADMIN.", extensions=only(Role.ADMIN))
    async def delete_schedule(self, info: Info, id: Id) -> bool:
        await info.context.services.schedules.delete(id)
        return True

    @strawberry.mutation(
        description="Publish a schedule's event now, beside its fires. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def run_schedule(self, info: Info, id: Id) -> Accepted:
        return Accepted(event_id=ID(await info.context.services.schedules.run(id)))
