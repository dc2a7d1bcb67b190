"""The demo's shop in a real Chromium, as a person uses it."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import Browser, Locator, expect

from tests.graphiql import SECONDS, Watched
from tests.processes import ROOT, Run

AXE = ROOT / "inbox/node_modules/axe-core/axe.min.js"
DESKTOP, HALF, PHONE = (1280, 850), (700, 850), (390, 844)
SESSION = "tidings.session"
_AXE_RUN = """async () => (await axe.run()).violations.map(
  ({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => html + failureSummary)}`)"""

expect.set_options(timeout=SECONDS * 1000)


async def open_shop(browser: Browser, run: Run, size: tuple[int, int] = DESKTOP) -> Shop:
    """The shop in a browser profile of its own."""
    width, height = size
    context = await browser.new_context(viewport={"width": width, "height": height})
    shop = Shop(await context.new_page())
    await shop.page.goto(f"http://127.0.0.1:{run.port}/")
    return shop


class Shop(Watched):
    async def sign_in(self, name: str) -> None:
        await self.press(f"Sign in as {name}")
        await expect(self.page.locator("#name")).to_have_text(name)

    async def register(self, name: str, email: str, password: str = "likes long walks") -> None:
        for field, value in (("name", name), ("email", email), ("password", password)):
            await self.page.locator(f"#new-{field}").fill(value)
        await self.press("Register")

    async def press(self, name: str) -> None:
        await self.button(name).click()

    def button(self, name: str) -> Locator:
        """The one that is called so, or begins so."""
        return self.page.get_by_role("button", name=name).first

    async def open_product(self, id: str) -> Locator:
        await self.page.locator(f"#open-{id}").click()
        dialog = self.page.get_by_role("dialog")
        await dialog.wait_for()
        return dialog

    async def put_into_basket(self, id: str) -> None:
        await self.open_product(id)
        await self.press("Add to basket")
        await self.page.get_by_role("dialog").wait_for(state="detached")

    async def buy(self, *ids: str) -> str:
        """The order's id."""
        for id in ids:
            await self.put_into_basket(id)
        await self.press("Basket")
        await self.press("Buy for")
        await self.is_told("is placed")
        return await self.page.locator(".order strong").first.inner_text()

    async def is_told(self, text: str) -> None:
        await expect(self.page.locator("#news")).to_contain_text(text)

    async def is_warned(self, text: str) -> None:
        await expect(self.page.locator("#problem")).to_contain_text(text)

    async def open_bell(self) -> None:
        await self.press("Notifications")
        await self.page.get_by_role("feed").wait_for()

    def item(self, title: str) -> Locator:
        """What the bell shows under this title."""
        return self.page.get_by_role("feed").get_by_role("article").filter(has_text=title)

    async def session(self) -> Any:
        """What the window keeps of who is signed in."""
        return json.loads(
            await self.page.evaluate("key => sessionStorage.getItem(key) ?? 'null'", SESSION)
        )

    async def outdate(self) -> None:
        """As if the access token were about to end."""
        await self.page.evaluate(
            """key => {
              const session = JSON.parse(sessionStorage.getItem(key));
              const expiresAt = new Date().toISOString();
              sessionStorage.setItem(key, JSON.stringify({ ...session, expiresAt }));
            }""",
            SESSION,
        )

    async def accessibility_faults(self) -> list[str]:
        """What axe-core finds. Nothing moves meanwhile: half-faded text has no contrast."""
        await self.page.emulate_media(reduced_motion="reduce")
        await self.page.evaluate(AXE.read_text())
        faults: list[str] = await self.page.evaluate(_AXE_RUN)
        return faults
