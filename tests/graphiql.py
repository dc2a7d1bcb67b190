"""GraphiQL in a real Chromium, as tests and the README's picture use it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Locator, Page, async_playwright

from tests.servers import until

QUIETLY = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SECONDS = 20.0


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A headless Chromium of the system; the driver comes with playwright."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=QUIETLY)
        try:
            yield browser
        finally:
            await browser.close()


class Watched:
    """A page; what it asked of whom, and which errors it showed nobody.

    What the page's Content-Security-Policy refuses is such an error.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requested: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(SECONDS * 1000)
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("websocket", lambda socket: self.requested.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )


class GraphiQL(Watched):
    """GraphiQL as a person uses it."""

    async def open(self, url: str) -> None:
        await self.page.goto(url)
        await self.page.locator(".graphiql-execute-button").wait_for()

    async def sign_in(self, name: str) -> None:
        await self.page.get_by_role("button", name=f"Sign in as {name}").click()
        await self.page.get_by_text(f"Signed in as {name}").wait_for()

    async def run(self, operation: str) -> None:
        """Press the button, and choose from the operations of the tab."""
        await self.page.locator(".graphiql-execute-button").click()
        await self.page.get_by_role("menuitem", name=operation, exact=True).click()

    async def run_at_cursor(self, operation: str) -> None:
        """Put the cursor into the operation, in sight, and press Ctrl-Enter."""
        await self.page.locator(".graphiql-query-editor .CodeMirror").evaluate(
            """(element, start) => {
              const editor = element.CodeMirror;
              const line = editor.getValue().split("\\n").findIndex((text) => text.includes(start));
              editor.setCursor(line + 1, 0);
              editor.scrollTo(0, editor.heightAtLine(line - 6, "local"));
              editor.focus();
            }""",
            f" {operation} {{",
        )
        await self.page.keyboard.press("Control+Enter")

    async def result(self) -> str:
        """What the result pane shows."""
        pane = self.page.locator(".result-window .CodeMirror")
        return str(await pane.evaluate("element => element.CodeMirror.getValue()"))

    async def shows(self, *texts: str, timeout: float = SECONDS) -> str:
        """The result, when it holds all these texts."""

        async def shown() -> bool:
            result = await self.result()
            return all(text in result for text in texts)

        await until(shown, timeout)
        return await self.result()

    async def headers(self) -> str:
        """What the Headers tab holds."""
        return str(await self._headers().evaluate("element => element.CodeMirror.getValue()"))

    async def write_headers(self, text: str) -> None:
        setting = "(element, text) => element.CodeMirror.setValue(text)"
        await self._headers().evaluate(setting, text)

    def _headers(self) -> Locator:
        return self.page.locator('[aria-label="Headers"] .graphiql-editor:not(.hidden) .CodeMirror')

    async def storage(self) -> Any:
        """All that the page has left in the browser."""
        return await self.page.evaluate("() => ({...localStorage, ...sessionStorage})")
