"""Headers that every answer of the gateway carries."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING_CSP: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "x-frame-options": "DENY",
    # What has no policy of its own is no page: it may load nothing.
    "content-security-policy": NOTHING_CSP,
}
_ENCODED: Final = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]


class SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.setdefault("headers", [])
                names = {name for name, _ in given}
                message["headers"] = [
                    *given,
                    *(header for header in _ENCODED if header[0] not in names),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
