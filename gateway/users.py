"""Users, their preferences and what they do in the shop, as GraphQL shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID

from gateway.arguments import checked_first
from gateway.context import Info, only
from gateway.enums import ActivityKind, Channel, NotificationType, Role, Scope
from gateway.quiet_hours import QuietHours, QuietHoursInput
from services.shared.errors import NotFound
from services.users import consent, models, preferences, searching
from services.users.preferences import ChannelChange, TypeChange, Wishes


@strawberry.type(description="That a user agreed to marketing of a type on a channel.")
class Consent:
    at: datetime = strawberry.field(description="When.")
    source: str = strawberry.field(
        description="How: registration or preferences; or what a backend named."
    )

    @classmethod
    def of(cls, given: consent.Consent) -> Consent:
        return cls(at=given.at, source=given.source)


@strawberry.type(description="How a channel stands for one type.")
class ChannelPreference:
    channel: Channel = strawberry.field(description="The channel.")
    enabled: bool = strawberry.field(description="Whether it is used.")
    locked: bool = strawberry.field(description="Whether the user can't switch it off.")
    consent: Consent | None = strawberry.field(
        description="What lets marketing out on a channel other than IN_APP: without it nothing "
        "is sent there. Null where none was given, or none is needed."
    )


@strawberry.type(description="What a user wants of one type.")
class TypePreference:
    type: NotificationType = strawberry.field(description="The type.")
    enabled: bool = strawberry.field(description="False: none of this type, on no channel.")
    channels: list[ChannelPreference] = strawberry.field(
        description="One entry for every channel, in the enum's order."
    )


@strawberry.type(description="What a user wants to hear; what was never set shows its default.")
class Preferences:
    types: list[TypePreference] = strawberry.field(
        description="One entry for every notification type, in the enum's order."
    )
    quiet_hours: list[QuietHours] = strawberry.field(
        description="The channels that have any, in the enum's order."
    )
    version: int = strawberry.field(description="Rises with every change.")
    own_timezone: strawberry.Private[str | None]

    @strawberry.field(description="What quiet hours are read in: see User.timezone.")
    def timezone(self, info: Info) -> str:
        return _timezone(self.own_timezone, info)

    @classmethod
    def of(cls, matrix: preferences.Preferences) -> Preferences:
        return cls(
            types=[
                TypePreference(
                    type=entry.type,
                    enabled=entry.enabled,
                    channels=[
                        ChannelPreference(
                            channel=channel.channel,
                            enabled=channel.enabled,
                            locked=channel.locked,
                            consent=Consent.of(channel.consent) if channel.consent else None,
                        )
                        for channel in entry.channels
                    ],
                )
                for entry in matrix.types
            ],
            quiet_hours=[
                QuietHours.of(channel, matrix.quiet_hours[channel])
                for channel in Channel
                if channel in matrix.quiet_hours
            ],
            version=matrix.version,
            own_timezone=matrix.timezone,
        )


@strawberry.type(description="A customer, or a shop's backend (role SERVICE), or an operator.")
class User:
    id: ID = strawberry.field(description="The user's id: what events call `userId`.")
    name: str = strawberry.field(description="As the user gave it.")
    email: str = strawberry.field(description="The address, normalised.")
    role: Role = strawberry.field(description="What the user may do.")
    locale: str = strawberry.field(description="A BCP 47 tag.")
    created_at: datetime = strawberry.field(description="When the user registered.")
    disabled_at: datetime | None = strawberry.field(
        description="Since when an admin lets nobody log in as this user; null: they may."
    )
    preferences: Preferences = strawberry.field(description="What the user wants to hear.")
    own_timezone: strawberry.Private[str | None]
    own_tags: strawberry.Private[list[str]]

    @strawberry.field(
        description="The shop's words for this user. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.READ_USERS),
    )
    async def tags(self) -> list[str]:
        return self.own_tags

    @strawberry.field(description="An IANA time zone: the user's own, or else SHOP_TIMEZONE.")
    def timezone(self, info: Info) -> str:
        return _timezone(self.own_timezone, info)

    @classmethod
    def of(cls, user: models.User) -> User:
        return cls(
            id=ID(str(user.id)),
            name=user.name,
            email=user.email,
            role=user.role,
            locale=user.locale,
            created_at=user.created_at,
            disabled_at=user.disabled_at,
            preferences=Preferences.of(user.preferences),
            own_timezone=user.timezone,
            own_tags=user.tags,
        )


@strawberry.input(description="A wish about one channel of a type.")
class ChannelPreferenceInput:
    channel: Channel = strawberry.field(description="The channel.")
    enabled: bool = strawberry.field(
        description="Whether to use it. To switch marketing on outside the app is to give consent "
        "to it, and off to withdraw it: name what the user touched, and nothing else."
    )


@strawberry.input(description="A wish about one type; what is left out stays as it is.")
class TypePreferenceInput:
    type: NotificationType = strawberry.field(description="The type.")
    enabled: bool | None = strawberry.field(
        default=None, description="False: none of this type. ORDER_UPDATE can't be switched off."
    )
    channels: list[ChannelPreferenceInput] | None = strawberry.field(
        default=None, description="Single channels."
    )

    def change(self) -> TypeChange:
        channels = [ChannelChange(one.channel, one.enabled) for one in self.channels or []]
        return TypeChange(self.type, self.enabled, tuple(channels))


@strawberry.input(description="Changes that are merged into the preferences.")
class PreferencesInput:
    types: list[TypePreferenceInput] | None = strawberry.field(
        default=None, description="The types to change."
    )
    quiet_hours: list[QuietHoursInput] | None = strawberry.field(
        default=None, description="The channels whose quiet hours to change."
    )
    timezone: str | None = strawberry.field(
        default=None, description="The user's IANA time zone, from now on."
    )
    version: int | None = strawberry.field(
        default=None, description="The version that was read; another one is a CONFLICT."
    )

    def wishes(self) -> Wishes:
        return Wishes(
            types=tuple(one.change() for one in self.types or []),
            quiet_hours=tuple(one.change() for one in self.quiet_hours or []),
            timezone=self.timezone,
        )


@strawberry.input(description="Something a user did.")
class ActivityInput:
    kind: ActivityKind = strawberry.field(description="What was done.")
    product_id: ID = strawberry.field(description="With which product: the shop's own id.")
    user_id: ID | None = strawberry.field(
        default=None, description="Whose activity it is; only for SERVICE and ADMIN."
    )


@strawberry.type
class UserQuery:
    @strawberry.field(description="The viewer.")
    async def me(self, info: Info) -> User:
        viewer = await info.context.viewer()
        return User.of(await _existing(info, viewer.user_id))

    @strawberry.field(description="What the viewer wants to hear.")
    async def preferences(self, info: Info) -> Preferences:
        viewer = await info.context.viewer()
        return Preferences.of((await _existing(info, viewer.user_id)).preferences)

    @strawberry.field(
        description="Any user. For SERVICE and ADMIN.",
        extensions=only(Role.SERVICE, Role.ADMIN, scope=Scope.READ_USERS),
    )
    async def user(
        self, info: Info, id: Annotated[ID, strawberry.argument(description="The user's id.")]
    ) -> User | None:
        user = await info.context.user_by_id.load(id)
        if user is None:
            return None
        await info.context.note_look(str(user.id))
        return User.of(user)

    @strawberry.field(
        description="Users whose address or name begins with some text, whatever its case, or "
        "whose id it is: up to MAX_PAGE_SIZE, by id, then by address, then by name. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def users(
        self,
        info: Info,
        search: Annotated[
            str, strawberry.argument(description="The beginning of an address or a name; or an id.")
        ],
        first: Annotated[int, strawberry.argument(description="How many.")] = 20,
    ) -> list[User]:
        most = checked_first(first, info.context.services.settings)
        found = await searching.search(search, most)
        await info.context.note("users_searched", found=[str(user.id) for user in found])
        return [User.of(user) for user in found]


@strawberry.type
class UserMutation:
    @strawberry.mutation(description="Change what the viewer wants to hear.")
    async def update_preferences(
        self,
        info: Info,
        input: Annotated[PreferencesInput, strawberry.argument(description="The changes.")],
    ) -> Preferences:
        viewer = await info.context.viewer()
        return Preferences.of(
            await info.context.services.choosing.update_preferences(
                viewer.user_id, input.wishes(), input.version
            )
        )

    @strawberry.mutation(description="Tell what a user does in the shop; feeds recommendations.")
    async def track_activity(
        self,
        info: Info,
        input: Annotated[ActivityInput, strawberry.argument(description="What was done.")],
    ) -> bool:
        user_id = await info.context.subject(input.user_id, Scope.TRACK_ACTIVITY)
        await info.context.services.users.track(user_id, input.kind, input.product_id)
        return True


def _timezone(own: str | None, info: Info) -> str:
    return own or info.context.services.settings.shop_timezone


async def _existing(info: Info, user_id: str) -> models.User:
    user = await info.context.user_by_id.load(user_id)
    if user is None:
        raise NotFound("The user does not exist any more.")
    return user
