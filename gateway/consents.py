"""Consent to marketing, as GraphQL shows it: recorded, told again, and withdrawn by a link."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID

from gateway.context import Info, only
from gateway.enums import Channel, NotificationType, Role, Scope
from gateway.users import Preferences
from services.shared.errors import NotFound
from services.users import consent, links, models


@strawberry.type(description="That consent was given or withdrawn.")
class ConsentRecord:
    type: NotificationType = strawberry.field(description="To what.")
    channel: Channel = strawberry.field(description="On which channel.")
    given: bool = strawberry.field(description="False: withdrawn.")
    at: datetime = strawberry.field(description="When the user said so.")
    source: str = strawberry.field(
        description="How: registration, preferences or one-click; or what a backend named."
    )
    recorded_at: datetime = strawberry.field(description="When it was written down here.")
    recorded_by: ID | None = strawberry.field(
        description="The user, or the backend or admin that recorded it; null: whoever held an "
        "unsubscribe link."
    )

    @classmethod
    def of(cls, record: models.ConsentRecord) -> ConsentRecord:
        return cls(
            type=record.type,
            channel=record.channel,
            given=record.given,
            at=record.at,
            source=record.source,
            recorded_at=record.recorded_at,
            recorded_by=ID(record.recorded_by) if record.recorded_by else None,
        )


@strawberry.type(description="A link that unsubscribes with one click, for a mail (RFC 8058).")
class UnsubscribeLink:
    url: str = strawberry.field(description="For the mail's own words: it opens a page.")
    list_unsubscribe: str = strawberry.field(description="Value of the header List-Unsubscribe.")
    list_unsubscribe_post: str = strawberry.field(
        description="Value of the header List-Unsubscribe-Post."
    )
    expires_at: datetime = strawberry.field(description="When it ends.")

    @classmethod
    def of(cls, link: links.Link) -> UnsubscribeLink:
        return cls(
            url=link.url,
            list_unsubscribe=link.list_unsubscribe,
            list_unsubscribe_post=link.list_unsubscribe_post,
            expires_at=link.expires_at,
        )


@strawberry.input(description="What a user said of marketing outside the app, elsewhere.")
class RecordConsentInput:
    user_id: ID = strawberry.field(description="Who said it.")
    channel: Channel = strawberry.field(description="Any but IN_APP, which needs no consent.")
    types: list[NotificationType] = strawberry.field(
        description="To what: PROMOTION, RECOMMENDATION; the others need no consent."
    )
    at: datetime = strawberry.field(description="When they said it; not when it is recorded.")
    source: str = strawberry.field(
        description="How, so that it can be shown what they read: the form and its edition, in 1 "
        "to 100 characters: checkout 2026-11."
    )
    given: bool = strawberry.field(default=True, description="False: they withdrew it.")

    def consent(self) -> consent.Consent:
        return consent.Consent(given=self.given, at=self.at, source=self.source)


@strawberry.type
class ConsentQuery:
    @strawberry.field(
        description="What was said of marketing outside the app, the newest first: "
        "MAX_CONSENT_RECORDS for each type on each channel. The viewer's own."
    )
    async def consents(
        self,
        info: Info,
        user_id: Annotated[
            ID | None, strawberry.argument(description="Another's, for SERVICE and ADMIN.")
        ] = None,
    ) -> list[ConsentRecord]:
        subject = await info.context.subject(user_id, Scope.MANAGE_CONSENTS)
        return [ConsentRecord.of(one) for one in await models.ConsentRecord.of_user(subject)]

    @strawberry.field(
        description="A link by which a user unsubscribes from marketing, to be put into what is "
        "sent to them. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.MANAGE_CONSENTS),
    )
    async def unsubscribe_link(
        self,
        info: Info,
        user_id: Annotated[ID, strawberry.argument(description="Who gets the mail.")],
        channel: Annotated[Channel, strawberry.argument(description="The channel of it.")],
        type: Annotated[
            NotificationType | None,
            strawberry.argument(description="From this type; null: from all marketing."),
        ] = None,
    ) -> UnsubscribeLink:
        if await info.context.user_by_id.load(user_id) is None:
            raise NotFound(f"There is no user {user_id}.")
        return UnsubscribeLink.of(info.context.services.links.make(user_id, channel, type))


@strawberry.type
class ConsentMutation:
    @strawberry.mutation(
        description="Record what a user said of marketing elsewhere, and switch the channel on or "
        "off for them accordingly. A CONFLICT where they have said otherwise since then. For "
        "SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.MANAGE_CONSENTS),
    )
    async def record_consent(
        self,
        info: Info,
        input: Annotated[
            RecordConsentInput, strawberry.argument(description="Who, to what, when and how.")
        ],
    ) -> Preferences:
        viewer = await info.context.viewer(Scope.MANAGE_CONSENTS)
        return Preferences.of(
            await info.context.services.choosing.record_consent(
                input.user_id, input.channel, input.types, input.consent(), viewer.user_id
            )
        )
