"""A shop's page with the bell in it, of another origin than the gateway, in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from playwright.async_api import Browser, Locator, Page

SECONDS = 15.0
PAGE = """<!doctype html>
<html lang="en" dir="{direction}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A shop</title>
<link rel="stylesheet" href="/shop.css">
<script src="{gateway}/static/inbox/tidings-inbox.js" defer></script>
<header><a href="/">A shop</a></header>
<main><h1>Shoes</h1><p>Nothing but shoes.</p></main>
</html>"""
STYLE = """:root { color-scheme: light dark }
body { margin: 0; font: 16px system-ui }
header { display: flex; justify-content: space-between; align-items: center; padding: 8px 16px }
main { padding: 16px }"""


class Shop:
    """Its pages, at `url`, about a gateway that may come later: `gateway` is its URL."""

    def __init__(self, url: str, gateway: str) -> None:
        self.url = url
        self.gateway = gateway

    @property
    def policy(self) -> str:
        """As strict as it may be: docs/inbox.md promises that it is enough."""
        socket = self.gateway.replace("http", "ws", 1)
        return (
            f"default-src 'none'; script-src {self.gateway}; style-src 'self'; "
            f"connect-src {socket}; base-uri 'none'; require-trusted-types-for 'none'"
        ).replace("; require-trusted-types-for 'none'", "")


@contextmanager
def open_shop(gateway: str) -> Iterator[Shop]:
    """Serve until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = "text/html", PAGE.format(
                gateway=gateway, direction="rtl" if "rtl" in self.path else "ltr"
            )
            kind, text = {
                "/shop.css": ("text/css", STYLE),
                "/favicon.ico": ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
            }.get(self.path, page)
            self.send_response(200)
            self.send_header("content-type", f"{kind}; charset=utf-8")
            self.send_header("content-security-policy", shop.policy)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shop = Shop(f"http://127.0.0.1:{server.server_port}", gateway)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
