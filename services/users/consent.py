"""Consent to marketing outside the app: what needs it, and what was said of it. Pure.

It is given to one type on one channel (GDPR Art. 7: who, when, to what, how), and nothing else
stands in for it: no default, and no switch that was on before it was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from pydantic import BaseModel

from services.shared.clock import whole_milliseconds
from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput, Conflict
from services.shared.vocabulary import MARKETING_TYPES, Channel, NotificationType

REGISTRATION: Final = "registration"
PREFERENCES: Final = "preferences"
ONE_CLICK: Final = "one-click"
OWN_SOURCES: Final = frozenset({REGISTRATION, PREFERENCES, ONE_CLICK})
LONGEST_SOURCE: Final = 100
_LEEWAY: Final = timedelta(minutes=1)  # what the clocks of those who record may differ


class Consent(BaseModel, frozen=True):
    """What was last said of one type on one channel: given or withdrawn, when, and in what way."""

    given: bool
    at: datetime
    source: str


Consents = dict[NotificationType, dict[Channel, Consent]]


class Statement(NamedTuple):
    """Consent that somebody gives or withdraws."""

    type: NotificationType
    channel: Channel
    consent: Consent


def needs_consent(type_: NotificationType, channel: Channel) -> bool:
    return type_ in MARKETING_TYPES and channel is not Channel.IN_APP


def check_marketing(channel: Channel, types: Mapping[str, NotificationType], field: str) -> None:
    """Raises BadInput for what needs no consent. `types`: by their place in the caller's input;
    `field`: the channel's."""
    if channel is Channel.IN_APP:
        raise BadInput("In the app no consent is needed: name another channel.", field)
    for place, type_ in types.items():
        if type_ not in MARKETING_TYPES:
            raise BadInput(f"{type_.name} is no marketing: it needs no consent.", place)


def checked(consent: Consent, now: datetime) -> Consent:
    """As it is kept: what was said elsewhere. Raises BadInput with the path in `input`."""
    try:
        if consent.at.tzinfo is None:
            raise BadInput("Write at with its zone: 2026-12-24T18:00:00Z.", "input.at")
        at = whole_milliseconds(consent.at.astimezone(UTC))
    except OverflowError as error:
        raise BadInput("This lies beyond the calendar.", "input.at") from error
    if at > now + _LEEWAY:
        raise BadInput("This is still to come: record what was said.", "input.at")
    return Consent(given=consent.given, at=min(at, now), source=_checked_source(consent.source))


def _checked_source(source: str) -> str:
    source = source.strip()
    if not 1 <= len(source) <= LONGEST_SOURCE:
        raise BadInput(f"A source has 1 to {LONGEST_SOURCE} characters.", "input.source")
    try:
        check_content(source, "text")
    except ContentRefused as error:
        raise BadInput(str(error), "input.source") from error
    source = composed(source)
    if source.casefold() in OWN_SOURCES:
        raise BadInput("That is what users do here: name the form they filled in.", "input.source")
    return source


def said_anew(consents: Consents, said: Iterable[Statement]) -> list[Statement]:
    """Those that change what stands; of several about the same, the last one."""
    return [one for one in _last(said) if _differs(_standing(consents, one), one.consent)]


def recorded_anew(consents: Consents, said: Iterable[Statement]) -> list[Statement]:
    """Those that change what stands, or give it again later: in another way, perhaps in new words;
    of several about the same, the last one.

    For what was said elsewhere, and is heard of late. Less than a minute later is the same again:
    a clock that is fast says so of a call that is repeated. Raises Conflict for what was taken back
    meanwhile.
    """
    new = []
    for one in _last(said):
        standing = _standing(consents, one)
        if _differs(standing, one.consent):
            _refuse_what_came_before(standing, one)
            new.append(one)
        elif standing and one.consent.given and one.consent.at > standing.at + _LEEWAY:
            new.append(one)
    return new


def with_said(consents: Consents, said: Iterable[Statement]) -> Consents:
    """The consents with these in them."""
    merged = {type_: dict(channels) for type_, channels in consents.items()}
    for one in said:
        merged.setdefault(one.type, {})[one.channel] = one.consent
    return merged


def given_of(
    consents: Mapping[NotificationType, Mapping[Channel, Consent]],
    type_: NotificationType,
    channel: Channel,
) -> Consent | None:
    """The consent that counts, if there is one."""
    standing = consents.get(type_, {}).get(channel)
    return standing if standing is not None and standing.given else None


def _last(said: Iterable[Statement]) -> Iterable[Statement]:
    return {(one.type, one.channel): one for one in said}.values()


def _standing(consents: Consents, one: Statement) -> Consent | None:
    return consents.get(one.type, {}).get(one.channel)


def _differs(standing: Consent | None, consent: Consent) -> bool:
    return standing is None or standing.given != consent.given


def _refuse_what_came_before(standing: Consent | None, one: Statement) -> None:
    if standing is not None and one.consent.at < standing.at:
        verb = "given" if standing.given else "withdrawn"
        raise Conflict(
            f"Consent to {one.type.name} on {one.channel.name} was {verb} later than that, at "
            f"{standing.at.isoformat()}: the later word counts."
        )
