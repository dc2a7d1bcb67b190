"""Make docs/images/graphiql.png: a demo shop in GraphiQL, a live subscription with a result.

Run it from the project's folder: .venv/bin/python -m scripts.screenshot
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from services.demo import ACCOUNTS
from tests.graphiql import GraphiQL, open_browser
from tests.processes import tidings

PICTURE = Path("docs/images/graphiql.png")


async def main() -> None:
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            tidings("serve", folder=Path(folder), DEMO_DATA="true") as run,
            open_browser() as browser,
        ):
            await run.ready()
            page = await browser.new_page(viewport={"width": 1400, "height": 850})
            graphiql = GraphiQL(page)
            await graphiql.open(f"http://127.0.0.1:{run.port}/graphql")
            await graphiql.sign_in(ACCOUNTS[0].name)
            await graphiql.run_at_cursor("Live")
            await graphiql.shows("notificationAdded", "ORDER_UPDATE")
            await page.screenshot(path=PICTURE)


if __name__ == "__main__":
    asyncio.run(main())
