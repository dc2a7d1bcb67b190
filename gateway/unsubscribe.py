"""Where links of mails lead that unsubscribe (RFC 8058): a page with a button, and what it does.

Mail programs open links by themselves: to open one changes nothing. They also post to it, when
their user says so, without cookies and without following where they are sent; the button posts the
same. The page needs nothing from elsewhere, and shows nothing of whose it is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from pymongo.errors import PyMongoError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from gateway.context import Services
from gateway.http import Refused, read_body
from services.shared.errors import BadInput, NotFound, Unavailable
from services.shared.store import is_away
from services.shared.vocabulary import Channel, NotificationType
from services.users.links import ExpiredLink, Unsubscription
from services.users.models import User

_FIELD: Final = "List-Unsubscribe"
_CLICK: Final = "One-Click"
_MOST_BYTES: Final = 4096  # of a body that says just that

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:1.1rem/1.5 system-ui,sans-serif;margin:12vh auto;max-width:32rem;padding:0 1.5rem}"
    "h1{font-size:1.5rem}"
    "button{font:inherit;padding:.6rem 1.4rem}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_CSP: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_STYLE_HASH}'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_PAGE: Final = """\
<!doctype html>
<html lang="{language}">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="robots" content="noindex">
    <title>{title}</title>
    <style>{style}</style>
  </head>
  <body>
    <h1>{title}</h1>
    <p>{text}</p>
    {form}
  </body>
</html>
"""
_FORM: Final = (
    f'<form method="post"><input type="hidden" name="{_FIELD}" value="{_CLICK}">'
    "<button>{button}</button></form>"
)


@dataclass(frozen=True, slots=True)
class _Words:
    """`what` in `ask` and `done`: a type on a channel. `all`: marketing of any type."""

    language: str
    title: str
    button: str
    ask: str
    done: str
    expired: str
    nowhere: str
    misunderstood: str
    later: str
    all: str
    types: Mapping[NotificationType, str]
    channels: Mapping[Channel, str]

    def what(self, wish: Unsubscription) -> str:
        types = self.types[wish.type] if wish.type else self.all
        return f"{types} {self.channels[wish.channel]}"


_WORDS: Final = (
    _Words(
        language="en",
        title="Unsubscribe",
        button="Unsubscribe",
        ask="Do you want no more {what}?",
        done="You get no more {what}. You can change that in the shop at any time.",
        expired="This link has expired. Please unsubscribe in the shop, in your preferences.",
        nowhere="This link leads nowhere. Please open it as it stands in your mail, or unsubscribe "
        "in the shop, in your preferences.",
        misunderstood="That was not understood. Please open the link again and press the button.",
        later="That did not work just now. Please try again in a moment.",
        all="marketing",
        types={
            NotificationType.PROMOTION: "promotions",
            NotificationType.RECOMMENDATION: "recommendations",
        },
        channels={
            Channel.EMAIL: "by email",
            Channel.WEB_PUSH: "as push messages",
            Channel.WEBHOOK: "by webhook",
        },
    ),
    _Words(
        language="de",
        title="Abbestellen",
        button="Abbestellen",
        ask="Möchten Sie keine {what} mehr bekommen?",
        done="Sie bekommen keine {what} mehr. Das können Sie im Shop jederzeit ändern.",
        expired="Dieser Link ist abgelaufen. Bitte bestellen Sie im Shop ab, in Ihren "
        "Einstellungen.",
        nowhere="Dieser Link führt nirgendwohin. Bitte öffnen Sie ihn so, wie er in Ihrer E-Mail "
        "steht, oder bestellen Sie im Shop ab, in Ihren Einstellungen.",
        misunderstood="Das wurde nicht verstanden. Bitte öffnen Sie den Link noch einmal und "
        "drücken Sie den Knopf.",
        later="Das hat gerade nicht geklappt. Bitte versuchen Sie es gleich noch einmal.",
        all="Werbung",
        types={
            NotificationType.PROMOTION: "Angebote",
            NotificationType.RECOMMENDATION: "Empfehlungen",
        },
        channels={
            Channel.EMAIL: "per E-Mail",
            Channel.WEB_PUSH: "als Push-Nachrichten",
            Channel.WEBHOOK: "per Webhook",
        },
    ),
)


class UnsubscribePage:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings

    async def answer(self, request: Request) -> Response:
        """A page, whoever asks: what posts for a user looks at the status alone."""
        words = _words_of(request.headers.get("accept-language", ""))
        try:
            async with asyncio.timeout(self._settings.operation_seconds):
                return await self._answer(request)
        except ExpiredLink:
            return _page(words, words.expired, status=410)
        except NotFound:
            return _page(words, words.nowhere, status=404)
        except Refused as refused:
            return _page(words, words.misunderstood, status=refused.status, headers=refused.headers)
        except (TimeoutError, Unavailable):
            return _page(words, words.later, status=503)
        except PyMongoError as error:
            if not is_away(error):
                raise
            return _page(words, words.later, status=503)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody

    async def _answer(self, request: Request) -> Response:
        wish = self._services.links.read(request.path_params["token"])
        if request.method == "POST":
            await self._check(request)
            user = await self._services.choosing.unsubscribe(wish.user_id, wish.channel, wish.types)
            words = _words_of(user.locale)
            return _page(words, words.done.format(what=words.what(wish)))
        reader = await User.by_id(wish.user_id)
        if reader is None:
            raise NotFound("The user does not exist any more.")
        words = _words_of(reader.locale)
        form = _FORM.format(button=words.button)
        return _page(words, words.ask.format(what=words.what(wish)), form=form)

    async def _check(self, request: Request) -> None:
        """Raises Refused for a body that does not say that it is a click."""
        body = await read_body(request, self._settings)
        if len(body) > _MOST_BYTES:
            raise Refused(413, BadInput(f"Send {_FIELD}={_CLICK}, and no more.", "request"))
        if _fields(request.headers.get("content-type", ""), body).get(_FIELD) != _CLICK:
            raise Refused(400, BadInput(f"Send {_FIELD}={_CLICK} as a form does.", "request"))


def _words_of(tag: str) -> _Words:
    """In the language of a BCP 47 tag, or of an Accept-Language that names it first."""
    language = tag.partition(",")[0].partition("-")[0].strip().lower()
    return next((words for words in _WORDS if words.language == language), _WORDS[0])


def _fields(content_type: str, body: bytes) -> Mapping[str, str]:
    """A form's fields: mail programs send it as either of the two types (RFC 8058, 3.2)."""
    if not content_type.lower().startswith("multipart/"):
        return dict(parse_qsl(body.decode("latin-1")))
    head = f"content-type: {content_type}\r\n\r\n".encode("latin-1")
    named = partial(Message.get_param, param="name", header="content-disposition")
    try:
        parts = message_from_bytes(head + body).walk()
        return {str(named(part)): str(part.get_payload()).strip() for part in parts}
    except (TypeError, ValueError):  # so the parser says that parameters are odd (RFC 2231)
        return {}


def _page(
    words: _Words,
    text: str,
    *,
    status: int = 200,
    form: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    content = _PAGE.format(
        language=words.language, title=words.title, style=_STYLE, text=text, form=form
    )
    policy = {"content-security-policy": PAGE_CSP, "cache-control": "no-store"}
    return HTMLResponse(content, status, {**policy, **(headers or {})})
