"""Links that unsubscribe with one click (RFC 8058): for what is sent outside the app.

A link is for one user and channel, and lasts for months, as mails do. It needs no session, ends
with none, and is good for nothing else: what it holds is signed as an access token is, but is of
another type and for another audience.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import jwt

from services.shared.clock import Clock
from services.shared.errors import NotFound
from services.shared.settings import Settings
from services.shared.vocabulary import MARKETING_TYPES, Channel, NotificationType
from services.users.consent import check_marketing
from services.users.tokens import SigningKeys

PATH: Final = "/unsubscribe"
_TYPE: Final = "unsubscribe+jwt"
_AUDIENCE: Final = "tidings/unsubscribe"
_LONGEST: Final = 1000


class BadLink(NotFound):
    """It is none of ours."""


class ExpiredLink(NotFound):
    """It was one of ours."""


@dataclass(frozen=True, slots=True)
class Link:
    """`url`: to be opened or posted to, until `expires_at`."""

    url: str
    expires_at: datetime

    @property
    def list_unsubscribe(self) -> str:
        """Value of a mail's header List-Unsubscribe."""
        return f"<{self.url}>"

    @property
    def list_unsubscribe_post(self) -> str:
        """Value of a mail's header List-Unsubscribe-Post."""
        return "List-Unsubscribe=One-Click"


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """What a link is for. `type`: None for all marketing, of whatever types there will be."""

    user_id: str
    channel: Channel
    type: NotificationType | None

    @property
    def types(self) -> tuple[NotificationType, ...]:
        if self.type is not None:
            return (self.type,)
        return tuple(one for one in NotificationType if one in MARKETING_TYPES)


class UnsubscribeLinks:
    def __init__(self, keys: SigningKeys, clock: Clock, settings: Settings) -> None:
        self._keys = keys.and_accepting(settings.unsubscribe_accepted_secrets)
        self._clock = clock
        self._life = timedelta(seconds=settings.unsubscribe_link_seconds)
        self._base = settings.base_url + PATH

    def make(self, user_id: str, channel: Channel, type_: NotificationType | None = None) -> Link:
        """A link for marketing of this type on this channel, or for all of it. Raises BadInput."""
        check_marketing(channel, {"type": type_} if type_ else {}, "channel")
        expires_at = (self._clock.now() + self._life).replace(microsecond=0)
        claims = {"sub": user_id, "channel": channel.value, "exp": int(expires_at.timestamp())}
        if type_ is not None:
            claims["type"] = type_.value
        return Link(f"{self._base}/{self._keys.sign(_TYPE, _AUDIENCE, claims)}", expires_at)

    def read(self, token: str) -> Unsubscription:
        """What the last part of a link's path is for. Raises BadLink and ExpiredLink."""
        try:
            if len(token) > _LONGEST:
                raise jwt.InvalidTokenError("It is longer than any of ours.")
            claims = self._keys.read(token, _TYPE, _AUDIENCE, ("sub", "exp", "channel"))
            type_ = NotificationType(claims["type"]) if "type" in claims else None
            found = Unsubscription(claims["sub"], Channel(claims["channel"]), type_)
        except (jwt.InvalidTokenError, ValueError) as error:
            raise BadLink("This link leads nowhere.") from error
        if datetime.fromtimestamp(claims["exp"], UTC) <= self._clock.now():
            raise ExpiredLink("This link has expired.")
        return found
