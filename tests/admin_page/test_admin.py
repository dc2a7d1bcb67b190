"""The operator's page as a whole: a real Chromium on a real shop."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from uuid import uuid4

import httpx
from playwright.async_api import Browser, Route, expect
from starlette.applications import Starlette

from gateway.pages import DemoShop, Pages
from services.shared.settings import Settings
from tests.admin import ADMIN, ALICE, BEN, PANES, Admin, login
from tests.graphiql import SECONDS
from tests.kit import forget_queues, quick_settings
from tests.processes import Run, tidings
from tests.servers import PrivateMongod, PrivateRabbitMQ, free_port, until

REGISTER = "mutation ($input: RegisterInput!) { register(input: $input) { user { id } } }"
WATCH_BANNER = """() => {
  window.alarms = 0;
  const banner = document.querySelector(".banner");
  new MutationObserver(() => window.alarms++).observe(banner, { childList: true, subtree: true });
}"""
IMPORTED = re.compile(r'^(?:import|\} from) .*?"(.+)";$', re.MULTILINE)
INLINE = """() => new Promise((resolve) => {
  addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
  const script = document.createElement("script");
  script.textContent = "window.ran = true";
  document.body.append(script);
  if (window.ran) resolve("It ran.");
})"""
HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def test_a_customer_is_told_that_the_page_is_for_admins(visitor: Admin) -> None:
    await visitor.sign_in(ALICE)
    await visitor.reads("This page is for admins")
    await visitor.reads("Alice Baker")
    assert not await visitor.page.get_by_role("navigation").count()
    await visitor.button(f"Sign in as {ADMIN.name}").click()
    await visitor.heading("Overview").wait_for()


async def test_a_wrong_password_is_told_in_words(visitor: Admin) -> None:
    await visitor.page.get_by_label("Email").fill(ADMIN.email)
    await visitor.page.get_by_label("Password").fill("not ada's")
    await visitor.button("Sign in").click()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("password")


async def test_a_hidden_page_asks_nothing(visitor: Admin) -> None:
    await visitor.page.clock.install()
    await visitor.open()
    await visitor.sign_in()
    await visitor.reads("Events a minute")

    def asked() -> int:
        return sum(url.endswith("/graphql") for url in visitor.requested)

    first = asked()
    await visitor.page.clock.run_for(6_000)
    await until(lambda: asked() > first, SECONDS)
    await visitor.page.evaluate(HIDDEN, True)
    await visitor.page.wait_for_load_state("networkidle")
    before = asked()
    await visitor.page.clock.run_for(60_000)
    assert asked() == before
    await visitor.page.evaluate(HIDDEN, False)
    await until(lambda: asked() > before, SECONDS)


async def test_an_answer_that_takes_longer_than_a_tick_is_shown(visitor: Admin) -> None:
    asked = 0
    answers = asyncio.Event()

    async def slowly(route: Route) -> None:
        nonlocal asked
        if "minutes: 60" in (route.request.post_data or ""):
            asked += 1
            await answers.wait()
        await route.continue_()

    await visitor.page.clock.install()
    await visitor.open()
    await visitor.page.route("**/graphql", slowly)
    await visitor.sign_in()
    await until(lambda: asked == 1, SECONDS)
    await visitor.page.clock.run_for(12_000)
    answers.set()
    await visitor.reads("Events a minute")
    assert asked == 1
    await visitor.page.clock.run_for(6_000)
    await until(lambda: asked == 2, SECONDS)


async def test_what_was_asked_before_never_stands_under_another_question(admin: Admin) -> None:
    async def away(route: Route) -> None:
        await route.fulfill(status=503, body="")

    await admin.go("Customers")
    search = admin.page.get_by_label("Search")
    await search.fill("alice")
    row = admin.page.get_by_role("row").filter(has_text=ALICE.name)
    await expect(row).to_be_visible()
    await admin.page.route("**/graphql", away)
    await search.press("Enter")
    await admin.reads("Last seen")
    await expect(row).to_be_visible()  # of the same question, what was answered last is right
    await search.fill("ben")
    await admin.reads("This page tries again by itself.")
    await expect(row).to_have_count(0)
    await admin.page.unroute("**/graphql")
    await expect(admin.page.get_by_role("row").filter(has_text=BEN.name)).to_be_visible()
    assert all("503" in admin.complaints.pop() for _ in admin.complaints[:])


async def test_the_browsers_back_button_goes_back(admin: Admin) -> None:
    await admin.go("Schedules")
    await admin.page.get_by_role("link", name="New schedule").click()
    await admin.heading("New schedule").wait_for()
    await admin.page.go_back()
    await admin.heading("Schedules").wait_for()
    await admin.page.go_back()
    await admin.heading("Overview").wait_for()


async def test_the_keyboard_alone_makes_a_schedule(admin: Admin) -> None:
    keys = admin.page.keyboard
    await admin.tab_to("Skip to the content")
    await keys.press("Enter")
    await expect(admin.heading("Overview")).to_be_focused()
    await admin.tab_to("Schedules")
    await keys.press("Enter")
    await expect(admin.heading("Schedules")).to_be_focused()
    await admin.tab_to("New schedule")
    await keys.press("Enter")
    for label, text in (("Name", "By keyboard"), ("When", "0 9 * * *"), ("Title", "T")):
        await admin.tab_to(label)
        await keys.type(text)
        await keys.press("Escape")  # what it suggests
    await admin.tab_to("Text")
    await keys.type("B")
    await admin.tab_to("Make the schedule")
    await keys.press("Enter")
    await admin.reads("“By keyboard” is saved")
    await admin.tab_to("Delete: By keyboard")
    await keys.press("Enter")
    await admin.dialog().wait_for()
    await admin.tab_to("Delete it")
    await keys.press("Enter")
    await admin.reads("“By keyboard” is deleted.")
    await expect(admin.heading("Schedules")).to_be_focused()


async def test_names_are_shown_as_they_are_written_and_fit_a_phone(shop: Run, admin: Admin) -> None:
    hostile = "<img src=x onerror=alert(1)> " + "W" * 40 + " שלום"
    made = {"email": f"{uuid4().hex}@shop.example", "name": hostile, "password": "ok, good enough"}
    user = (await shop.api.ask(REGISTER, input=made))["register"]["user"]["id"]
    await admin.page.set_viewport_size({"width": 390, "height": 844})
    await admin.open(f"#customers/{user}")
    await admin.heading(hostile).wait_for()
    for pane in PANES:
        await admin.go(pane)
        await admin.settled()
        assert await admin.page.evaluate("document.documentElement.scrollWidth") == 390, pane
    assert not await admin.page.locator("img").count()


async def test_axe_finds_nothing_wrong_in_light_or_dark(shop: Run, admin: Admin) -> None:
    _, alice = await login(shop, ALICE)
    places = ["overview", "schedules", "schedules/new", "customers", f"customers/{alice}"]
    for place in [*places, "dead-letters", "broadcasts", "broadcasts/new"]:
        await admin.open(f"#{place}")
        await admin.settled()
        assert await admin.violations() == [], place
    await admin.button("Sign out").click()
    await admin.heading("Sign in").wait_for()
    assert await admin.violations() == []


async def test_in_production_it_is_served_whole_if_it_is_wanted() -> None:
    for wanted in (True, None):
        settings = Settings(_env_file=None, profile="production", admin_page=wanted)
        app = Starlette(routes=Pages(settings, _no_demo).routes())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            page = await client.get("/admin")
            assert page.status_code == (200 if wanted else 404)
            assert (await client.get("/")).status_code == 404
            addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
            for address in addresses:  # and what they import in turn
                file = await client.get(address)
                assert file.status_code == 200, address
                assert file.headers["cache-control"] == "no-cache"
                known = {"if-none-match": file.headers["etag"]}
                again = await client.get(address, headers=known)
                assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")
                imported = (urljoin(address, name) for name in IMPORTED.findall(file.text))
                addresses += [one for one in imported if one not in addresses]
            assert wanted is None or len(addresses) > 20
            assert wanted is None or '"hasOtherPages": false' in page.text


async def _no_demo() -> DemoShop:
    return DemoShop()


async def test_the_policy_runs_nothing_inline(admin: Admin) -> None:
    assert await admin.page.evaluate(INLINE) == "script-src-elem"
    assert not await admin.page.evaluate("window.ran")
    assert "inline" in admin.complaints.pop()


async def test_the_page_says_that_its_server_is_away_and_recovers(
    tmp_path: Path, browser: Browser
) -> None:
    settings: dict[str, Any] = {
        "folder": tmp_path,
        "DEMO_DATA": "true",
        "GATEWAY_PORT": free_port(),
        "SHUTDOWN_SECONDS": 0.5,
    }
    context = await browser.new_context()
    async with tidings("serve", **settings) as first:
        await first.ready()
        admin = Admin(await context.new_page(), first.port)
        await admin.open()
        await admin.sign_in()
        await admin.go("Schedules")
        await admin.reads("Demo: promotions")
    await admin.reads("The server does not answer.")
    await admin.reads("Last seen")
    assert not await admin.page.locator("[role=status] time, [role=alert] time").count()
    await admin.reads("Demo: promotions")  # what was there is better than nothing
    await admin.go("Broadcasts")
    await admin.reads("This page tries again by itself.")
    async with tidings("serve", **settings) as second:
        await second.ready()
        await admin.reads("There is no broadcast yet.")
        await expect(admin.page.locator(".banner")).to_be_empty()
        await admin.go("Customers")
        await admin.page.get_by_label("Search").fill("alice")
        await admin.page.get_by_role("link", name=ALICE.name).click()
        await admin.heading(ALICE.name).wait_for()
    await context.close()


async def test_a_broker_that_is_away_is_said_where_it_is_missed(
    tmp_path: Path, browser: Browser, mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ
) -> None:
    settings: dict[str, Any] = {
        "folder": tmp_path,
        "DEMO_DATA": "true",
        "MONGODB_URL": mongod.url,
        "MONGODB_DATABASE": uuid4().hex,
        "RABBITMQ_URL": rabbitmq.url,
        "JWT_SECRET": uuid4().hex,
    }
    await forget_queues(rabbitmq.url, quick_settings("", retry_waits=(1, 5, 30, 120)))
    async with tidings("serve", **settings) as run:
        await run.ready()
        admin = Admin(await browser.new_page(), run.port)
        await admin.open()
        await admin.sign_in()
        await admin.reads("Events a minute")
        await admin.page.evaluate(WATCH_BANNER)
        await rabbitmq.kill()
        try:
            await admin.go("Dead letters")
            await admin.reads("The broker does not tell")
            async with admin.page.expect_response("**/graphql"):
                await admin.button("Try again").click()
            await admin.reads("The broker does not tell")
            assert await admin.page.evaluate("window.alarms") == 0
        finally:
            await rabbitmq.start()

        async def is_well() -> bool:
            if await admin.button("Try again").count():
                await admin.button("Try again").click()
            await admin.settled()
            return bool(await admin.page.get_by_text("All is well.").count())

        await until(is_well, SECONDS)
        await admin.page.close()
