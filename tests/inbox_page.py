"""The bell in a page of a shop, of another origin than the gateway, in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Locator, Page, WebSocketRoute

from tests.servers import until

SECONDS = 15.0
PAGE = """<!doctype html>
<html lang="en" dir="{direction}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A shop</title>
<link rel="stylesheet" href="/shop.css">
<script src="{gateway}/static/inbox/tidings-inbox.js" defer></script>
</head>
<body>
<header><a href="/">A shop</a></header>
<main><h1>Shoes</h1><p>Nothing but shoes.</p></main>
</body>
</html>"""
Passes = Callable[[WebSocketRoute, dict[str, Any]], bool]
STYLE = """:root { color-scheme: light dark }
body { margin: 0; font: 16px system-ui, sans-serif }
header { display: flex; justify-content: space-between; align-items: center; padding: 8px 16px }
main { padding: 16px }"""
ADD = """({endpoint, token, asked}) => {
  const inbox = document.createElement("tidings-inbox");
  inbox.setAttribute("endpoint", endpoint);
  if (asked) inbox.getToken = () => window.freshToken();
  else if (token) inbox.setAttribute("token", token);
  document.querySelector("header").append(inbox);
}"""
HEARD = """() => {
  window.heard = [];
  window.told = [];
  const spoken = document.querySelector("tidings-inbox").shadowRoot.lastElementChild;
  new MutationObserver(() => window.heard.push(spoken.textContent))
    .observe(spoken, { childList: true, characterData: true, subtree: true });
  addEventListener("tidings-unread", (event) => window.told.push(event.detail.count));
}"""


class Shop:
    """The pages at `url`. `gateway`: the URL of the one that they use."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.gateway = ""

    @property
    def policy(self) -> str:
        """What docs/inbox.md says that a page must allow, and nothing else."""
        socket = self.gateway.replace("http", "ws", 1)
        return (
            f"default-src 'none'; script-src {self.gateway}; style-src 'self'; img-src 'self'; "
            f"connect-src {socket}; base-uri 'none'"
        )

    def answer(self, path: str) -> tuple[str, str]:
        """A type and a text."""
        if path == "/shop.css":
            return "text/css", STYLE
        if path == "/favicon.ico":
            return "image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>"
        direction = "rtl" if path == "/rtl" else "ltr"
        return "text/html", PAGE.format(gateway=self.gateway, direction=direction)


