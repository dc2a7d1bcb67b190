"""What a person sees who opens the gateway in a browser: a real Chromium on a real shop."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from services import demo
from tests.graphiql import GraphiQL, chromium, open_browser
from tests.processes import Run, tidings
from tests.servers import need

ALICE = demo.ACCOUNTS[0]
LOGIN = """mutation ($email: String!, $password: String!) {
  login(input: { email: $email, password: $password }) { accessToken user { id } } }"""
LINK = """query ($user: ID!) {
  unsubscribeLink(userId: $user, channel: EMAIL, type: PROMOTION) { url } }"""


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    need(chromium() is not None, "there is no chromium: apt-get install chromium")
    folder = tmp_path_factory.mktemp("shop")
    async with tidings("serve", folder=folder, DEMO_DATA="true") as run:
        yield await run.ready()


@pytest.fixture(scope="module")
async def browser(shop: Run) -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def graphiql(shop: Run, browser: Browser) -> AsyncIterator[GraphiQL]:
    """GraphiQL in a browser profile of its own."""
    context = await browser.new_context(viewport={"width": 1400, "height": 850})
    graphiql = GraphiQL(await context.new_page())
    await graphiql.open(f"http://127.0.0.1:{shop.port}/graphql")
    yield graphiql
    await context.close()


async def test_the_page_needs_nobody_else_and_complains_of_nothing(
    shop: Run, graphiql: GraphiQL
) -> None:
    await graphiql.sign_in(ALICE.name)
    await graphiql.run("Page")
    await graphiql.shows("Welcome, Alice Baker!", "pageInfo")
    for panel in ("Documentation Explorer", "History", "GraphiQL Explorer"):
        await graphiql.page.get_by_role("button", name=f"Show {panel}").click()
        await graphiql.page.get_by_role("button", name=f"Hide {panel}").click()
    for dialog in ("short keys", "settings"):
        await graphiql.page.get_by_role("button", name=f"Open {dialog} dialog").click()
        await graphiql.page.get_by_role("dialog").wait_for()
        await graphiql.page.keyboard.press("Escape")
    await graphiql.run("Live")
    await graphiql.page.get_by_text("Connected, waiting for events").wait_for()
    own = f"127.0.0.1:{shop.port}/"
    assert {url.partition("://")[2].partition("/")[0] + "/" for url in graphiql.requested} == {own}
    assert any(url.startswith("ws://") for url in graphiql.requested)
    assert graphiql.complaints == []


async def test_a_live_notification_arrives_where_a_person_can_see_it(
    shop: Run, browser: Browser, graphiql: GraphiQL
) -> None:
    await graphiql.sign_in(ALICE.name)
    await graphiql.run("Live")
    await graphiql.page.get_by_text("Connected, waiting for events").wait_for()

    second = GraphiQL(await graphiql.page.context.new_page())
    await second.open(f"http://127.0.0.1:{shop.port}/graphql")
    await second.sign_in(ALICE.name)
    await second.run("Suggest")
    suggested = json.loads(await second.shows('"SENT"'))["data"]["createRecommendations"]

    await graphiql.shows("notificationAdded", suggested["notification"]["id"])
    await graphiql.page.get_by_text("Live: ").wait_for()
    assert graphiql.complaints == second.complaints == []


async def test_the_button_of_a_mails_link_unsubscribes(shop: Run, browser: Browser) -> None:
    alice, admin = [
        (await shop.api.ask(LOGIN, email=one.email, password=one.password))["login"]
        for one in (ALICE, demo.ACCOUNTS[-1])
    ]
    made = await shop.api.as_(admin["accessToken"]).ask(LINK, user=alice["user"]["id"])
    context = await browser.new_context()
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    await page.goto(made["unsubscribeLink"]["url"])
    await page.get_by_role("button", name="Unsubscribe").click()
    await page.get_by_text("You get no more promotions by email.").wait_for()
    assert complaints == []
    await context.close()


async def test_the_browser_is_left_without_a_token(graphiql: GraphiQL) -> None:
    await graphiql.sign_in(ALICE.name)
    token = json.loads(await graphiql.headers())["Authorization"].removeprefix("Bearer ")
    await graphiql.run("Page")
    await graphiql.shows("pageInfo")
    await graphiql.run("Register")
    registered = json.loads(await graphiql.shows("accessToken"))["data"]["register"]
    await graphiql.run("Live")
    await graphiql.page.get_by_text("Connected, waiting for events").wait_for()
    await graphiql.page.reload()
    await graphiql.page.locator(".graphiql-execute-button").wait_for()

    stored = await graphiql.storage()
    assert "subscription Live" in stored["tidings:graphiql:tabState"]
    for text in stored.values():
        assert "eyJ" not in text
        assert "Bearer" not in text.replace("Bearer <accessToken>", "")
        assert token not in text
        assert registered["accessToken"] not in text
    assert not await graphiql.page.context.cookies()


async def test_a_subscription_without_a_session_says_so_at_once(graphiql: GraphiQL) -> None:
    began = time.monotonic()
    await graphiql.run("Live")
    await graphiql.shows("UNAUTHENTICATED", timeout=5)
    assert time.monotonic() - began < 5


async def test_a_new_tab_and_another_person_get_their_own_session(graphiql: GraphiQL) -> None:
    await graphiql.sign_in(ALICE.name)
    alice = await graphiql.headers()
    await graphiql.page.get_by_role("button", name="New tab").click()
    await graphiql.sign_in("Ben Carter")
    ben = await graphiql.headers()
    assert alice != ben
    assert json.loads(ben)["Authorization"].startswith("Bearer ")
