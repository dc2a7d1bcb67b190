"""What many tests share: a private mongod and a RabbitMQ node, a house, and who is in it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

from services.shared.vocabulary import Role
from tests.kit import House, ShiftedClock, open_house, quick_settings
from tests.notices import Wire, customer, wired
from tests.servers import (
    PrivateMongod,
    PrivateRabbitMQ,
    need_rabbitmq,
    private_mongod_server,
    private_rabbitmq,
)

# A fault as rich paints it takes a tenth of a second, and some tests have hundreds.
_plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plain])

# Machines are noisy: no example fails for being slow.
settings.register_profile("tidings", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidings")


# Minutes each: a worker that begins with one of these late is alone in the end.
LONGEST: Final = ("test_campaign.py", "test_fuzz.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
async def mongod(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateMongod]:
    async with private_mongod_server(tmp_path_factory.mktemp("mongod")) as server:
        yield server


@pytest.fixture(scope="session")
async def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateRabbitMQ]:
    need_rabbitmq()
    async with private_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
def clock() -> ShiftedClock:
    """The clock of the module's own house: tests that move it move it back."""
    return ShiftedClock()


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    """A house on the embedded bus, shared by a module: a test makes users of its own."""
    async with open_house(quick_settings(mongod.url), clock) as open_:
        yield open_


@pytest.fixture(scope="module")
async def backend(house: House) -> AsyncIterator[Wire]:
    """The shop's backend, in the module's own house."""
    async with wired(await house.somebody(Role.SERVICE)) as backend:
        yield backend


@pytest.fixture
async def ann(house: House) -> AsyncIterator[Wire]:
    """A customer with an empty inbox, in the module's own house."""
    async with wired(await customer(house)) as ann:
        yield ann


@pytest.fixture
def _log_put_back() -> Iterator[None]:
    """For tests that set up the log, into what `capfd` sees: it is closed when they end."""
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**structured)


@pytest.fixture(autouse=True)
def _no_stray_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MONGODB_URL", "RABBITMQ_URL", "JWT_SECRET", "DEMO_DATA", "GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)
