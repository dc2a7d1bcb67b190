"""Make docs/images/shop.png, two customers side by side, and shop-*.png: wide, narrow, light, dark.

Run it from the project's folder: .venv/bin/python -m scripts.shop_pictures
"""

from __future__ import annotations

import asyncio
import tempfile
from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, expect

from services.demo import ACCOUNTS
from tests.admin import SCHEMES
from tests.graphiql import open_browser
from tests.processes import Run, tidings
from tests.shop import DESKTOP, PHONE, Shop, open_shop

PICTURES = Path("docs/images")
WINDOW = (700, 860)
ALICE, BEN, _ = ACCOUNTS
SIDE_BY_SIDE = """
<style>
  body { background: #d9dedb; display: flex; gap: 24px; margin: 0; padding: 24px; }
  img { border-radius: 12px; box-shadow: 0 8px 30px rgb(0 0 0 / 25%); }
</style>
"""


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            tidings("serve", folder=Path(folder), DEMO_DATA="true") as run,
            open_browser() as browser,
        ):
            await run.ready()
            await _two_windows(browser, run)
            await _one_window(browser, run)


async def _two_windows(browser: Browser, run: Run) -> None:
    alice, ben = [await _window(browser, run, one.name, WINDOW) for one in (ALICE, BEN)]
    order = await alice.buy("trail-shoes", "compass")
    for step in ("Mark as paid", "Mark as packed", "Ship it"):
        await alice.press(step)
        await alice.is_told(f"Order {order} is ")
    await alice.press("Send to everybody")
    await alice.is_told("on its way to everybody")
    await ben.press("Recommend to me")
    await ben.is_told("Sent")
    await ben.put_into_basket("enamel-mug")
    await expect(alice.page.locator(".order .status")).to_have_text("shipped")
    for window in (alice, ben):
        await window.page.evaluate("scrollTo(0, 0)")
    await ben.open_bell()
    await expect(ben.item("Picked for you")).to_be_visible()
    await ben.page.mouse.move(0, 0)
    shots = [await window.page.screenshot() for window in (alice, ben)]
    images = "".join(f'<img src="data:image/png;base64,{b64encode(x).decode()}">' for x in shots)
    page = await browser.new_page(viewport={"width": 2 * WINDOW[0] + 72, "height": WINDOW[1] + 48})
    await page.set_content(SIDE_BY_SIDE + images)
    _keep(await page.screenshot(), "shop.png")


def _keep(picture: bytes, name: str) -> None:
    """In 256 colours: a third of the bytes, and nobody sees it."""
    colours = Image.open(BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    colours.save(PICTURES / name, optimize=True)


async def _one_window(browser: Browser, run: Run) -> None:
    for name, size in {"desktop": DESKTOP, "phone": PHONE}.items():
        shop = await _window(browser, run, BEN.name, size)
        await shop.open_bell()
        await shop.page.mouse.move(0, 0)
        for scheme in SCHEMES:
            await shop.page.emulate_media(color_scheme=scheme)
            _keep(await shop.page.screenshot(), f"shop-{name}-{scheme}.png")
        await shop.page.context.close()


async def _window(browser: Browser, run: Run, name: str, size: tuple[int, int]) -> Shop:
    shop = await open_shop(browser, run, size)
    await shop.page.emulate_media(reduced_motion="reduce")
    await shop.sign_in(name)
    await expect(shop.page.locator(".pick").first).to_be_visible()
    await expect(shop.page.locator("tidings-inbox [part=badge]")).to_be_visible()
    return shop


if __name__ == "__main__":
    asyncio.run(main())
