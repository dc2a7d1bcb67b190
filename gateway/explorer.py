"""The GraphiQL page: what a person sees who opens the gateway in a browser.

Strawberry's own page loads GraphiQL from a CDN; without one it stays at "Loading…", and with
one it runs strangers' scripts beside the visitor's token. Here every byte is the gateway's own,
and the page's policy allows no other. `scripts/vendor_graphiql.py` refreshes the vendored files.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

# GraphiQL's menus and dialogs lock the page's scrolling with one <style> element, always the same.
_SCROLL_LOCK: Final = "'sha256-nzTgYzXYDNe6BAHiiI7NNlfK8n/auuOAhh2t92YvuXo='"

EXPLORER_CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {_SCROLL_LOCK}",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)

_EXAMPLES: Final = (
    Path(__file__).parent.joinpath("static/graphiql/examples.graphql").read_text(encoding="utf-8")
)

_PAGE: Final = """\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Tidings: GraphiQL</title>
    <link rel="icon" href="/static/graphiql/icon.svg">
    <link rel="stylesheet" href="/static/graphiql/vendor/graphiql.css">
    <link rel="stylesheet" href="/static/graphiql/vendor/plugin-explorer.css">
    <link rel="stylesheet" href="/static/graphiql/boot.css">
  </head>
  <body>
    <header id="session-bar"></header>
    <main id="graphiql">Loading…</main>
    <noscript>GraphiQL needs JavaScript.</noscript>
    <script type="application/json" id="configuration">{configuration}</script>
    <script src="/static/graphiql/vendor/react.js"></script>
    <script src="/static/graphiql/vendor/react-dom.js"></script>
    <script src="/static/graphiql/vendor/graphiql.js"></script>
    <script src="/static/graphiql/vendor/plugin-explorer.js"></script>
    <script src="/static/graphiql/vendor/graphql-ws.js"></script>
    <script src="/static/graphiql/boot.js"></script>
  </body>
</html>
"""


@dataclass(frozen=True)
class DemoAccount:
    """An account whose password anyone who opens the page may read."""

    name: str
    email: str
    password: str


def explorer_page(demo_accounts: Sequence[DemoAccount]) -> str:
    """The page's HTML, to be sent with `EXPLORER_CSP`; one sign-in button per demo account.

    GraphQL is spoken at the page's own URL, over HTTP and over graphql-transport-ws.
    """
    configuration = {
        "demoAccounts": [asdict(account) for account in demo_accounts],
        "examples": _EXAMPLES,
    }
    return _PAGE.format(configuration=_inside_a_script_element(json.dumps(configuration)))


def _inside_a_script_element(document: str) -> str:
    """JSON in which no string can end the element (`</script`) or open a comment (`<!--`)."""
    return document.replace("<", "\\u003c")
