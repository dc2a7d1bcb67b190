"""Why in GraphQL: what was decided about a notification, or about one that did not come."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import strawberry
from strawberry import ID

from gateway.arguments import Whose, row_id, span_of
from gateway.context import Info, only
from gateway.enums import Channel, DecisionRule, MessageClass, NotificationType, Outcome, Role
from gateway.notification_types import ChannelDecision, PageInfo
from services.notifications import models, personalize, traces
from services.shared.errors import BadInput

_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9000  # quiet hours look ahead


@strawberry.type(description="A rule that was asked.")
class DecisionStep:
    rule: DecisionRule = strawberry.field(description="Which.")
    spoke: bool = strawberry.field(description="Whether it decided: the first that speaks does.")
    words: str = strawberry.field(description="What it found, in words for the user.")


@strawberry.type(description="What was decided, and why.")
class Explanation:
    type: NotificationType = strawberry.field(description="What the notification is about.")
    message_class: MessageClass = strawberry.field(description="By the server's policy.")
    channel: Channel = strawberry.field(
        description="The way that was decided on: IN_APP, but for a dry run."
    )
    outcome: Outcome = strawberry.field(description="What was decided.")
    reason: str = strawberry.field(description=f"A stable code: {', '.join(personalize.Reason)}.")
    until: datetime | None = strawberry.field(description="When a HELD one is decided anew.")
    at: datetime = strawberry.field(description="When it was decided.")
    preferences_version: int = strawberry.field(description="Of the preferences that counted.")
    title: str | None = strawberry.field(description="The notification's; null in a dry run.")
    notification_id: ID | None = strawberry.field(description="Of what was sent.")
    steps: list[DecisionStep] = strawberry.field(
        description="The rules that were asked, in their order."
    )
    channels: list[ChannelDecision] = strawberry.field(
        description="What was decided on the other channels that are on for it, as it stands now; "
        "none in a dry run."
    )

    @classmethod
    def of(cls, found: traces.Explanation) -> Explanation:
        return cls(
            type=found.type,
            message_class=found.message_class,
            channel=found.channel,
            outcome=found.outcome,
            reason=found.reason,
            until=found.until,
            at=found.at,
            preferences_version=found.preferences_version,
            title=found.title or None,
            notification_id=ID(found.notification_id) if found.notification_id else None,
            steps=[
                DecisionStep(rule=rule, spoke=spoke, words=words)
                for rule, spoke, words in found.steps
            ],
            channels=[ChannelDecision.of(one) for one in found.channels],
        )


@strawberry.type(description="A decision in a list.")
class DecisionEdge:
    cursor: str = strawberry.field(description="Opaque; for paging.")
    node: Explanation = strawberry.field(description="The decision.")


@strawberry.type(description="A page of decisions, newest first (Relay Cursor Connections).")
class DecisionConnection:
    edges: list[DecisionEdge] = strawberry.field(description="The decisions.")
    page_info: PageInfo = strawberry.field(description="Where this page stands.")


@strawberry.type
class ExplanationQuery:
    @strawberry.field(
        description="Why the viewer got this notification. Null when it is not theirs, has "
        "expired, or was decided longer ago than is remembered."
    )
    async def explain(
        self,
        info: Info,
        notification_id: Annotated[ID, strawberry.argument(description="Its id.")],
        user_id: Whose = None,
    ) -> Explanation | None:
        owner = await info.context.owner(user_id)
        now = info.context.services.clock.now()
        row = await models.Notification.one(owner, notification_id, now)
        found = traces.explanation_of(row, _remembered(info)) if row else None
        if found is None:
            return None
        [found] = await traces.as_they_stand(owner, [found])
        return Explanation.of(found)

    @strawberry.field(description="What the viewer did not get, newest first, and why.")
    async def decisions(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description="How many.")] = None,
        after: Annotated[
            str | None, strawberry.argument(description="Only older than this cursor.")
        ] = None,
        user_id: Whose = None,
    ) -> DecisionConnection:
        owner = await info.context.owner(user_id)
        size = span_of(first, None, None, None, info.context.services.settings).size
        rows = await traces.Trace.of_user(
            owner, _remembered(info), row_id(after, "after"), size + 1
        )
        came = await traces.Trace.sent_later(rows)
        shown = [row for row in rows[:size] if row.event not in came]
        found = await traces.as_they_stand(owner, [row.explanation for row in shown])
        edges = [
            DecisionEdge(cursor=str(row.id), node=Explanation.of(one))
            for row, one in zip(shown, found, strict=True)
        ]
        return DecisionConnection(
            edges=edges,
            page_info=PageInfo(
                has_next_page=len(rows) > size,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )

    @strawberry.field(
        description="What became of an event for a user: one decision, as a rule. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def explain_event(
        self,
        info: Info,
        event_id: Annotated[ID, strawberry.argument(description="The event's id, or a dedupKey.")],
        user_id: Annotated[ID, strawberry.argument(description="For whom.")],
    ) -> list[Explanation]:
        found = await traces.explanations(event_id, user_id, _remembered(info))
        if found:
            await info.context.note_look(user_id)
        return [Explanation.of(one) for one in await traces.as_they_stand(user_id, found)]

    @strawberry.field(
        description="What would be decided about a notification, without sending one. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def decide_dry_run(
        self,
        info: Info,
        user_id: Annotated[ID, strawberry.argument(description="For whom.")],
        type: Annotated[NotificationType, strawberry.argument(description="What it is about.")],
        channel: Annotated[
            Channel, strawberry.argument(description="On which way.")
        ] = Channel.IN_APP,
        at: Annotated[
            datetime | None, strawberry.argument(description="At which instant; null: now.")
        ] = None,
    ) -> Explanation:
        if at is not None and (at.tzinfo is None or not _FIRST_YEAR < at.year < _LAST_YEAR):
            raise BadInput("Give a time of ours with its zone: 2026-01-31T12:00:00Z.", "at")
        found = await info.context.services.announcing.dry_run(user_id, type, channel, at)
        await info.context.note_look(user_id)
        return Explanation.of(found)


def _remembered(info: Info) -> datetime:
    services = info.context.services
    return traces.since(services.clock.now(), services.settings.trace_seconds)
