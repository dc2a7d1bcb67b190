"""What a user wants to hear: a sparse matrix of type × channel over defaults, and when. Pure.

A user's document holds only what they chose; the rest shows its default, so that a new type or
channel needs no migration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import BaseModel, Field

from services.shared.errors import BadInput
from services.shared.vocabulary import Channel, NotificationType
from services.users.consent import Consent, Consents, Statement, given_of, needs_consent
from services.users.quiet_hours import QuietChange, QuietChoices, QuietHours

DEFAULT_CHANNELS: Final[Mapping[NotificationType, frozenset[Channel]]] = {
    NotificationType.ORDER_UPDATE: frozenset({Channel.IN_APP, Channel.EMAIL, Channel.WEB_PUSH}),
    NotificationType.PROMOTION: frozenset({Channel.IN_APP}),
    NotificationType.RECOMMENDATION: frozenset({Channel.IN_APP}),
}
LOCKED: Final = frozenset({(NotificationType.ORDER_UPDATE, Channel.IN_APP)})


class TypeChoice(BaseModel):
    """What a user chose for one type. What is not here has its default."""

    enabled: bool | None = None
    channels: dict[Channel, bool] = Field(default_factory=dict)


Choices = dict[NotificationType, TypeChoice]
_PLACES: Final = {type_: place for place, type_ in enumerate(NotificationType)}
_CHANNEL_PLACES: Final = {channel: place for place, channel in enumerate(Channel)}


@dataclass(frozen=True, slots=True)
class ChannelPreference:
    """`consent`: the one that was given, where one is needed."""

    channel: Channel
    enabled: bool
    locked: bool
    needs_consent: bool
    consent: Consent | None

    @property
    def lacks_consent(self) -> bool:
        return self.needs_consent and self.consent is None


@dataclass(frozen=True, slots=True)
class TypePreference:
    """`channels`: one entry per channel, in the enum's order."""

    type: NotificationType
    enabled: bool
    channels: tuple[ChannelPreference, ...]

    def on(self, channel: Channel) -> ChannelPreference:
        return self.channels[_CHANNEL_PLACES[channel]]


@dataclass(frozen=True, slots=True)
class Preferences:
    """The whole matrix: one entry per type, in the enum's order.

    `timezone`: what quiet hours are read in; None: the shop's.
    """

    types: tuple[TypePreference, ...]
    version: int
    timezone: str | None
    quiet_hours: Mapping[Channel, QuietHours]

    def of(self, type_: NotificationType) -> TypePreference:
        return self.types[_PLACES[type_]]


@dataclass(frozen=True, slots=True)
class ChannelChange:
    channel: Channel
    enabled: bool


@dataclass(frozen=True, slots=True)
class TypeChange:
    """A wish to change one type; None leaves it as it is."""

    type: NotificationType
    enabled: bool | None
    channels: tuple[ChannelChange, ...]


@dataclass(frozen=True, slots=True)
class Wishes:
    """All that a user wishes to change at once; what is left out stays as it is."""

    types: tuple[TypeChange, ...] = ()
    quiet_hours: tuple[QuietChange, ...] = ()
    timezone: str | None = None


def resolve(
    choices: Choices,
    version: int,
    timezone: str | None = None,
    quiet_hours: QuietChoices | None = None,
    consents: Consents | None = None,
) -> Preferences:
    """The full matrix of what a user chose and what they left at its default."""
    types = tuple(_resolve_type(choices, consents or {}, type_) for type_ in NotificationType)
    return Preferences(types, version, timezone, quiet_hours or {})


def merge(choices: Choices, changes: Sequence[TypeChange], field: str) -> Choices:
    """The choices with the changes in them. Raises BadInput for what is locked.

    `field` is the path of the list of changes in the caller's input.
    """
    merged = {type_: choice.model_copy(deep=True) for type_, choice in choices.items()}
    for index, change in enumerate(changes):
        place = f"{field}[{index}]"
        choice = merged.setdefault(change.type, TypeChoice())
        if change.enabled is not None:
            _refuse_switching_off_a_locked_type(change, place)
            choice.enabled = change.enabled
        for number, channel in enumerate(change.channels):
            if (change.type, channel.channel) in LOCKED and not channel.enabled:
                raise BadInput(
                    f"{channel.channel.name} of {change.type.name} is locked and stays on; "
                    "leave it out.",
                    f"{place}.channels[{number}].enabled",
                )
            choice.channels[channel.channel] = channel.enabled
    return merged


def consents_in(changes: Sequence[TypeChange], at: datetime, source: str) -> Iterator[Statement]:
    """What the changes say of consent: to switch a channel on is to give it, off to withdraw it."""
    for change in changes:
        for one in change.channels:
            if needs_consent(change.type, one.channel):
                consent = Consent(given=one.enabled, at=at, source=source)
                yield Statement(change.type, one.channel, consent)


def switches(said: Iterable[Statement]) -> list[TypeChange]:
    """The changes that agree with what was said of consent."""
    return [
        TypeChange(one.type, None, (ChannelChange(one.channel, one.consent.given),)) for one in said
    ]


def channels_on(choices: Choices, type_: NotificationType) -> frozenset[Channel]:
    """Those on which this type is on; quicker than its place in the full matrix."""
    choice = choices.get(type_)
    if choice is None:
        return DEFAULT_CHANNELS[type_]
    if choice.enabled is False:
        return frozenset()
    return frozenset(channel for channel in Channel if _is_on(choice, type_, channel))


def is_off(choices: Choices, type_: NotificationType, channel: Channel) -> bool:
    """Whether the user switched it off, which is more than its being off by default."""
    choice = choices.get(type_)
    return choice is not None and choice.channels.get(channel) is False


def _is_on(choice: TypeChoice, type_: NotificationType, channel: Channel) -> bool:
    return choice.channels.get(channel, channel in DEFAULT_CHANNELS[type_])


def _resolve_type(choices: Choices, consents: Consents, type_: NotificationType) -> TypePreference:
    choice = choices.get(type_, TypeChoice())
    return TypePreference(
        type=type_,
        enabled=choice.enabled is not False,
        channels=tuple(
            ChannelPreference(
                channel=channel,
                enabled=_is_on(choice, type_, channel),
                locked=(type_, channel) in LOCKED,
                needs_consent=needs_consent(type_, channel),
                consent=given_of(consents, type_, channel),
            )
            for channel in Channel
        ),
    )


def _refuse_switching_off_a_locked_type(change: TypeChange, place: str) -> None:
    if not change.enabled and any(type_ is change.type for type_, _ in LOCKED):
        raise BadInput(
            f"{change.type.name} can't be switched off as a whole: a channel of it is locked. "
            "Switch single channels off instead.",
            f"{place}.enabled",
        )
