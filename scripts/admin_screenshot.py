"""Make docs/images/admin-*.png: the operator's page of a demo in which things have happened.

Run it from the project's folder: .venv/bin/python -m scripts.admin_screenshot [MINUTES]
It takes so many minutes, half an hour if none are given: what the page shows really happened.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path
from typing import Final
from uuid import uuid4

from playwright.async_api import Browser, ViewportSize

from services.demo import ACCOUNTS
from tests.admin import SCHEMES, Admin, login
from tests.graphiql import open_browser
from tests.processes import Run, tidings
from tests.shop import PHONE

PICTURES: Final = Path("docs/images")
SIZES: Final = {"desktop": (1280, 860), "phone": PHONE}
MINUTES: Final = 30
ORDER: Final = """mutation ($user: ID!, $order: ID!, $status: String!) {
  publishOrderStatus(input: { orderId: $order, userId: $user, status: $status }) { eventId } }"""
NO_PROMOTIONS: Final = """mutation {
  updatePreferences(input: { types: [{ type: PROMOTION, enabled: false }] }) { version } }"""
PROMOTION: Final = """mutation {
  publishPromotion(input: { title: "Rain is coming", body: "Jackets, 20 % off." }) { eventId } }"""
STATUSES: Final = ("placed", "paid", "packed", "shipped", "delivered")


async def main(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with tidings("serve", folder=Path(folder), DEMO_DATA="true") as run:
            await run.ready()
            await trade(run, minutes * 60)
            async with open_browser() as browser:
                await photograph(browser, run)


async def photograph(browser: Browser, run: Run) -> None:
    for name, (width, height) in SIZES.items():
        viewport: ViewportSize = {"width": width, "height": height}
        admin = Admin(await browser.new_page(viewport=viewport), run.port)
        await admin.open()
        await admin.sign_in()
        await admin.reads("Notifications sent")
        for scheme in SCHEMES:
            await admin.page.emulate_media(color_scheme=scheme)
            await admin.page.screenshot(path=PICTURES / f"admin-{name}-{scheme}.png")


async def trade(run: Run, seconds: float) -> None:
    """Orders that move, now and then a promotion, and a customer who wants none of these."""
    people = [await login(run, account) for account in ACCOUNTS]
    (_, alice), (as_ben, ben), (admin, _) = people
    await as_ben.ask(NO_PROMOTIONS)
    chance = random.Random(7)  # noqa: S311 - alike each time
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    renewed = loop.time()
    while loop.time() < end:
        if loop.time() > renewed + 600:  # a token lasts a quarter of an hour
            account, renewed = ACCOUNTS[-1], loop.time()
            admin, _ = await login(run, account)
        order, user = uuid4().hex[:6], chance.choice((alice, ben))
        for status in STATUSES[: chance.randint(1, 5)]:
            await admin.ask(ORDER, user=user, order=order, status=status)
        if chance.random() < 0.4:
            await admin.ask(PROMOTION)
        await asyncio.sleep(chance.uniform(1, 25))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if sys.argv[1:] else MINUTES))
