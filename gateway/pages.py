"""What a browser is shown: the demo's shop, the operator's page, GraphiQL.

Every byte of them is the gateway's own, and their policy allows no other: no stranger's script runs
beside a visitor's token. Each is `index.html` in a folder of `static/`; those that are given
something find it there as JSON. `scripts/vendor_graphiql.py` refreshes GraphiQL's vendored files.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from services.shared.settings import Settings

GRAPHQL: Final = "/graphql"
_STATIC: Final = Path(__file__).parent / "static"
_CONFIGURATION: Final = "{configuration}"

# GraphiQL's menus and dialogs lock the page's scrolling with one <style> element, always the same.
_SCROLL_LOCK: Final = "'sha256-nzTgYzXYDNe6BAHiiI7NNlfK8n/auuOAhh2t92YvuXo='"


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """An account whose password anyone who opens the page may read. `role`: as GraphQL says it."""

    name: str
    email: str
    password: str
    role: str


@dataclass(frozen=True, slots=True)
class DemoProduct:
    """What the demo sells. `price`: euros."""

    id: str
    name: str
    category: str
    price: int
    about: str


@dataclass(frozen=True, slots=True)
class DemoShop:
    """What the pages show of the demo. Without accounts there is no demo."""

    accounts: Sequence[DemoAccount] = ()
    products: Sequence[DemoProduct] = ()


class Pages:
    """`demo_shop`: what the demo is now."""

    def __init__(self, settings: Settings, demo_shop: Callable[[], Awaitable[DemoShop]]) -> None:
        self._settings = settings
        self._demo_shop = demo_shop
        self._examples = _read("graphiql/examples.graphql")

    def routes(self) -> list[BaseRoute]:
        """In production: the inbox, which shops use, and the operator's page where it is wanted."""
        settings = self._settings
        if not settings.in_production:
            rooms = [Route("/", self._shop), Mount("/static", _Files(directory=_STATIC))]
        else:
            operators = ("admin", "shared")
            rooms = [_files("inbox"), *map(_files, operators if settings.has_admin_page else ())]
        return [*rooms, *([Route("/admin", self._admin)] if settings.has_admin_page else [])]

    async def graphiql(self) -> Response:
        """GraphQL is spoken at the page's own URL, over HTTP and over graphql-transport-ws."""
        accounts = (await self._demo_shop()).accounts
        given = {"demoAccounts": list(map(asdict, accounts)), "examples": self._examples}
        return _page("graphiql", given, page_policy(_SCROLL_LOCK))

    async def _shop(self, request: Request) -> Response:
        demo = await self._demo_shop()
        return _page("shop", asdict(demo)) if demo.accounts else RedirectResponse(GRAPHQL)

    async def _admin(self, request: Request) -> Response:
        accounts = (await self._demo_shop()).accounts
        admins = [asdict(account) for account in accounts if account.role == "ADMIN"]
        given = {"demoAdmins": admins, "hasOtherPages": not self._settings.in_production}
        return _page("admin", given)


class _Files(StaticFiles):
    """Browsers ask each time whether theirs is still right: after an upgrade none mixes modules."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        response = super().file_response(*arguments, **named)
        response.headers["cache-control"] = "no-cache"
        return response


def page_policy(*styles: str) -> str:
    """The Content-Security-Policy of our pages: everything from here, nothing inline.

    `styles`: hashes of what may be inline all the same.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            " ".join(("style-src 'self'", *styles)),
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _page(room: str, given: object, policy: str = page_policy()) -> Response:
    html = _read(f"{room}/index.html").replace(_CONFIGURATION, _inside_a_script_element(given))
    headers = {"content-security-policy": policy, "cache-control": "no-store"}
    return HTMLResponse(html, headers=headers)


def _inside_a_script_element(given: object) -> str:
    """JSON in which no string can end the element (`</script`) or open a comment (`<!--`)."""
    return json.dumps(given).replace("<", "\\u003c")


def _files(room: str) -> Mount:
    return Mount(f"/static/{room}", _Files(directory=_STATIC / room))


def _read(path: str) -> str:
    return (_STATIC / path).read_text(encoding="utf-8")
