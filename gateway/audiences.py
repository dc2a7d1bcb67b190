"""Audiences in GraphQL: their conditions, and who is in one."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry import ID

from gateway.enums import Channel, NotificationType
from services.notifications import audience, broadcasting


@strawberry.input(description="They want a type, and a channel of it, if one is given.")
class AcceptsInput:
    type: NotificationType = strawberry.field(description="They have not switched it off.")
    channel: Channel | None = strawberry.field(
        default=None,
        description="Nor this channel of it, or they have switched it on; with their consent, "
        "where one is needed.",
    )


@strawberry.input(description="What they did with products, at least once.")
class DeedsInput:
    within_days: int = strawberry.field(description="In the last so many days, 1 to 3650.")
    categories: list[str] | None = strawberry.field(
        default=None,
        description="With a product that is in any of these today; null: with any product.",
    )


@strawberry.input(
    description="Everybody for whom all holds that is given; of a list one is enough. Nothing "
    "given: everyone who may log in but the shop's backends."
)
class AudienceInput:
    locales: list[str] | None = strawberry.field(
        default=None,
        description="BCP 47 tags; de stands for de-AT, too. Who never gave one has en.",
    )
    timezones: list[str] | None = strawberry.field(
        default=None,
        description="IANA time zones, as User.timezone has them; names are compared, not clocks.",
    )
    tags: list[str] | None = strawberry.field(
        default=None, description="Tags that setUserTags gave."
    )
    created_from: datetime | None = strawberry.field(
        default=None, description="They registered at this instant, or later."
    )
    created_before: datetime | None = strawberry.field(
        default=None, description="They registered before this instant."
    )
    accepts: AcceptsInput | None = strawberry.field(
        default=None, description="They want to hear of it."
    )
    bought: DeedsInput | None = strawberry.field(default=None, description="They bought something.")
    viewed: DeedsInput | None = strawberry.field(default=None, description="They viewed something.")
    never_bought: bool | None = strawberry.field(
        default=None, description="True: they have never bought anything. False says nothing."
    )
    inactive_days: int | None = strawberry.field(
        default=None,
        description="They did nothing in the last so many days, 1 to 3650; or registered since.",
    )

    def read(self, place: str) -> audience.Audience:
        """Raises BadInput; `place` is where it stands in the arguments."""
        return audience.read(self, place)


@strawberry.type(description="Somebody in an audience.")
class Member:
    id: ID = strawberry.field(description="The user's id.")
    name: str = strawberry.field(description="Their name.")


@strawberry.type(description="Who is in an audience now.")
class AudienceCount:
    count: int = strawberry.field(description="How many.")
    is_exact: bool = strawberry.field(
        description="False: there was no time to count on, so it is at least so many."
    )
    sample: list[Member] = strawberry.field(
        description="The first of them who registered, up to ten."
    )

    @classmethod
    def of(cls, found: broadcasting.DryRun) -> AudienceCount:
        return cls(
            count=found.count,
            is_exact=found.is_exact,
            sample=[Member(id=ID(str(user.id)), name=user.name) for user in found.sample],
        )