@contextmanager
def open_shop() -> Iterator[Shop]:
    """Serve until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = shop.answer(self.path)
            self.send_response(200)
            self.send_header("content-type", f"{kind}; charset=utf-8")
            self.send_header("content-security-policy", shop.policy)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shop = Shop(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Bell:
    """The inbox as a person uses it; what the page asked of whom, and what it complained of."""

    def __init__(self, page: Page, shop: Shop) -> None:
        self.page = page
        self.shop = shop
        self.requested: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(SECONDS * 1000)
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("websocket", lambda socket: self.requested.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type != "log" else None,
        )

    @property
    def button(self) -> Locator:
        return self.page.locator("tidings-inbox [part=bell]")

    @property
    def panel(self) -> Locator:
        return self.page.locator("tidings-inbox [popover]")

    @property
    def items(self) -> Locator:
        return self.page.locator("tidings-inbox article")

    def item(self, title: str) -> Locator:
        return self.items.filter(has_text=title)

    def named(self, name: str) -> Locator:
        return self.panel.get_by_role("button", name=name, exact=True)

    async def open(self) -> None:
        """Open the panel, and wait for what is in it."""
        await self.button.click()
        await self.panel.locator("article, [part=state]").first.wait_for()

    async def begin_anew(self, token: str | None) -> None:
        """As after signing out and in again."""
        await self.page.evaluate(
            """(token) => {
              const inbox = document.querySelector("tidings-inbox");
              inbox.removeAttribute("token");
              inbox.setAttribute("token", token);
            }""",
            token,
        )

    async def intercept(self, asked: Passes | None = None, told: Passes | None = None) -> None:
        """Look at what the page asks, and at what it is told, on all sockets to come: false keeps
        it from the other side."""

        def through(socket: WebSocketRoute) -> None:
            server = socket.connect_to_server()

            def ask(message: str | bytes) -> None:
                if asked is None or asked(socket, json.loads(message)):
                    server.send(message)

            def tell(message: str | bytes) -> None:
                if told is None or told(socket, json.loads(message)):
                    socket.send(message)

            socket.on_message(ask)
            server.on_message(tell)

        await self.page.route_web_socket("**/graphql", through)

    async def tab(self, name: str) -> None:
        await self.panel.get_by_role("tab", name=name, exact=True).click()

    async def badge(self) -> str:
        """What it shows; empty where there is none."""
        return "".join(await self.page.locator("tidings-inbox [part=badge]").all_text_contents())

    async def titles(self) -> Sequence[str]:
        texts = await self.items.locator("[part=title]").all_text_contents()
        return [text.strip() for text in texts]

    async def scroll_to_end(self) -> None:
        await self.panel.locator("[part=list]").evaluate("list => list.scrollTo(0, 1e9)")

    async def shows(self, *titles: str) -> None:
        """Return when it shows these and no others, in this order."""
        shown: Sequence[str] = ()

        async def settled() -> bool:
            nonlocal shown
            shown = await self.titles()
            return list(shown) == list(titles)

        try:
            await until(settled, SECONDS)
        except AssertionError as error:
            raise AssertionError(f"it shows {shown}, not {titles}") from error

    async def has_badge(self, text: str) -> None:
        async def settled() -> bool:
            return await self.badge() == text

        await until(settled, SECONDS)

    async def says(self, *texts: str) -> None:
        """Return when the panel has all these words."""
        for text in texts:
            await self.panel.get_by_text(text).first.wait_for()

    async def heard(self) -> list[str]:
        """What a screen reader was told by itself."""
        return list(await self.page.evaluate("window.heard"))

    async def has_heard(self, words: str) -> bool:
        return words in await self.heard()

    async def focus(self) -> str:
        """The id or the part of what has the focus in it."""
        return str(
            await self.page.evaluate("""() => {
              const focus = document.querySelector("tidings-inbox").shadowRoot.activeElement;
              return focus?.id || focus?.getAttribute("part") || "";
            }""")
        )

    async def focused_item(self, title: str) -> None:
        """Return when that item has the focus."""
        await self.page.locator("tidings-inbox article:focus", has_text=title).wait_for()

    async def finds_nothing(self) -> None:
        """After axe was evaluated."""
        found = await self.page.evaluate("""async () => {
          const { violations } = await axe.run("tidings-inbox");
          return violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]);
        }""")
        assert found == [], found

    @property
    def sockets(self) -> int:
        """How many it has opened so far."""
        return sum(url.startswith("ws:") for url in self.requested)

    @property
    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.requested}


@asynccontextmanager
async def open_bell(
    browser: Browser,
    shop: Shop,
    token: str | Callable[[], Awaitable[str | None]] | None,
    path: str = "/",
    **context: Any,
) -> AsyncIterator[Bell]:
    """A window of its own, whose page has the bell of whom the token speaks for; a function is the
    page's getToken.

    No other host is asked, and nothing is complained of but that a server is not there.
    """
    window = await browser.new_context(**({"viewport": {"width": 1000, "height": 800}} | context))
    bell = Bell(await window.new_page(), shop)
    if callable(token):
        await bell.page.expose_function("freshToken", token)
    await bell.page.goto(shop.url + path)
    endpoint = f"{shop.gateway}/graphql"
    given: dict[str, object] = {"asked": True} if callable(token) else {"token": token}
    await bell.page.evaluate(ADD, {"endpoint": endpoint, **given})
    await bell.page.evaluate(HEARD)
    try:
        yield bell
        away = ("ERR_CONNECTION", "WebSocket is closed", "net::ERR")
        unforeseen = [one for one in bell.complaints if not any(word in one for word in away)]
        assert unforeseen == []
        assert bell.hosts <= {urlsplit(shop.url).netloc, urlsplit(shop.gateway).netloc}
    finally:
        await window.close()
