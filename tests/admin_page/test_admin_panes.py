"""What an operator sees and does: the overview, schedules, customers and dead letters."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from playwright.async_api import ElementHandle, Locator, Request, Route, expect
from pymongo import AsyncMongoClient

from services.shared.events import NOTIFICATIONS
from services.shared.mongod import running_url
from tests.admin import ALICE, BEN, Admin, login
from tests.graphiql import SECONDS
from tests.kit import Api
from tests.processes import Run
from tests.servers import until

SCHEDULES = "{ schedules { id name paused } }"
OPERATIONS = """{ operations(minutes: 60) {
  outbox sockets deadLetters processes { id } minutes { events sent suppressed failed } } }"""
ORDER = """mutation ($user: ID!, $order: ID!) {
  publishOrderStatus(input: { orderId: $order, userId: $user, status: "shipped" }) { eventId } }"""
NO_PROMOTIONS = """mutation ($enabled: Boolean!) {
  updatePreferences(input: { types: [{ type: PROMOTION, enabled: $enabled }] }) { version } }"""
PROMOTION = """mutation ($user: ID!, $title: String!) { createNotification(
  input: { userId: $user, type: PROMOTION, title: $title, content: "Half price" }
) { decision { outcome } } }"""
MARKED = """async (seen) => {
  const { figures } = await import("/static/admin/figures.js");
  const [, last] = seen.map(figures);
  return [...last.querySelectorAll(".bad .label")].map((label) => label.textContent);
}"""


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


async def test_the_focus_stays_where_it_is_when_figures_change(api: Api, admin: Admin) -> None:
    async def is_drawn_anew() -> bool:
        return not await former.evaluate("(former) => former.isConnected")

    place = admin.page.get_by_role("region", name="Processes", exact=True)
    former = await _focused(place)
    await until(is_drawn_anew, SECONDS)
    await expect(place).to_be_focused()
    await admin.go("Schedules")
    place = admin.page.get_by_role("link", name="Edit: ").first
    former = await _focused(place)
    for schedule in (await api.ask(SCHEDULES))["schedules"]:
        await api.ask("mutation ($id: ID!) { runSchedule(id: $id) { eventId } }", id=schedule["id"])
    await until(is_drawn_anew, SECONDS)
    await expect(place).to_be_focused()


async def _focused(place: Locator) -> ElementHandle:
    await place.focus()
    handle = await place.element_handle()
    assert handle is not None
    return handle


async def test_a_figure_that_is_bad_is_marked(admin: Admin) -> None:
    calm = {
        "at": "2026-11-26T12:00:30Z",
        "minutes": [dict.fromkeys(("events", "sent", "failed"), 0)] * 2,
        "outbox": 3,
        "outboxOldestAt": "2026-11-26T12:00:25Z",
        "deadLetters": 0,
        "sockets": 1,
        "queues": [{"name": "users", "waiting": 0, "consumers": 1}],
        "processes": [{}],
    }

    async def marked(**changes: Any) -> str:
        return ", ".join(await admin.page.evaluate(MARKED, [calm, calm | changes]))

    failed = [{"events": 1, "sent": 1, "failed": 1}] * 2
    assert await marked() == ""
    assert await marked(outbox=4) == "Outbox"  # more than a moment ago
    assert await marked(outboxOldestAt="2026-11-26T12:00:15Z") == "Outbox"
    assert await marked(queues=[{"name": "users", "waiting": 0, "consumers": 0}]) == "Queues"
    assert await marked(deadLetters=2) == "Dead letters"
    assert await marked(minutes=failed) == "Failures a minute"
    assert await marked(processes=[]) == "Processes"
    assert await marked(queues=None, deadLetters=None) == "Queues, Dead letters"


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

    await row.get_by_role("link", name="Edit").click()
    await expect(admin.page.get_by_label("Text", exact=True)).to_have_value("Ten percent off.")
    await admin.page.get_by_label("When").fill("30 8 * * MON")
    await admin.button("Save").click()
    await expect(row).to_contain_text("8:30:00")

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


async def test_a_schedule_that_is_late_is_marked(admin: Admin) -> None:
    async def without_a_scheduler(route: Route) -> None:
        answer = await (await route.fetch(max_retries=2)).text()
        late = re.sub('"nextFireAt": ?null', f'"nextFireAt":"{past.isoformat()}"', answer)
        await route.fulfill(body=late, content_type="application/json")

    past = datetime.now(UTC) - timedelta(seconds=50)
    await admin.page.route("**/graphql", without_a_scheduler)
    await admin.go("Schedules")
    await admin.page.get_by_role("link", name="Edit: ").first.wait_for()
    assert not await admin.page.get_by_text("It is late").count()
    await admin.reads("It is late: is a scheduler running?")


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


async def test_older_ones_come_on_request_and_only_where_they_belong(
    shop: Run, api: Api, admin: Admin
) -> None:
    as_alice, alice = await login(shop, ALICE)
    for _ in range(21):
        await api.ask(ORDER, user=alice, order=uuid4().hex)

    async def are_there() -> bool:
        page = await as_alice.ask("{ notifications(first: 20) { pageInfo { hasNextPage } } }")
        return bool(page["notifications"]["pageInfo"]["hasNextPage"])

    await until(are_there, SECONDS)
    await admin.open(f"#customers/{alice}")
    part = admin.page.locator("section").filter(has=admin.heading("Notifications"))
    rows = part.locator("tbody tr")
    await expect(rows).to_have_count(20)
    go_on = asyncio.Event()

    async def slowly(route: Route) -> None:
        if _is_for_older_ones(route.request):
            await go_on.wait()
        await route.continue_()

    await admin.page.route("**/graphql", slowly)
    async with admin.page.expect_request(_is_for_older_ones):
        await part.get_by_role("button", name="Show older ones").click()
    await part.get_by_label("Show").select_option("archived")
    await expect(part).to_contain_text("Nothing here.")
    async with admin.page.expect_request_finished(_is_for_older_ones):
        go_on.set()
    await admin.page.evaluate("() => new Promise(requestAnimationFrame)")
    await expect(rows).to_have_count(0)
    await part.get_by_label("Show").select_option("inbox")
    await expect(rows).to_have_count(20)
    await part.get_by_role("button", name="Show older ones").press("Enter")
    await expect(rows.nth(20)).to_be_visible()
    assert await admin.page.evaluate("document.activeElement !== document.body")


def _is_for_older_ones(request: Request) -> bool:
    return '"after":"' in (request.post_data or "")


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

    first = await _given_up(api)
    await card.get_by_role("button", name="Replay").click()
    await admin.reads("comes back here")

    async def is_back() -> bool:
        return bool(now := await _given_up(api)) and now != first

    await until(is_back, SECONDS)
    await admin.page.reload()
    await card.get_by_role("button", name="Discard").click()
    await admin.dialog().get_by_role("button", name="Discard it").click()
    await admin.reads("All is well.")


async def test_dead_letters_are_read_when_there_are_others_and_not_each_time(
    shop: Run, api: Api, admin: Admin
) -> None:
    asked: list[str] = []
    admin.page.on("request", lambda request: asked.append(request.post_data or ""))

    def lists() -> int:
        return sum("deadLetters(first" in one for one in asked)

    async def polled(seconds: int) -> None:
        """When the page has asked how many there are for so long."""
        for _ in range(0, seconds, 5):
            asked.append("here")
            await admin.page.clock.run_for(5_000)
            await until(lambda: asked[-1] != "here", SECONDS)

    await admin.page.clock.install()
    await admin.go("Dead letters")
    await admin.reads("All is well.")
    await polled(20)
    assert lists() == 1
    await admin.button("Refresh").click()
    await until(lambda: lists() == 2, SECONDS)
    id = uuid4().hex
    await _poison(shop, {"specversion": "1.0", "id": id, "type": "order.eaten", "data": {}})
    await until(lambda: _are_dead(api, 1), SECONDS)
    card = admin.page.locator("li.card").filter(has_text=id)

    async def is_shown() -> bool:
        await polled(5)
        return bool(await card.count())

    await until(is_shown, SECONDS)
    before = lists()
    await polled(30)
    assert lists() <= before + 1  # the last answer may have crossed one of these
    await card.get_by_role("button", name="Discard").click()
    await admin.dialog().get_by_role("button", name="Discard it").click()
    await admin.reads("All is well.")


async def test_a_dead_letter_that_comes_between_list_and_count_is_shown_all_the_same(
    shop: Run, api: Api, admin: Admin
) -> None:
    id = uuid4().hex
    lists: list[str] = []

    async def meanwhile(route: Route) -> None:
        answer = await route.fetch()
        if "deadLetters(first" in (route.request.post_data or ""):
            lists.append("asked")
            if len(lists) == 1:
                event = {"specversion": "1.0", "id": id, "type": "order.eaten", "data": {}}
                await _poison(shop, event)
                await until(lambda: _are_dead(api, 1), SECONDS)
        await route.fulfill(response=answer)

    await admin.page.clock.install()
    await admin.page.route("**/graphql", meanwhile)
    await admin.go("Dead letters")
    await admin.reads("There is 1 dead letter.")
    await admin.page.clock.run_for(5_000)
    card = admin.page.locator("li.card").filter(has_text=id)
    await card.get_by_role("button", name="Discard").click()
    await admin.dialog().get_by_role("button", name="Discard it").click()
    await admin.reads("All is well.")


async def test_that_all_is_well_is_not_said_while_others_have_them_in_hand(admin: Admin) -> None:
    said = """async (count) => {
      const { listOf } = await import("/static/admin/dead_letters.js");
      return listOf({ letters: [], count }).textContent;
    }"""
    assert "All is well." in await admin.page.evaluate(said, 0)
    assert "There are 2 dead letters." in await admin.page.evaluate(said, 2)
    assert "There is 1 dead letter." in await admin.page.evaluate(said, 1)
    assert "All is well." not in await admin.page.evaluate(said, 1)


async def _given_up(api: Api) -> Sequence[str]:
    """When each dead letter was."""
    letters = (await api.ask("{ deadLetters { failedAt } }"))["deadLetters"]
    return [letter["failedAt"] for letter in letters]


async def _are_dead(api: Api, count: int) -> bool:
    return bool((await api.ask(OPERATIONS))["operations"]["deadLetters"] == count)


async def _poison(shop: Run, event: Any) -> None:
    url = running_url(shop.data_dir)
    assert url is not None
    now = datetime.now(UTC)
    row = {"queue": NOTIFICATIONS, "body": json.dumps(event).encode(), "failures": 0}
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        queue = client.tidings.embedded_queue
        await queue.insert_one(row | {"first_seen": now, "due_at": now})
