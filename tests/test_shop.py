"""The demo's shop at `/`: a real Chromium on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Browser, Route, expect

from services import demo
from tests.graphiql import GraphiQL, chromium, open_browser
from tests.kit import Api
from tests.processes import Run, tidings
from tests.servers import hang, need, until
from tests.shop import AXE, DESKTOP, HALF, PHONE, SESSION, Shop, open_shop

ALICE, BEN, ADA = demo.ACCOUNTS
PAGE = """{ notifications(first: 100) {
  edges { node { id type title body content revision read } } } }"""
RECOMMENDED = "{ recommendations(first: 20) { productId name score } }"
LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { accessToken } }"
RENAME = "mutation ($input: ProductInput!) { publishProduct(input: $input) { eventId } }"
BUYERS = """query ($categories: [String!]!) {
  audience(input: { bought: { withinDays: 1, categories: $categories } }) { sample { id } } }"""
HTML = "<img src=x onerror=document.title=1><b>Bold</b>"


@pytest.fixture(scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    need(chromium() is not None, "there is no chromium: apt-get install chromium")
    folder = tmp_path_factory.mktemp("shop")
    many = 1000
    async with tidings(
        "serve", folder=folder, DEMO_DATA="true", REGISTRATIONS_PER_ADDRESS=many
    ) as run:
        yield await run.ready()


@pytest.fixture(scope="module")
async def browser(run: Run) -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def shop(run: Run, browser: Browser) -> AsyncIterator[Shop]:
    shop = await open_shop(browser, run)
    yield shop
    await shop.page.context.close()


@pytest.fixture
async def newcomer(shop: Shop) -> Shop:
    """The shop, with somebody signed in who has just registered."""
    await shop.register("Nora New", f"{uuid4().hex}@shop.example")
    await expect(shop.page.locator("#name")).to_have_text("Nora New")
    return shop


async def login(run: Run, account: demo.Account) -> Api:
    given = {"email": account.email, "password": account.password}
    return run.api.as_((await run.api.ask(LOGIN, input=given))["login"]["accessToken"])


async def api_of(run: Run, shop: Shop) -> Api:
    return run.api.as_((await shop.session())["accessToken"])


async def notification(api: Api, **wanted: str) -> dict[str, Any]:
    """The one of which all this is true, of it or of its content, when it is there."""

    async def found() -> list[dict[str, Any]]:
        nodes = [edge["node"] for edge in (await api.ask(PAGE))["notifications"]["edges"]]
        return [
            node
            for node in nodes
            if all(
                value in (node.get(key), node["content"].get(key)) for key, value in wanted.items()
            )
        ]

    node: dict[str, Any] = (await until(found, 20))[0]
    return node


# The page


async def test_a_click_signs_in_and_the_page_needs_nobody_else(run: Run, shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    await shop.buy("compass")
    await expect(shop.page.locator(".pick").first).to_be_visible()
    hosts = {url.partition("://")[2].partition("/")[0] for url in shop.requested}
    assert hosts == {f"127.0.0.1:{run.port}"}
    assert shop.complaints == []


async def test_the_policy_runs_no_script_of_others(shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    await shop.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.injected = 1";
          document.body.append(script);
          const image = "<img src=x onerror='window.injected = 2'>";
          document.body.insertAdjacentHTML("beforeend", image);
        }"""
    )
    await until(lambda: len([one for one in shop.complaints if "inline" in one]) >= 2)
    assert await shop.page.evaluate("window.injected") is None


@pytest.mark.parametrize("size", [HALF, PHONE])
async def test_narrow_windows_scroll_down_and_not_sideways(
    run: Run, browser: Browser, size: tuple[int, int]
) -> None:
    shop = await open_shop(browser, run, size)
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await shop.page.evaluate(wider) == 0
    await shop.sign_in(ALICE.name)
    await expect(shop.page.locator(".pick").first).to_be_visible()
    assert await shop.page.evaluate(wider) == 0
    await shop.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
