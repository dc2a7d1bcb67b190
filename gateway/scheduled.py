"""Notifications that go out later: scheduled, cancelled, and shown to operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID
from strawberry.scalars import JSON

from gateway.context import Info, only
from gateway.enums import (
    CancelOutcome,
    NotificationType,
    Role,
    ScheduledState,
    ScheduleOutcome,
    Scope,
)
from services.notifications import scheduled
from services.notifications.drafts import Asked
from services.notifications.plan import Plan
from services.shared.errors import BadInput


@strawberry.type(description="A notification that goes out at its time, if nobody cancels it.")
class ScheduledNotification:
    id: ID = strawberry.field(description="Its id; the notification has another.")
    user_id: ID = strawberry.field(description="Who gets it.")
    type: NotificationType = strawberry.field(description="What it is about.")
    title: str | None = strawberry.field(description="Its title, if one was given.")
    at: datetime = strawberry.field(description="When it goes out.")
    expires_at: datetime | None = strawberry.field(
        description="When it disappears, if that was given."
    )
    state: ScheduledState = strawberry.field(
        description="SUPPRESSED: at its time its recipient did not want it."
    )
    cancel_key: str | None = strawberry.field(description="The key that cancels it.")
    created_at: datetime = strawberry.field(description="When it was scheduled.")

    @classmethod
    def of(cls, row: scheduled.ScheduledNotification) -> ScheduledNotification:
        return cls(
            id=ID(str(row.id)),
            user_id=ID(row.user_id),
            type=row.type,
            title=row.title,
            at=row.at,
            expires_at=row.expires_at,
            state=row.state,
            cancel_key=row.cancel_key,
            created_at=row.created_at,
        )


@strawberry.type(description="What became of a notification that was to be scheduled.")
class ScheduleNotificationPayload:
    outcome: ScheduleOutcome = strawberry.field(
        description="CANCELLED: its cancelKey was cancelled before. DUPLICATE: its dedupKey was "
        "used before, and the first one is answered."
    )
    scheduled: ScheduledNotification = strawberry.field(description="It, as it stands.")


@strawberry.type(description="What became of a cancel.")
class CancelScheduledPayload:
    outcome: CancelOutcome = strawberry.field(
        description="CANCELLED: it does not go out, whoever cancelled it. TOO_LATE: it went out, "
        "or was suppressed, before; of several under a key, all of them."
    )


@strawberry.input(description="What the recipient may do that makes it needless: any of these.")
class CancelOnInput:
    order_status: str | None = strawberry.field(
        default=None,
        description="An order of theirs gets this status (order.status_changed): placed, say.",
    )
    order_id: ID | None = strawberry.field(
        default=None, description="Only this order. With orderStatus."
    )
    product_id: ID | None = strawberry.field(
        default=None, description="They buy this product (user.activity of kind PURCHASE)."
    )

    def given(self) -> scheduled.CancelOn:
        return scheduled.CancelOn(self.order_status, self.order_id, self.product_id)


@strawberry.input(description="A notification for one user, and when it goes out.")
class ScheduleNotificationInput:
    user_id: ID = strawberry.field(description="Who gets it.")
    type: NotificationType = strawberry.field(description="What it is about.")
    content: JSON = strawberry.field(
        description="A string (the body), or an object, whose title and body are shown."
    )
    title: str | None = strawberry.field(default=None, description="1 to 500 characters.")
    at: datetime | None = strawberry.field(
        default=None, description="The instant when it goes out; or else localAt."
    )
    local_at: str | None = strawberry.field(
        default=None,
        description="When clocks show this, 2026-12-24T18:00; or else at. Where they skip it, the "
        "next instant there is; where they show it twice, the first.",
    )
    timezone: str | None = strawberry.field(
        default=None, description="The IANA time zone of localAt; null: the recipient's own."
    )
    expires_at: datetime | None = strawberry.field(
        default=None,
        description="When it disappears, behind the time at which it goes out. Null: as for "
        "createNotification, from that time on.",
    )
    dedup_key: str | None = strawberry.field(
        default=None,
        description="The caller's own key: the same one again answers with the first one. "
        "createNotification's keys are others.",
    )
    cancel_key: str | None = strawberry.field(
        default=None, description="The caller's own key, which cancelScheduled takes."
    )
    cancel_on: CancelOnInput | None = strawberry.field(
        default=None, description="What cancels it, if it happens after it was scheduled."
    )

    def plan(self) -> Plan:
        return Plan(
            Asked(self.user_id, self.type, self.content, self.title, self.expires_at),
            at=self.at,
            local_at=self.local_at,
            timezone=self.timezone,
            dedup_key=self.dedup_key,
            cancel_key=self.cancel_key,
            cancel_on=self.cancel_on.given() if self.cancel_on else None,
        )


@strawberry.type
class ScheduledQuery:
    @strawberry.field(
        description="What waits to be sent to a user, the soonest first. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.CREATE_NOTIFICATIONS),
    )
    async def scheduled_notifications(
        self,
        info: Info,
        user_id: Annotated[ID, strawberry.argument(description="Who gets it.")],
        first: Annotated[int, strawberry.argument(description="How many.")] = 20,
    ) -> list[ScheduledNotification]:
        most = info.context.services.settings.max_page_size
        if not 0 <= first <= most:
            raise BadInput(f"Ask for 0 to {most} scheduled notifications.", "first")
        waiting = await scheduled.ScheduledNotification.waiting_for(user_id, first)
        return [ScheduledNotification.of(row) for row in waiting]


@strawberry.type
class ScheduledMutation:
    @strawberry.mutation(
        description="Notify one user at a time of the caller's choice; whether they want it is "
        "decided then. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.CREATE_NOTIFICATIONS),
    )
    async def schedule_notification(
        self,
        info: Info,
        input: Annotated[
            ScheduleNotificationInput, strawberry.argument(description="What, and when.")
        ],
    ) -> ScheduleNotificationPayload:
        outcome, row = await info.context.services.scheduling.schedule(
            input.plan(), await info.context.source()
        )
        return ScheduleNotificationPayload(outcome=outcome, scheduled=ScheduledNotification.of(row))

    @strawberry.mutation(
        description="Cancel one scheduled notification by its id, or all under the caller's "
        "cancelKey, with those that are scheduled within a day after it. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.CREATE_NOTIFICATIONS),
    )
    async def cancel_scheduled(
        self,
        info: Info,
        id: Annotated[
            ID | None, strawberry.argument(description="Its id; or else cancelKey.")
        ] = None,
        cancel_key: Annotated[
            str | None, strawberry.argument(description="The key of the caller's; or else id.")
        ] = None,
    ) -> CancelScheduledPayload:
        scheduling = info.context.services.scheduling
        if id is not None and cancel_key is not None:
            raise BadInput("Give an id or a cancelKey, not both.", "cancelKey")
        if id is not None:
            return CancelScheduledPayload(outcome=await scheduling.cancel(id))
        if cancel_key is None:
            raise BadInput("Give an id or a cancelKey.", "id")
        source = await info.context.source()
        return CancelScheduledPayload(outcome=await scheduling.cancel_by_key(cancel_key, source))
