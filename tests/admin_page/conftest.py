"""A demo in which nothing happens by itself, and its operator's page in Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.admin import ADMIN, Admin, login, quiet_demo, visit
from tests.graphiql import open_browser
from tests.kit import Api
from tests.processes import Run


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    async with quiet_demo(tmp_path_factory.mktemp("shop")) as run:
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
    """The page, and nobody is signed in."""
    async with visit(shop, browser) as visitor:
        yield visitor


@pytest.fixture
async def admin(visitor: Admin) -> Admin:
    await visitor.sign_in()
    await visitor.heading("Overview").wait_for()
    return visitor
