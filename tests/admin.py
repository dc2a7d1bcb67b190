"""The operator's page in a real Chromium, as tests and its picture use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import Browser, Locator, Page

from services.demo import ACCOUNTS, Account
from tests.graphiql import SECONDS, Watched, chromium
from tests.kit import Api
from tests.processes import Run, tidings
from tests.servers import need, until
from tests.shop import AXE

ALICE, BEN, ADMIN = ACCOUNTS
PANES = ("Overview", "Schedules", "Customers", "Dead letters", "Broadcasts")
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
_MOST_TABS = 60
_FAULTS = """async () => (await axe.run()).violations.flatMap(
  ({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`))"""


_LOGIN = """mutation ($email: String!, $password: String!) {
  login(input: { email: $email, password: $password }) { accessToken user { id } } }"""
_SCHEDULES = "{ schedules { id } }"
_PAUSE = "mutation ($id: ID!) { pauseSchedule(id: $id) { id } }"


@asynccontextmanager
async def quiet_demo(folder: Path) -> AsyncIterator[Run]:
    """The demo, in which nothing happens by itself."""
    need(chromium() is not None, "there is no chromium: apt-get install chromium")
    async with tidings("serve", folder=folder, DEMO_DATA="true", PULSE_SECONDS=0.5) as run:
        await run.ready()
        api, _ = await login(run, ADMIN)
        for schedule in (await api.ask(_SCHEDULES))["schedules"]:
            await api.ask(_PAUSE, id=schedule["id"])
        yield run


async def login(run: Run, account: Account) -> tuple[Api, str]:
    """GraphQL in their name, and their id."""
    answer = await run.api.ask(_LOGIN, email=account.email, password=account.password)
    return run.api.as_(answer["login"]["accessToken"]), answer["login"]["user"]["id"]


@asynccontextmanager
async def visit(run: Run, browser: Browser) -> AsyncIterator[Admin]:
    """The page, and nobody is signed in. It asks nobody else, and complains of nothing."""
    context = await browser.new_context(
        viewport={"width": 1280, "height": 850}, timezone_id="Europe/Vienna"
    )
    admin = Admin(await context.new_page(), run.port)
    await admin.open()
    yield admin
    hosts = {url.partition("://")[2].partition("/")[0] for url in admin.requested}
    assert hosts == {f"127.0.0.1:{run.port}"}
    assert admin.complaints == []
    await context.close()


class Admin(Watched):
    def __init__(self, page: Page, port: int) -> None:
        super().__init__(page)
        self._url = f"http://127.0.0.1:{port}/admin"

    async def open(self, place: str = "") -> None:
        await self.page.goto(self._url + place)

    async def sign_in(self, account: Account = ADMIN) -> None:
        await self.page.get_by_label("Email").fill(account.email)
        await self.page.get_by_label("Password").fill(account.password)
        await self.button("Sign in").click()

    async def go(self, pane: str) -> None:
        await self.page.get_by_role("link", name=pane, exact=True).click()
        await self.heading(pane).wait_for()

    def heading(self, name: str) -> Locator:
        return self.page.get_by_role("heading", name=name, exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    async def reads(self, text: str) -> None:
        """When the page says so, in sight."""
        await self.page.get_by_text(text).first.wait_for()

    async def figure(self, label: str) -> int:
        """The number on one of the overview's tiles."""
        tile = self.page.locator(".figure").filter(has_text=label)
        return int((await tile.locator(".value").inner_text()).replace(",", ""))

    async def tab_to(self, name: str) -> None:
        """Press Tab until what is called so has the focus."""
        for _ in range(_MOST_TABS):
            await self.page.keyboard.press("Tab")
            if await self.page.evaluate(_NAME_OF_FOCUSED) == name:
                return
        raise AssertionError(f"Tab never comes to {name!r}")

    async def violations(self) -> list[str]:
        """What axe-core finds wrong with what is shown, in light and in dark."""
        need(AXE.exists(), "axe-core is not there: run npm ci in inbox")
        if not await self.page.evaluate("typeof axe === 'object'"):
            await self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: list[str] = []
        for scheme in SCHEMES:
            await self.page.emulate_media(color_scheme=scheme)
            found += await self.page.evaluate(_FAULTS)
        return found

    async def settled(self) -> None:
        """When nothing is on its way any more."""
        await until(self._is_settled, SECONDS)

    async def _is_settled(self) -> bool:
        return not await self.page.get_by_text("Loading …").count()


_NAME_OF_FOCUSED = """() => {
  const { ariaLabel, labels, textContent } = document.activeElement;
  return ariaLabel ?? labels?.[0]?.textContent ?? textContent;
}"""
