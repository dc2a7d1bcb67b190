"""Notifications in GraphQL: pages, verbs and live."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID

from gateway.arguments import Whose, decode_cursor, span_of
from gateway.context import Info, only
from gateway.enums import NotificationType, Role, Scope
from gateway.notification_types import (
    CreateNotificationInput,
    CreateNotificationPayload,
    MarkAllPayload,
    Notification,
    NotificationChange,
    NotificationConnection,
    NotificationEdge,
    NotificationRevision,
    Recommendation,
)
from gateway.telling import Telling
from services.notifications import models, pages
from services.notifications.cursor import Cursor
from services.notifications.queries import Filter, unread, unseen
from services.notifications.revisions import Revision
from services.shared.errors import BadInput

Types = Annotated[
    list[NotificationType] | None,
    strawberry.argument(description="Only these types; null for all."),
]
After = Annotated[
    str | None,
    strawberry.argument(description="A cursor: everything since it, then live. Null: live only."),
]
AsShown = Annotated[
    int | None,
    strawberry.argument(
        description="The revision that was shown: nothing happens once there is a newer one. Null: "
        "whichever it is."
    ),
]
UpTo = Annotated[
    str | None,
    strawberry.argument(description="The newest cursor that was shown; later arrivals stay so."),
]


@strawberry.type
class NotificationQuery:
    @strawberry.field(
        description="The viewer's notifications, newest first. Give first (and after) or last "
        "(and before); without, the first page."
    )
    async def notifications(
        self,
        info: Info,
        first: Annotated[
            int | None, strawberry.argument(description="How many, from the newest.")
        ] = None,
        after: Annotated[
            str | None, strawberry.argument(description="Only older than this cursor.")
        ] = None,
        last: Annotated[
            int | None, strawberry.argument(description="How many, from the oldest.")
        ] = None,
        before: Annotated[
            str | None, strawberry.argument(description="Only newer than this cursor.")
        ] = None,
        unread_only: Annotated[bool, strawberry.argument(description="Only unread ones.")] = False,
        types: Types = None,
        archived: Annotated[
            bool, strawberry.argument(description="True: those put away, instead of the others.")
        ] = False,
        snoozed: Annotated[
            bool, strawberry.argument(description="True: those that sleep, instead of the others.")
        ] = False,
        user_id: Whose = None,
    ) -> NotificationConnection:
        owner = await info.context.owner(user_id)
        services = info.context.services
        page = await pages.page(
            services.together,
            owner,
            Filter(tuple(types) if types is not None else None, unread_only, archived, snoozed),
            span_of(first, after, last, before, services.settings),
            services.clock.now(),
            window=services.live.window,
            most_ids=services.settings.max_cursor_ids,
        )
        return NotificationConnection.of(page)

    @strawberry.field(description="One of the viewer's notifications; null when it is not theirs.")
    async def notification(
        self, info: Info, id: Annotated[ID, strawberry.argument(description="Its id.")]
    ) -> Notification | None:
        viewer = await info.context.viewer()
        row = await info.context.notification_by_key.load((viewer.user_id, id))
        return Notification.of(row) if row else None

    @strawberry.field(
        description="What one of the viewer's notifications said before it was revised, the newest "
        "first: the last few states (REVISIONS_KEPT). Empty when it is not theirs."
    )
    async def notification_revisions(
        self, info: Info, id: Annotated[ID, strawberry.argument(description="Its id.")]
    ) -> list[NotificationRevision]:
        viewer = await info.context.viewer()
        row = await info.context.notification_by_key.load((viewer.user_id, id))
        kept = info.context.services.settings.revisions_kept
        found = await Revision.of(viewer.user_id, row.id, kept) if row and row.id else []
        return [NotificationRevision.of(one) for one in found]

    @strawberry.field(description="How many of the viewer's notifications are unread.")
    async def unread_count(self, info: Info, types: Types = None) -> int:
        viewer = await info.context.viewer()
        now, chosen = info.context.services.clock.now(), tuple(types) if types is not None else None
        return await info.context.services.together.count(unread(viewer.user_id, chosen, now))

    @strawberry.field(
        description="How many of the viewer's notifications have come since they last looked: what "
        "a bell shows. See markAllNotificationsSeen."
    )
    async def unseen_count(self, info: Info) -> int:
        viewer = await info.context.viewer()
        now = info.context.services.clock.now()
        return await info.context.services.together.count(unseen(viewer.user_id, now))

    @strawberry.field(description="What the viewer may like, the best first.")
    async def recommendations(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many, up to 20.")] = 5,
    ) -> list[Recommendation]:
        viewer = await info.context.viewer()
        if not 0 <= first <= 20:
            raise BadInput("Ask for 0 to 20 recommendations.", "first")
        found = await info.context.services.notifications.recommendations(viewer.user_id, first)
        return [Recommendation.of(one) for one in found]


@strawberry.type
class NotificationMutation:
    @strawberry.mutation(description="Mark one of the viewer's notifications as read or unread.")
    async def mark_notification_read(
        self,
        info: Info,
        id: Annotated[ID, strawberry.argument(description="Its id.")],
        read: Annotated[bool, strawberry.argument(description="False: unread again.")] = True,
        revision: AsShown = None,
    ) -> Notification:
        viewer = await info.context.viewer()
        states = info.context.services.states
        return Notification.of(await states.set_read(viewer.user_id, id, read, revision))

    @strawberry.mutation(description="Mark all as read that was shown to the viewer.")
    async def mark_all_notifications_read(
        self,
        info: Info,
        up_to: UpTo = None,
    ) -> MarkAllPayload:
        viewer = await info.context.viewer()
        states = info.context.services.states
        marked = await states.mark_all_read(viewer.user_id, decode_cursor(up_to, "upTo"))
        return await _marked(info, viewer.user_id, marked)

    @strawberry.mutation(
        description="The viewer has looked: what was shown is seen, though not read."
    )
    async def mark_all_notifications_seen(self, info: Info, up_to: UpTo = None) -> MarkAllPayload:
        viewer = await info.context.viewer()
        states = info.context.services.states
        marked = await states.mark_all_seen(viewer.user_id, decode_cursor(up_to, "upTo"))
        return await _marked(info, viewer.user_id, marked)

    @strawberry.mutation(description="Put one of the viewer's notifications away, or take it back.")
    async def archive_notification(
        self,
        info: Info,
        id: Annotated[ID, strawberry.argument(description="Its id.")],
        archived: Annotated[bool, strawberry.argument(description="False: take it back.")] = True,
        revision: AsShown = None,
    ) -> Notification:
        viewer = await info.context.viewer()
        states = info.context.services.states
        return Notification.of(await states.set_archived(viewer.user_id, id, archived, revision))

    @strawberry.mutation(
        description="Have one of the viewer's notifications sleep: it is on no page and in no "
        "count until it comes back, at the top and unread."
    )
    async def snooze_notification(
        self,
        info: Info,
        id: Annotated[ID, strawberry.argument(description="Its id.")],
        until: Annotated[
            datetime | None, strawberry.argument(description="When it comes back. Null: now.")
        ] = None,
    ) -> Notification:
        viewer = await info.context.viewer()
        return Notification.of(await info.context.services.states.snooze(viewer.user_id, id, until))

    @strawberry.mutation(
        description="Notify one user. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.CREATE_NOTIFICATIONS),
    )
    async def create_notification(
        self,
        info: Info,
        input: Annotated[
            CreateNotificationInput, strawberry.argument(description="The notification.")
        ],
    ) -> CreateNotificationPayload:
        announcement = await info.context.services.notifications.create(
            input.user_id,
            input.type,
            input.content,
            title=input.title,
            dedup_key=input.dedup_key,
            expires_at=input.expires_at,
            collapse_key=input.collapse_key,
            version=input.version,
            unread_again=input.unread_again,
            source=await info.context.source(),
        )
        return CreateNotificationPayload.of(announcement)

    @strawberry.mutation(
        description="Send one notification with up to five products that a user may like."
    )
    async def create_recommendations(
        self,
        info: Info,
        user_id: Annotated[
            ID | None,
            strawberry.argument(description="For whom; others than the viewer: SERVICE, ADMIN."),
        ] = None,
    ) -> CreateNotificationPayload:
        announcement = await info.context.services.notifications.recommend(
            await info.context.subject(user_id, Scope.CREATE_NOTIFICATIONS),
            await info.context.source(),
        )
        return CreateNotificationPayload.of(announcement)


async def _marked(info: Info, user_id: str, marked: int) -> MarkAllPayload:
    now = info.context.services.clock.now()
    return MarkAllPayload(
        marked=marked,
        unread_count=await models.Notification.unread_count(user_id, None, now),
        unseen_count=await models.Notification.unseen_count(user_id, now),
    )


async def _edges(
    added: AsyncGenerator[tuple[Cursor, models.Notification], None],
) -> AsyncIterator[NotificationEdge]:
    """Apart from the resolver, whose `info` would stay as long as the subscription is open."""
    async with aclosing(added):
        async for cursor, row in added:
            yield NotificationEdge(cursor=cursor.encode(), node=Notification.of(row))


@strawberry.type
class NotificationSubscription:
    @strawberry.subscription(
        description="The viewer's new notifications, each once. One that is revised, or wakes, "
        "comes again: the same id with a later sentAt, to be put in the place of the one that is "
        "shown."
    )
    async def notification_added(
        self, info: Info, after: After = None, types: Types = None
    ) -> AsyncIterator[NotificationEdge]:
        began = info.context.services.clock.now()
        cursor = decode_cursor(after, "after")
        viewer = await info.context.follower()
        shown = tuple(types) if types is not None else None
        live, at_once = info.context.services.live, info.context.at_once
        teller = Telling(at_once, viewer.user_id) if at_once else None
        return _edges(live.added(viewer.user_id, cursor, shown, began, teller))

    @strawberry.subscription(
        description="What happens to the viewer's notifications, on whatever screen."
    )
    async def notification_changed(self, info: Info) -> AsyncIterator[NotificationChange]:
        began = info.context.services.clock.now()
        viewer = await info.context.follower()
        async for kind, rows, count in info.context.services.live.changed(viewer.user_id, began):
            for row in rows:
                yield NotificationChange(
                    kind=kind, notification=Notification.of(row), unread_count=count
                )

    @strawberry.subscription(description="The viewer's unread count now, and every change of it.")
    async def unread_count(self, info: Info) -> AsyncIterator[int]:
        viewer = await info.context.follower()
        async for count in info.context.services.live.unread_counts(viewer.user_id):
            yield count
