"""Broadcasts on the operator's page: counted, sent, followed and cancelled."""

from __future__ import annotations

import json
from uuid import uuid4

from playwright.async_api import Locator, expect

from tests.admin import ALICE, BEN, Admin, login
from tests.kit import Api
from tests.processes import Run

TAGS = "mutation ($user: ID!, $tags: [String!]!) { setUserTags(userId: $user, tags: $tags) }"
BROADCAST = "mutation ($input: BroadcastInput!) { createBroadcast(input: $input) { id } }"
REST = "mutation ($id: ID!) { pauseBroadcast(id: $id) { id } }"
CONDITIONS = (
    ("Languages", "de, fr"),
    ("Tags", " vip,newsletter, "),
    ("Bought within the last … days", "90"),
    ("Looked at products within the last … days", "7"),
    ("Did nothing in the shop for … days", "14"),
    ("Time zones", "Europe/Vienna"),
    ("Registered since", "2026-01-01T00:00"),
    ("Registered before", "2026-07-01T12:30"),
)
ASKED = {
    "locales": ["de", "fr"],
    "timezones": ["Europe/Vienna"],
    "tags": ["vip", "newsletter"],
    "createdFrom": "2025-12-31T23:00:00.000Z",
    "createdBefore": "2026-07-01T10:30:00.000Z",
    "accepts": {"type": "PROMOTION", "channel": "EMAIL"},
    "bought": {"withinDays": 90, "categories": ["Hiking", "Running"]},
    "viewed": {"withinDays": 7, "categories": ["Tents"]},
    "neverBought": True,
    "inactiveDays": 14,
}


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
    await expect(admin.dialog()).to_contain_text(
        "2 people: those who read en and are tagged hikers."
    )
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


async def test_a_broadcast_that_somebody_else_starts_is_shown_too(api: Api, admin: Admin) -> None:
    await admin.go("Broadcasts")
    await admin.settled()
    title = f"From a script {uuid4().hex[:6]}"
    await api.ask(BROADCAST, input={"title": title, "body": "By itself.", "audience": {}})
    card = admin.page.locator("li.card").filter(has_text=title)
    await expect(card.locator(".badge")).to_have_text("Done")


async def test_a_broadcast_is_cancelled_after_a_question(api: Api, admin: Admin) -> None:
    slow = {"title": "Too early", "body": "Wait.", "audience": {}, "perSecond": 1}
    made = (await api.ask(BROADCAST, input=slow))["createBroadcast"]
    await api.ask(REST, id=made["id"])
    await admin.go("Broadcasts")
    card = admin.page.locator("li.card").filter(has_text="Too early")
    await card.get_by_role("button", name="Cancel").click()
    await admin.dialog().get_by_role("button", name="No, go back").click()
    await expect(card.locator(".badge")).to_have_text("Paused")
    await card.get_by_role("button", name="Cancel").click()
    await admin.dialog().get_by_role("button", name="Cancel the broadcast").click()
    await expect(card.locator(".badge")).to_have_text("Cancelled")
    await expect(card.get_by_role("button")).to_have_count(0)


async def test_a_condition_that_cant_be_read_sends_nothing_to_anybody(admin: Admin) -> None:
    await admin.open("#broadcasts/new")
    page = admin.page
    await expect(page.locator("aside .value")).to_be_visible()
    await page.get_by_label("Title").fill("To whom?")
    await page.get_by_label("Text").fill("To more than was meant?")
    await page.get_by_text("More conditions").click()
    for label, typed, advice in (
        ("Registered since", "01012026", "the date and the time"),
        ("Did nothing in the shop for … days", "1e", "a whole number"),
        ("At most … a second", "-", "a whole number"),
    ):
        field = page.get_by_label(label, exact=True)
        await field.press_sequentially(typed)
        await admin.button("Send …").click()
        await expect(_fault(admin, label)).to_contain_text(advice)
        await expect(field).to_be_focused()
        await field.fill("")
    await page.get_by_label("… on", exact=True).select_option("EMAIL")
    await expect(page.locator("aside")).to_contain_text("One of the conditions is not right yet.")
    await admin.button("Send …").click()
    await expect(_fault(admin, "Want to hear of")).to_contain_text("Choose what")
    assert not await admin.dialog().count()


def _fault(admin: Admin, label: str) -> Locator:
    field = admin.page.locator(".field").filter(has=admin.page.get_by_label(label, exact=True))
    return field.locator(".fault")


async def test_all_conditions_are_asked_for_as_they_were_filled_in(admin: Admin) -> None:
    await admin.open("#broadcasts/new")
    page = admin.page
    await page.get_by_text("More conditions").click()
    for label, text in CONDITIONS:
        await page.get_by_label(label, exact=True).fill(text)
    for position, categories in enumerate(("Hiking, Running", "Tents")):
        await page.get_by_label("… of which categories").nth(position).fill(categories)
    await page.get_by_label("Want to hear of").select_option("PROMOTION")
    await page.get_by_label("… on", exact=True).select_option("EMAIL")
    async with page.expect_request(lambda one: "neverBought" in (one.post_data or "")) as asking:
        await page.get_by_label("Never bought anything").check()
    assert json.loads((await asking.value).post_data or "")["variables"]["input"] == ASKED
    await expect(page.locator("aside .value")).to_have_text("0")
