"""Notifications and what belongs to them, as GraphQL shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import cast

import strawberry
from strawberry import ID
from strawberry.scalars import JSON

from gateway.context import Info
from gateway.enums import ChangeKind, Channel, DeliveryState, NotificationType, Outcome
from services.notifications import channels, models, pages, personalize, recommend, revisions
from services.notifications.drafts import Announcement
from services.notifications.shown import Shown


@strawberry.type(description="One notification of one user.")
class Notification:
    id: ID = strawberry.field(description="Its id.")
    user_id: ID = strawberry.field(description="Whose it is.")
    type: NotificationType = strawberry.field(description="What it is about.")
    title: str = strawberry.field(description="One line, ready to show as plain text.")
    body: str = strawberry.field(description="The words, ready to show as plain text.")
    content: JSON = strawberry.field(description="A string or an object, just as it was given.")
    sent_at: datetime = strawberry.field(description="When it was sent.")
    read: bool = strawberry.field(description="Whether the user has read it.")
    read_at: datetime | None = strawberry.field(description="When.")
    seen: bool = strawberry.field(
        description="Whether the user has looked since it came. What is read is seen."
    )
    archived: bool = strawberry.field(description="Whether the user has put it away.")
    snoozed_until: datetime | None = strawberry.field(
        description="It sleeps until then: it is on no page and in no count."
    )
    expires_at: datetime | None = strawberry.field(
        description="When it disappears from pages, counts and screens."
    )
    revision: int = strawberry.field(
        description="1, and more with every newer state that it was revised to, such as a newer "
        "status of its order."
    )

    @classmethod
    def of(cls, row: models.Notification | Shown) -> Notification:
        """A row that is shown has all of these, by the same names: it is not copied."""
        if isinstance(row, Shown):
            return cast(Notification, row)
        return cls(
            id=ID(str(row.id)),
            user_id=ID(row.user_id),
            type=row.type,
            title=row.title,
            body=row.body,
            content=row.content,
            sent_at=row.sent_at,
            read=row.read,
            read_at=row.read_at,
            seen=row.seen,
            archived=row.archived,
            snoozed_until=row.snoozed_until,
            expires_at=row.expires_at,
            revision=row.revision,
        )


@strawberry.type(description="What a notification said before it was revised.")
class NotificationRevision:
    revision: int = strawberry.field(description="Which: 1 is the first.")
    title: str = strawberry.field(description="One line, ready to show as plain text.")
    body: str = strawberry.field(description="The words, ready to show as plain text.")
    content: JSON = strawberry.field(description="A string or an object, just as it was given.")
    sent_at: datetime = strawberry.field(description="When it was sent.")

    @classmethod
    def of(cls, row: revisions.Revision) -> NotificationRevision:
        return cls(
            revision=row.revision,
            title=row.title,
            body=row.body,
            content=row.content,
            sent_at=row.sent_at,
        )


@strawberry.type(description="Where a page stands in the list (Relay Cursor Connections).")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether older ones follow.")
    has_previous_page: bool = strawberry.field(description="Whether newer ones come before.")
    start_cursor: str | None = strawberry.field(description="The first edge's cursor.")
    end_cursor: str | None = strawberry.field(description="The last edge's cursor.")


@strawberry.type(description="A notification in a list.")
class NotificationEdge:
    cursor: str = strawberry.field(
        description="Opaque; for paging, and for resuming notificationAdded."
    )
    node: Notification = strawberry.field(description="The notification.")


@strawberry.type(description="A page of notifications, newest first (Relay Cursor Connections).")
class NotificationConnection:
    edges: list[NotificationEdge] = strawberry.field(description="The notifications.")
    page_info: PageInfo = strawberry.field(description="Where this page stands.")

    @classmethod
    def of(cls, page: pages.Page) -> NotificationConnection:
        edges = [
            NotificationEdge(cursor=cursor.encode(), node=Notification.of(row))
            for cursor, row in zip(page.cursors, page.rows, strict=True)
        ]
        return cls(
            edges=edges,
            page_info=PageInfo(
                has_next_page=page.has_next,
                has_previous_page=page.has_previous,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


@strawberry.type(description="Something that happened to a notification, on whatever screen.")
class NotificationChange:
    kind: ChangeKind = strawberry.field(description="What happened.")
    notification: Notification = strawberry.field(description="As it is now.")
    unread_count: int = strawberry.field(description="How many are unread now.")

    @strawberry.field(description="How many are unseen now.")
    async def unseen_count(self, info: Info) -> int:
        now = info.context.services.clock.now()
        return await models.Notification.unseen_count(self.notification.user_id, now)


@strawberry.type(description="What markAllNotificationsRead, or …Seen, did.")
class MarkAllPayload:
    marked: int = strawberry.field(description="How many it has changed.")
    unread_count: int = strawberry.field(description="How many are unread now.")
    unseen_count: int = strawberry.field(description="How many are unseen now.")


@strawberry.type(description="A product that a user may like.")
class Recommendation:
    product_id: ID = strawberry.field(description="The shop's own id.")
    name: str = strawberry.field(description="The product's name.")
    score: float = strawberry.field(description="How sure we are, above 0 and up to 1.")
    reason: str = strawberry.field(description="Why, in words for the user.")

    @classmethod
    def of(cls, found: recommend.Recommendation) -> Recommendation:
        return cls(
            product_id=ID(found.product_id),
            name=found.name,
            score=found.score,
            reason=found.reason,
        )


@strawberry.type(description="What was decided about one notification for one user, and why.")
class Decision:
    outcome: Outcome = strawberry.field(description="What was decided.")
    reason: str = strawberry.field(description=f"A stable code: {', '.join(personalize.Reason)}.")
    until: datetime | None = strawberry.field(description="When a HELD one is decided anew.")


@strawberry.type(description="What was decided on a channel besides the app.")
class ChannelDecision:
    channel: Channel = strawberry.field(description="Which: one that is on.")
    outcome: Outcome = strawberry.field(description="What was decided last.")
    reason: str = strawberry.field(description=f"A stable code: {', '.join(personalize.Reason)}.")
    until: datetime | None = strawberry.field(description="What a HELD one waits for.")
    state: DeliveryState | None = strawberry.field(
        description="Where its delivery stands; null where there is none, or none any more."
    )

    @classmethod
    def of(cls, found: channels.ChannelDecision) -> ChannelDecision:
        return cls(
            channel=found.channel,
            outcome=found.outcome,
            reason=found.reason,
            until=found.until,
            state=found.state,
        )


@strawberry.type(description="What became of a notification that was asked for.")
class CreateNotificationPayload:
    notification: Notification | None = strawberry.field(
        description="Null when it was HELD or SUPPRESSED; the newer one when it was SUPERSEDED."
    )
    decision: Decision = strawberry.field(
        description="What was decided about it in the app, and why."
    )
    channels: list[ChannelDecision] = strawberry.field(
        description="What was decided on the other channels that are on for it."
    )

    @classmethod
    def of(cls, announcement: Announcement) -> CreateNotificationPayload:
        row, decision = announcement.notification, announcement.decision
        return cls(
            notification=Notification.of(row) if row else None,
            decision=Decision(
                outcome=decision.outcome, reason=decision.reason, until=decision.until
            ),
            channels=[
                ChannelDecision.of(channels.ChannelDecision.of(channel, decided))
                for channel, decided in announcement.channels.items()
            ],
        )


@strawberry.input(description="A notification for one user.")
class CreateNotificationInput:
    user_id: ID = strawberry.field(description="Who gets it.")
    type: NotificationType = strawberry.field(description="What it is about.")
    content: JSON = strawberry.field(
        description="A string (the body), or an object, whose title and body are shown."
    )
    title: str | None = strawberry.field(default=None, description="1 to 500 characters.")
    dedup_key: str | None = strawberry.field(
        default=None,
        description="The caller's own key: the same one again answers with the first notification.",
    )
    expires_at: datetime | None = strawberry.field(
        default=None,
        description="When it disappears. Null: a promotion after 7 days, a recommendation after "
        "14, an order update never (settings of the server).",
    )
    collapse_key: str | None = strawberry.field(
        default=None,
        description="What it is a state of: a newer one revises the notification of the same key, "
        "user and type instead of adding another. `order:ID` is that of the order's updates.",
    )
    version: int | None = strawberry.field(
        default=None,
        description="Of the state: a lower one that comes later is SUPERSEDED; of equal ones, and "
        "of those without, the later one is newer. One with a version is newer than one without.",
    )
    unread_again: bool = strawberry.field(
        default=True,
        description="False: a revision leaves it read, archived and snoozed as it was.",
    )
