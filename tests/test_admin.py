"""What an operator sees and does at /admin: a real Chromium on a real shop."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import Browser, expect
from pymongo import AsyncMongoClient
from starlette.applications import Starlette

from gateway.pages import DemoShop, Pages
from services.demo import ACCOUNTS, Account
from services.shared.events import NOTIFICATIONS
from services.shared.mongod import running_url
from services.shared.settings import Settings
from tests.admin import ADMIN, PANES, Admin
from tests.graphiql import SECONDS, chromium, open_browser
from tests.kit import Api
from tests.processes import Run, tidings
from tests.servers import free_port, need, until

ALICE, BEN = ACCOUNTS[:2]
LOGIN = """mutation ($email: String!, $password: String!) {
  login(input: { email: $email, password: $password }) { accessToken user { id } } }"""
SCHEDULES = "{ schedules { id name paused } }"
PAUSE = "mutation ($id: ID!) { pauseSchedule(id: $id) { id } }"
OPERATIONS = """{ operations(minutes: 60) {
  outbox sockets deadLetters processes { id } minutes { events sent suppressed failed } } }"""
ORDER = """mutation ($user: ID!, $order: ID!) {
  publishOrderStatus(input: { orderId: $order, userId: $user, status: "shipped" }) { eventId } }"""
NO_PROMOTIONS = """mutation ($enabled: Boolean!) {
  updatePreferences(input: { types: [{ type: PROMOTION, enabled: $enabled }] }) { version } }"""
PROMOTION = """mutation ($user: ID!, $title: String!) { createNotification(
  input: { userId: $user, type: PROMOTION, title: $title, content: "Half price" }
) { decision { outcome } } }"""
TAGS = "mutation ($user: ID!, $tags: [String!]!) { setUserTags(userId: $user, tags: $tags) }"
REGISTER = "mutation ($input: RegisterInput!) { register(input: $input) { user { id } } }"
INLINE = """() => new Promise((resolve) => {
  addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
  const script = document.createElement("script");
  script.textContent = "window.ran = true";
  document.body.append(script);
})"""
HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """The demo, in which nothing happens by itself."""
    need(chromium() is not None, "there is no chromium: apt-get install chromium")
    folder = tmp_path_factory.mktemp("shop")
    async with tidings("serve", folder=folder, DEMO_DATA="true", PULSE_SECONDS=0.5) as run:
        await run.ready()
        api = (await login(run, ADMIN))[0]
        for schedule in (await api.ask(SCHEDULES))["schedules"]:
            await api.ask(PAUSE, id=schedule["id"])
        yield run


@pytest.fixture(scope="module")
async def api(shop: Run) -> Api:
    """As the admin."""
    return (await login(shop, ADMIN))[0]


@pytest.fixture(scope="module")
async def browser(shop: Run) -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def visitor(shop: Run, browser: Browser) -> AsyncIterator[Admin]:
    """The page, and nobody is signed in. It asks nobody else, and complains of nothing."""
    context = await browser.new_context(
        viewport={"width": 1280, "height": 850}, timezone_id="Europe/Vienna"
    )
    admin = Admin(await context.new_page(), shop.port)
    await admin.open()
    yield admin
    assert {url.partition("://")[2].partition("/")[0] for url in admin.requested} == {
        f"127.0.0.1:{shop.port}"
    }
    assert admin.complaints == []
    await context.close()


@pytest.fixture
async def admin(visitor: Admin) -> Admin:
    await visitor.sign_in()
    await visitor.heading("Overview").wait_for()
    return visitor


async def login(run: Run, account: Account) -> tuple[Api, str]:
    """GraphQL in their name, and their id."""
    answer = await run.api.ask(LOGIN, email=account.email, password=account.password)
    return run.api.as_(answer["login"]["accessToken"]), answer["login"]["user"]["id"]


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


async def test_the_overview_shows_what_was_published(shop: Run, api: Api, admin: Admin) -> None:
    _, alice = await login(shop, ALICE)
    before = await _sums(api)
    for _ in range(3):
        await api.ask(ORDER, user=alice, order=uuid4().hex)

    async def counted() -> bool:
        return (await _sums(api))["events"] >= before["events"] + 3

    await until(counted, SECONDS)
    sums = await _sums(api)
    await admin.go("Schedules")
    await admin.go("Overview")
    for title, name in (("Events handled", "events"), ("Notifications sent", "sent")):
        plot = admin.page.locator(".plot").filter(has_text=title)
        await expect(plot).to_contain_text(f"{sums[name]:,} in the hour")
    await admin.button("Show as a table").click()
    table = admin.page.get_by_role("region", name="The last hour")
    rows = [await row.inner_text() for row in await table.locator("tbody tr").all()]
    assert len(rows) == 60
    assert sum(int(row.split("\t")[1]) for row in rows) == sums["events"]
    operations = (await api.ask(OPERATIONS))["operations"]
    assert await admin.figure("Dead letters") == operations["deadLetters"]
    assert await admin.figure("Processes") == len(operations["processes"]) == 1


async def _sums(api: Api) -> dict[str, int]:
    minutes = (await api.ask(OPERATIONS))["operations"]["minutes"]
    return {name: sum(minute[name] for minute in minutes) for name in minutes[0]}


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


async def test_a_schedule_is_made_run_paused_and_deleted(api: Api, admin: Admin) -> None:
    await admin.go("Schedules")
    await admin.page.get_by_role("link", name="New schedule").click()
    await admin.page.get_by_label("Name").fill("Monday <b>sale</b>")
    await admin.page.get_by_label("When").fill("61 9 * * MON")
    await admin.page.get_by_label("Time zone").fill("Europe/Vienna")
    await admin.page.get_by_label("Title").fill("It is Monday")
    await admin.page.get_by_label("Text").fill("Ten percent off.")
    await admin.button("Make the schedule").click()
    field = admin.page.locator(".field").filter(has=admin.page.get_by_label("When"))
    await expect(field.locator(".fault")).to_contain_text("minute")
    await expect(admin.page.get_by_label("When")).to_be_focused()

    await admin.page.get_by_label("When").fill("30 9 * * MON")
    await admin.button("Make the schedule").click()
    await admin.reads("“Monday <b>sale</b>” is saved: it fires next on")
    row = admin.page.get_by_role("row").filter(has_text="Monday <b>sale</b>")
    await expect(row).to_contain_text("9:30:00")
    await expect(row).to_contain_text("Never")

    await row.get_by_role("button", name="Run now").click()
    await expect(row).to_contain_text("just now")
    await row.get_by_role("button", name="Pause").click()
    await expect(row.locator(".badge")).to_have_text("Paused")
    await row.get_by_role("button", name="Go on").click()
    await expect(row.locator(".badge")).to_have_count(0)

    await row.get_by_role("button", name="Delete").click()
    await admin.dialog().get_by_role("button", name="No, go back").click()
    await expect(row).to_have_count(1)
    await row.get_by_role("button", name="Delete").click()
    await admin.dialog().get_by_role("button", name="Delete it").click()
    await expect(row).to_have_count(0)
    names = [one["name"] for one in (await api.ask(SCHEDULES))["schedules"]]
    assert "Monday <b>sale</b>" not in names


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


async def test_the_browsers_back_button_goes_back(admin: Admin) -> None:
    await admin.go("Schedules")
    await admin.page.get_by_role("link", name="New schedule").click()
    await admin.heading("New schedule").wait_for()
    await admin.page.go_back()
    await admin.heading("Schedules").wait_for()
    await admin.page.go_back()
    await admin.heading("Overview").wait_for()


async def test_why_a_customer_got_something_and_why_not(shop: Run, api: Api, admin: Admin) -> None:
    as_ben, ben = await login(shop, BEN)
    await api.ask(PROMOTION, user=ben, title="Wanted")
    await as_ben.ask(NO_PROMOTIONS, enabled=False)
    await api.ask(PROMOTION, user=ben, title="Not wanted")
    await admin.go("Customers")
    await admin.page.get_by_label("Search").fill("ben c")
    await admin.page.get_by_role("link", name=BEN.name).click()
    await admin.heading(BEN.name).wait_for()

    await admin.button("Why: Wanted").click()
    await expect(admin.dialog()).to_contain_text("In the app: Sent.")
    await expect(admin.dialog()).to_contain_text("You get promotions.")
    await admin.button("Close").click()
    await admin.button("Why: Not wanted").click()
    await expect(admin.dialog()).to_contain_text("They switched this kind off.")
    await expect(admin.dialog().locator(".spoke")).to_contain_text("This decided")
    await admin.page.keyboard.press("Escape")

    await admin.page.get_by_label("Kind").select_option("PROMOTION")
    await admin.button("What would be decided?").click()
    await admin.reads("In the app: Not sent.")
    await as_ben.ask(NO_PROMOTIONS, enabled=True)
    await admin.button("What would be decided?").click()
    await admin.reads("It is wanted.")


async def test_a_poison_event_is_replayed_and_discarded(shop: Run, api: Api, admin: Admin) -> None:
    id = uuid4().hex
    await admin.go("Dead letters")
    await admin.reads("All is well.")
    data = {"number": 12345678901234567890}
    await _poison(shop, {"specversion": "1.0", "id": id, "type": "order.eaten", "data": data})

    async def is_dead() -> bool:
        return bool((await api.ask(OPERATIONS))["operations"]["deadLetters"])

    await until(is_dead, SECONDS)
    await admin.go("Overview")
    await admin.page.get_by_role("link", name="Look at them").click()
    card = admin.page.locator("li.card").filter(has_text=id)
    await expect(card).to_contain_text("order.eaten")
    await card.get_by_text("What it says").click()
    await expect(card.locator("pre")).to_contain_text('"number": 12345678901234567890\n')

    await card.get_by_role("button", name="Replay").click()
    await admin.reads("comes back here")

    async def is_back() -> bool:
        if not await card.count():
            await admin.page.reload()
            await admin.settled()
        return bool(await card.count())

    await until(is_back, SECONDS)
    await card.get_by_role("button", name="Discard").click()
    await admin.dialog().get_by_role("button", name="Discard it").click()
    await admin.reads("All is well.")


async def _poison(shop: Run, event: Any) -> None:
    url = running_url(shop.data_dir)
    assert url is not None
    now = datetime.now(UTC)
    row = {"queue": NOTIFICATIONS, "body": json.dumps(event).encode(), "failures": 0}
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        queue = client.tidings.embedded_queue
        await queue.insert_one(row | {"first_seen": now, "due_at": now})


async def test_a_broadcast_is_counted_sent_and_followed_to_its_end(
    shop: Run, api: Api, admin: Admin
) -> None:
    for account in (ALICE, BEN):
        _, user = await login(shop, account)
        await api.ask(TAGS, user=user, tags=["hikers"])
    await admin.go("Broadcasts")
    await admin.page.get_by_role("link", name="New broadcast").click()
    await admin.page.get_by_label("Title").fill("Boots, <i>half</i> price")
    await admin.page.get_by_label("Text").fill("Until Sunday.")
    await expect(admin.page.locator(".bell")).to_contain_text("Boots, <i>half</i> price")
    await admin.page.get_by_label("Tags").fill("hikers")
    count = admin.page.locator("aside .value")
    await expect(count).to_have_text("2")
    await admin.page.get_by_label("Languages").fill("no language")
    await admin.reads("One of the conditions is not right yet.")
    await expect(admin.page.get_by_label("Languages")).to_have_attribute("aria-invalid", "true")
    await admin.page.get_by_label("Languages").fill("en")
    await expect(count).to_have_text("2")
    await admin.page.get_by_label("At most").fill("1")
    await admin.button("Send …").click()
    await expect(admin.dialog()).to_contain_text("2 people")
    await admin.dialog().get_by_role("button", name="Send to 2").click()

    card = admin.page.locator("li.card").first
    await expect(card).to_contain_text("those who read en and are tagged hikers")
    await expect(card.locator(".badge")).to_have_text("Running")
    await card.get_by_role("button", name="Pause").click()
    await expect(card.locator(".badge")).to_have_text("Paused")
    await card.get_by_role("button", name="Go on").click()
    await expect(card.locator(".badge")).to_have_text("Done")
    await expect(card).to_contain_text("2 sent of 2 recipients")
    bar = card.get_by_role("progressbar")
    await expect(bar).to_have_attribute("aria-valuenow", "2")
    assert any(url.startswith("ws://") for url in admin.requested)


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
            for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
                assert (await client.get(address)).status_code == 200, address
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