async def test_axe_finds_nothing_to_complain_of(
    run: Run, browser: Browser, size: tuple[int, int], scheme: Any
) -> None:
    need(AXE.exists(), "there is no axe-core: npm ci in inbox/")
    shop = await open_shop(browser, run, size)
    await shop.page.emulate_media(color_scheme=scheme)
    await shop.register("", "nobody", "short")
    await expect(shop.page.locator(".wrong:not(:empty)").first).to_be_visible()
    assert await shop.accessibility_faults() == []
    await shop.sign_in(ALICE.name)
    await expect(shop.page.locator(".pick").first).to_be_visible()
    assert await shop.accessibility_faults() == []
    await shop.open_product("gps-watch")
    assert await shop.accessibility_faults() == []
    await shop.press("Add to basket")
    await shop.press("Basket")
    assert await shop.accessibility_faults() == []
    await shop.press("Buy for")
    await shop.is_told("is placed")
    if size is PHONE:
        await shop.press("Back office")
    assert await shop.accessibility_faults() == []
    await shop.page.context.close()


async def test_a_keyboard_is_enough(shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    card = shop.page.locator("#open-fleece")
    await card.focus()
    await shop.page.keyboard.press("Enter")
    await shop.page.get_by_role("dialog").wait_for()
    await shop.page.locator("#wish-fleece").press("Space")
    await shop.is_told("is on your wish list")
    await shop.page.keyboard.press("Escape")
    await shop.page.get_by_role("dialog").wait_for(state="detached")
    await expect(card).to_be_focused()


# Who comes in


async def test_who_registers_reads_beside_the_field_what_is_wrong(shop: Shop) -> None:
    wrong = shop.page.locator(".wrong:not(:empty)")
    await shop.register("", "x@shop.example")
    await expect(shop.page.locator("#wrong-name")).not_to_be_empty()
    await expect(shop.page.locator("#new-name")).to_have_attribute("aria-invalid", "true")
    await expect(shop.page.locator("#new-name")).to_be_focused()
    await shop.register("Nora", "nobody")
    await expect(shop.page.locator("#wrong-email")).not_to_be_empty()
    await shop.register("Nora", "nora@shop.example", "short")
    await expect(shop.page.locator("#wrong-password")).to_contain_text("8")
    await shop.register("Nora", ALICE.email)
    await expect(shop.page.locator("#wrong-email")).to_contain_text("taken")
    await expect(wrong).to_have_count(1)
    await shop.register("Nora", f"{uuid4().hex}@shop.example")
    await expect(shop.page.locator("#name")).to_have_text("Nora")


async def test_what_is_html_elsewhere_is_text_here(run: Run, shop: Shop) -> None:
    await shop.register(HTML, f"{uuid4().hex}@shop.example")
    await expect(shop.page.locator("#name")).to_have_text(HTML)
    admin, customer = await login(run, ADA), await api_of(run, shop)
    first = (await customer.ask(RECOMMENDED))["recommendations"][0]
    product = {"productId": first["productId"], "category": "Clothing"}
    await admin.ask(RENAME, input={**product, "name": HTML})
    try:

        async def renamed() -> bool:
            return bool((await customer.ask(RECOMMENDED))["recommendations"][0]["name"] == HTML)

        await until(renamed)
        await shop.page.reload()
        await expect(shop.page.locator(".pick strong").first).to_have_text(HTML)
        assert await shop.page.locator(".pick b, .pick img").count() == 0
    finally:
        await admin.ask(RENAME, input={**product, "name": first["name"]})


async def test_a_reload_keeps_who_is_signed_in_and_the_basket(shop: Shop, run: Run) -> None:
    await shop.sign_in(BEN.name)
    await shop.put_into_basket("harness")
    await shop.page.reload()
    await expect(shop.page.locator("#name")).to_have_text(BEN.name)
    await expect(shop.button("Basket, 1 product")).to_be_visible()
    token = (await shop.session())["accessToken"]
    await shop.press("Sign out")
    await expect(shop.button(f"Sign in as {ALICE.name}")).to_be_visible()
    assert await shop.session() is None

    async def is_refused() -> bool:
        response = await run.api.as_(token).post(json={"query": "{ me { id } }"})
        errors = response.json().get("errors", [])
        return [error["extensions"]["code"] for error in errors] == ["UNAUTHENTICATED"]

    await until(is_refused)  # the page does not wait for the gateway


async def test_two_windows_are_two_customers(run: Run, browser: Browser, shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    other = Shop(await shop.page.context.new_page())
    await other.page.goto(shop.page.url)
    await other.sign_in(BEN.name)
    await shop.page.reload()
    await expect(shop.page.locator("#name")).to_have_text(ALICE.name)


async def test_only_an_admin_is_shown_to_the_operators_page(shop: Shop) -> None:
    link = shop.page.get_by_role("link", name="Operator’s page")
    await shop.sign_in(BEN.name)
    await expect(link).to_be_hidden()
    await shop.press("Sign out")
    await shop.sign_in(ADA.name)
    await expect(link).to_be_visible()


async def test_graphiql_is_a_click_away_signed_in_and_back(shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    await shop.page.get_by_role("link", name="GraphiQL").click()
    graphiql = GraphiQL(shop.page)
    await graphiql.page.get_by_text(f"Signed in as {ALICE.name}").wait_for()
    await graphiql.run("Page")
    await graphiql.shows("pageInfo")
    token = (await shop.session())["accessToken"]
    assert json.loads(await graphiql.headers())["Authorization"] == f"Bearer {token}"
    kept = await graphiql.page.evaluate("() => JSON.stringify({...localStorage})")
    assert token not in kept
    await shop.page.go_back()
    await expect(shop.page.locator("#name")).to_have_text(ALICE.name)


RENEW = """async () => (await import("/static/shared/session.js")).token()"""


async def test_a_renewal_leaves_a_typed_header_alone(shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    await shop.page.get_by_role("link", name="GraphiQL").click()
    graphiql = GraphiQL(shop.page)
    await graphiql.page.get_by_text(f"Signed in as {ALICE.name}").wait_for()
    first = await graphiql.headers()
    await shop.outdate()
    renewed = await shop.page.evaluate(RENEW)

    async def is_replaced() -> bool:
        return renewed in await graphiql.headers()

    await until(is_replaced)
    assert await graphiql.headers() != first
    typed = '{ "authorization": "Bearer my own", "x-mine": "1" }'
    await graphiql.write_headers(typed)
    await shop.outdate()
    assert await shop.page.evaluate(RENEW) != renewed
    await shop.page.evaluate("() => new Promise(requestAnimationFrame)")
    assert await graphiql.headers() == typed


async def test_a_renewal_that_fails_is_tried_again(shop: Shop) -> None:
    async def refuse_renewals(route: Route) -> None:
        if "refreshSession" in (route.request.post_data or ""):
            await route.abort()
        else:
            await route.continue_()

    await shop.sign_in(ALICE.name)
    await shop.page.route("**/graphql", refuse_renewals)
    await shop.outdate()
    await shop.page.get_by_role("link", name="GraphiQL").click()
    await expect(shop.page.get_by_role("alert")).to_contain_text("does not answer")
    await shop.page.unroute("**/graphql")
    await shop.page.get_by_text(f"Signed in as {ALICE.name}").wait_for()
    await expect(shop.page.get_by_role("alert")).to_have_count(0)


# What one does


async def test_what_a_customer_does_is_tracked(run: Run, newcomer: Shop) -> None:
    api, admin = await api_of(run, newcomer), await login(run, ADA)

    async def score(id: str) -> float:
        found = (await api.ask(RECOMMENDED))["recommendations"]
        return next((float(one["score"]) for one in found if one["productId"] == id), 0.0)

    async def rises(id: str, above: float) -> float:
        async def risen() -> bool:
            return await score(id) > above

        await until(risen)
        return await score(id)

    socks, pot = await score("running-socks"), await score("titanium-pot")
    await newcomer.open_product("trail-shoes")
    viewed = await rises("running-socks", socks)
    await newcomer.press("Add to basket")
    await rises("running-socks", viewed)
    await newcomer.page.locator("#heart-gas-stove").click()
    await rises("titanium-pot", pot)
    await newcomer.press("Basket, 1 product")
    await newcomer.press("Buy for")
    await newcomer.is_told("is placed")
    buyers = (await admin.ask(BUYERS, categories=["Running"]))["audience"]["sample"]
    assert (await newcomer.session())["user"]["id"] in [one["id"] for one in buyers]
    heard = ["Trail Shoes", "order F", "Gas Stove", "Trail Shoes", "Trail Shoes"]
    await expect(newcomer.page.locator(".heard li")).to_contain_text(heard)


async def test_the_catalogue_is_searched_and_filtered(newcomer: Shop) -> None:
    cards = newcomer.page.locator(".card")
    await expect(cards).to_have_count(len(demo.catalogue()))
    await newcomer.press("Camp Kitchen")
    await expect(cards).to_have_count(5)
    await newcomer.page.get_by_role("searchbox").fill("mug")
    await expect(cards).to_have_count(1)
    await newcomer.press("Wish list (0)")
    await expect(newcomer.page.get_by_text("Nothing here yet")).to_be_visible()


async def test_an_order_goes_all_the_way_and_each_step_is_told(run: Run, newcomer: Shop) -> None:
    order = await newcomer.buy("compass", "fleece")
    api = await api_of(run, newcomer)
    placed = await notification(api, orderId=order, status="placed")
    assert placed["content"]["details"] == {"products": ["Compass", "Fleece Jacket"]}
    steps = ("Mark as paid", "Mark as packed", "Ship it", "Mark as delivered")
    for step, status in zip(steps, ("paid", "packed", "shipped", "delivered"), strict=True):
        await newcomer.press(step)
        await newcomer.is_told(f"is {status}")
        told = await notification(api, orderId=order, status=status)
        assert told["id"] == placed["id"]
    await expect(newcomer.page.locator(".order button")).to_have_count(0)
    await newcomer.page.reload()
    await expect(newcomer.page.locator(".order .status")).to_have_text("delivered")


async def test_an_order_whose_answer_was_lost_is_not_placed_twice(run: Run, newcomer: Shop) -> None:
    async def lose_the_answer(route: Route) -> None:
        if "publishOrderStatus" in (route.request.post_data or ""):
            await route.fetch(max_retries=2)
            await route.abort()
        else:
            await route.continue_()

    await newcomer.put_into_basket("fleece")
    await newcomer.page.route("**/graphql", lose_the_answer)
    await newcomer.press("Basket, 1 product")
    await newcomer.press("Buy for")
    await newcomer.is_warned("can’t be reached")
    await newcomer.page.unroute("**/graphql")
    await newcomer.press("Buy for")
    await newcomer.is_told("is placed")
    order = await newcomer.page.locator(".order strong").inner_text()
    api = await api_of(run, newcomer)
    assert (await notification(api, orderId=order))["revision"] == 1
    edges = (await api.ask(PAGE))["notifications"]["edges"]
    assert len([one for one in edges if one["node"]["type"] == "ORDER_UPDATE"]) == 1


async def test_an_order_is_placed_though_what_was_bought_cant_be_told_yet(
    run: Run, newcomer: Shop
) -> None:
    async def refuse_purchases(route: Route) -> None:
        if "PURCHASE" in (route.request.post_data or ""):
            await route.abort()
        else:
            await route.continue_()

    await newcomer.page.route("**/graphql", refuse_purchases)
    await newcomer.buy("fleece", "compass")
    await expect(newcomer.page.locator("#problem")).to_be_empty()
    await newcomer.page.unroute("**/graphql")
    await newcomer.page.reload()
    heard = newcomer.page.locator(".heard")
    await expect(heard).to_contain_text("bought Fleece Jacket")
    await expect(heard).to_contain_text("bought Compass")
    buyers = (await (await login(run, ADA)).ask(BUYERS, categories=["Clothing"]))["audience"]
    assert (await newcomer.session())["user"]["id"] in [one["id"] for one in buyers["sample"]]
    await newcomer.page.reload()
    await expect(heard).to_contain_text("Nothing yet")


async def test_a_promotion_reaches_everybody(run: Run, newcomer: Shop) -> None:
    title = f"Offer {uuid4().hex[:6]}"
    await newcomer.page.get_by_label("Title").fill(title)
    await newcomer.press("Send to everybody")
    await newcomer.is_told("on its way to everybody")
    for api in (await api_of(run, newcomer), await login(run, BEN)):
        assert (await notification(api, title=title))["type"] == "PROMOTION"


async def test_recommendations_are_sent_until_there_are_too_few(run: Run, newcomer: Shop) -> None:
    await newcomer.press("Recommend to me")
    await newcomer.is_told("Sent")
    assert await notification(await api_of(run, newcomer), type="RECOMMENDATION")
    news = newcomer.page.locator("#news")

    async def used_up() -> bool:
        await newcomer.press("Recommend to me")
        return "fewer than three" in await news.inner_text()

    await until(used_up, 20)


async def test_two_windows_side_by_side_tell_the_whole_story(run: Run, browser: Browser) -> None:
    alice, ben = [await open_shop(browser, run, HALF) for _ in range(2)]
    await alice.sign_in(ALICE.name)
    await ben.sign_in(BEN.name)
    await ben.open_bell()
    order = await alice.buy("camp-lantern")
    await alice.open_bell()
    await expect(alice.item(f"Order {order} received")).to_be_visible()
    await alice.page.keyboard.press("Escape")

    title = f"Offer {uuid4().hex[:6]}"
    await alice.page.get_by_label("Title").fill(title)
    await alice.press("Send to everybody")
    await expect(ben.item(title)).to_be_visible()
    assert await ben.item(order).count() == 0

    for step in ("Mark as paid", "Mark as packed", "Ship it"):
        await alice.press(step)
    await alice.open_bell()
    shipped = alice.item(f"Order {order} is on its way")
    await shipped.get_by_role("button", name=order).click()
    letter = alice.page.get_by_role("dialog", name=order)
    await expect(letter).to_be_visible()
    assert alice.complaints == ben.complaints == []
    for window in (alice, ben):
        await window.page.context.close()


async def test_a_recommendation_in_the_bell_leads_to_its_products(newcomer: Shop) -> None:
    await newcomer.press("Recommend to me")
    await newcomer.open_bell()
    await newcomer.item("Picked for you").get_by_role("button", name="Picked for you").click()
    product = newcomer.page.locator("dialog .pick strong").first
    name = await product.inner_text()
    await product.click()
    await expect(newcomer.page.get_by_role("dialog", name=name)).to_be_visible()


async def test_who_has_read_a_notification_is_back_at_the_bell(newcomer: Shop) -> None:
    await newcomer.press("Recommend to me")
    await newcomer.open_bell()
    await newcomer.item("Picked for you").get_by_role("button", name="Picked for you").click()
    await newcomer.page.get_by_role("dialog", name="Picked for you").wait_for()
    await newcomer.page.keyboard.press("Escape")
    await expect(newcomer.button("Notifications")).to_be_focused()


async def test_what_runs_from_right_to_left_does_so_here(newcomer: Shop) -> None:
    title = f"מבצע {uuid4().hex[:6]}!"
    await newcomer.page.get_by_label("Title").fill(title)
    await newcomer.page.get_by_label("Text").fill("חצי מחיר, עד יום ראשון.")
    await newcomer.press("Send to everybody")
    await newcomer.is_told(title)
    await newcomer.open_bell()
    await newcomer.item(title).get_by_role("button", name=title).click()
    letter = newcomer.page.get_by_role("dialog")
    for part in (letter.get_by_role("heading"), letter.get_by_role("paragraph")):
        await expect(part.first).to_have_css("direction", "rtl")


# Bad days


async def test_a_token_that_ends_is_renewed_unnoticed(shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    before = await shop.session()
    await shop.outdate()
    await shop.put_into_basket("sun-cap")
    after = await shop.session()
    assert before["refreshToken"] != after["refreshToken"]


async def test_who_signs_out_with_a_token_that_has_ended_is_signed_out_on_the_server(
    run: Run, newcomer: Shop
) -> None:
    session = await newcomer.session()
    ended = json.dumps(session | {"accessToken": "ended"})
    await newcomer.page.evaluate(
        "([key, session]) => sessionStorage.setItem(key, session)", [SESSION, ended]
    )
    await newcomer.press("Sign out")

    async def is_over() -> bool:
        answer = await run.api.as_(session["accessToken"]).post(json={"query": "{ me { id } }"})
        return "errors" in answer.json()

    await until(is_over)


async def test_copies_of_a_window_renew_one_after_the_other(shop: Shop) -> None:
    await shop.sign_in(ALICE.name)
    async with shop.page.context.expect_page() as opened:
        await shop.page.evaluate("() => { window.open('/') }")
    copy = Shop(await opened.value)
    await expect(copy.page.locator("#name")).to_have_text(ALICE.name)
    assert await copy.session() == await shop.session()
    for window in (shop, copy):
        await window.outdate()
    first, second = await asyncio.gather(shop.page.evaluate(RENEW), copy.page.evaluate(RENEW))
    assert first == second
    for window in (shop, copy):
        await window.put_into_basket("bike-lights")
    assert (await copy.session())["refreshToken"] == (await shop.session())["refreshToken"]


async def test_a_session_that_ends_elsewhere_is_said_at_once(run: Run, newcomer: Shop) -> None:
    await newcomer.page.locator("tidings-inbox [part=badge]").wait_for()  # the welcome
    await (await api_of(run, newcomer)).ask("mutation { logout(everywhere: true) }")
    await expect(newcomer.page.get_by_text("Your session has ended")).to_be_visible()
    await expect(newcomer.page.locator("#shop")).to_be_hidden()
    assert await newcomer.session() is None
    await newcomer.sign_in(ALICE.name)


async def test_who_is_offline_is_told_and_goes_on_afterwards(newcomer: Shop) -> None:
    await newcomer.page.context.set_offline(True)
    await newcomer.page.locator("#heart-compass").click()
    await newcomer.is_warned("You are offline")
    await newcomer.page.context.set_offline(False)
    await newcomer.page.locator("#heart-compass").click()
    await newcomer.is_told("Compass is on your wish list")
    await expect(newcomer.page.locator("#problem")).to_be_empty()


async def test_a_server_that_is_ill_or_gone_or_asked_too_often_is_said(
    browser: Browser, tmp_path: Path
) -> None:
    async with tidings(
        "serve", folder=tmp_path, DEMO_DATA="true", REGISTRATIONS_PER_ADDRESS=1
    ) as run:
        shop = await open_shop(browser, await run.ready())
        await shop.register("Nora", "nora@shop.example")
        await expect(shop.page.locator("#name")).to_have_text("Nora")
        await shop.press("Sign out")
        await shop.register("Nina", "nina@shop.example")
        await expect(shop.page.get_by_text("That was too often. Try again in")).to_be_visible()

        await shop.sign_in(ALICE.name)
        [mongod] = run.mongods
        await hang(mongod)
        try:
            await shop.page.locator("#heart-compass").click()
            await shop.is_warned("The server can’t do this just now")
            await shop.page.reload()
            await expect(shop.page.locator(".card").first).to_be_visible()
            await shop.press("Sign out")
            await shop.press(f"Sign in as {BEN.name}")
            await shop.is_warned("The server can’t do this just now")
        finally:
            os.kill(mongod, signal.SIGCONT)

        await shop.sign_in(BEN.name)
        run.send(signal.SIGKILL)
        await run.ended()
        await shop.page.locator("#heart-fleece").click()
        await shop.is_warned("The server can’t be reached")
        await expect(shop.page.locator(".card").first).to_be_visible()
        await shop.page.context.close()
