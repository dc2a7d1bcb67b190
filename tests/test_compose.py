"""compose.yaml: what it says is what runs. No Docker engine is needed: its commands are run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
import yaml
from aio_pika.exceptions import ChannelPreconditionFailed

from services.shared.settings import Settings
from services.shared.vocabulary import Role
from tests.kit import PASSWORD, Api, forget_queues, quick_settings
from tests.processes import ROOT, Run, tidings
from tests.servers import PrivateMongod, PrivateRabbitMQ, need_rabbitmq, private_rabbitmq

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = ("gateway", "users", "notifications", "scheduler")
SCALES = {"gateway": 2, "users": 1, "notifications": 2, "scheduler": 2}
PYTHON_M_SERVICES = ["python", "-m", "services"]

LOGIN = """mutation($email: String!, $password: String!) {
  login(input: {email: $email, password: $password}) { accessToken user { id } }
}"""
REGISTER = """mutation($email: String!, $password: String!) {
  register(input: {name: "Zoe", email: $email, password: $password}) { accessToken user { id } }
}"""
ADDED = """subscription($types: [NotificationType!]) {
  notificationAdded(types: $types) { cursor node { id title content } }
}"""


class Fleet:
    """The processes of compose.yaml, by service."""

    def __init__(self, runs: dict[str, list[Run]], environment: dict[str, Any]) -> None:
        self.runs = runs
        self.environment = environment

    @property
    def gateways(self) -> list[Api]:
        return [run.api for run in self.runs["gateway"]]


@pytest.fixture(scope="module")
async def fleet(
    mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    environment: dict[str, Any] = {
        name: str(value)
        for name, value in COMPOSE["services"]["gateway"]["environment"].items()
        if "${" not in str(value)
    }
    environment |= {
        "MONGODB_URL": mongod.url,
        "MONGODB_DATABASE": f"compose_{uuid4().hex[:8]}",
        "RABBITMQ_URL": rabbitmq.url,
        "GATEWAY_HOST": "127.0.0.1",
        "JWT_SECRET": "a secret that all processes of the test share",
    }
    await forget_queues(rabbitmq.url, quick_settings("", retry_waits=(1, 5, 30, 120)))
    runs: dict[str, list[Run]] = {service: [] for service in OURS}
    async with AsyncExitStack() as stack:
        for service in OURS:
            for number in range(SCALES[service]):
                folder = tmp_path_factory.mktemp(f"{service}-{number}")
                arguments = _arguments(service)
                process = tidings(*arguments, folder=folder, **environment)
                runs[service].append(await stack.enter_async_context(process))
        for run in runs["gateway"]:
            await run.ready()
        yield Fleet(runs, environment)


def _arguments(service: str) -> list[str]:
    command: list[str] = COMPOSE["services"][service]["command"]
    assert command[:3] == PYTHON_M_SERVICES
    return command[3:]


def test_all_of_our_services_share_one_image_and_wait_for_a_healthy_broker_and_database() -> None:
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["image"] == "tidings"
        assert {what["condition"] for what in service["depends_on"].values()} == {"service_healthy"}
        assert service["healthcheck"]["test"] == ["CMD", *PYTHON_M_SERVICES, "health", name]
        assert "container_name" not in service  # which would forbid --scale


async def test_a_tick_becomes_a_next_on_every_gateway_across_processes(fleet: Fleet) -> None:
    first, second = fleet.gateways
    zoe = await _login(first, REGISTER, f"{uuid4().hex}@shop.example", PASSWORD)
    admin = await _admin(fleet)
    token, user_id = zoe["accessToken"], zoe["user"]["id"]
    event = {
        "type": "order.status_changed",
        "data": {"orderId": "4711", "userId": user_id, "status": "shipped"},
    }
    async with (
        first.as_(token).follow(ADDED, types=["ORDER_UPDATE"]) as on_first,
        second.as_(token).follow(ADDED, types=["ORDER_UPDATE"]) as on_second,
    ):
        await admin.ask(
            "mutation($input: ScheduleInput!) { createSchedule(input: $input) { id } }",
            input={"name": "every minute", "cron": "* * * * *", "event": event},
        )
        seen = [
            (await stream.next(timeout=75))["notificationAdded"] for stream in (on_first, on_second)
        ]
    assert seen[0]["node"] == seen[1]["node"]
    assert seen[0]["node"]["title"] == "Order 4711 is on its way"
    page = await first.as_(token).ask(
        "{ notifications(types: [ORDER_UPDATE]) { edges { node { id } } } }"
    )
    assert [edge["node"]["id"] for edge in page["notifications"]["edges"]] == [
        seen[0]["node"]["id"]
    ]


async def test_what_is_read_on_one_gateway_is_known_on_the_other(fleet: Fleet) -> None:
    first, second = fleet.gateways
    zoe = await _login(first, REGISTER, f"{uuid4().hex}@shop.example", PASSWORD)
    admin = await _admin(fleet)
    token = zoe["accessToken"]
    async with second.as_(token).follow(
        "subscription { notificationChanged { kind notification { id read } } }"
    ) as changes:
        made = await admin.ask(
            "mutation($input: CreateNotificationInput!) "
            "{ createNotification(input: $input) { notification { id } } }",
            input={"userId": zoe["user"]["id"], "type": "PROMOTION", "content": "Hello"},
        )
        id = made["createNotification"]["notification"]["id"]
        await first.as_(token).ask(
            "mutation($id: ID!) { markNotificationRead(id: $id) { id } }", id=id
        )
        change = (await changes.next())["notificationChanged"]
    assert change == {"kind": "READ", "notification": {"id": id, "read": True}}


@pytest.mark.parametrize("service", OURS)
async def test_the_health_check_of_a_running_service_is_well(
    fleet: Fleet, service: str, tmp_path: Path
) -> None:
    arguments = COMPOSE["services"][service]["healthcheck"]["test"][4:]
    port: dict[str, Any] = {"GATEWAY_PORT": str(fleet.runs["gateway"][0].port)}
    async with tidings(*arguments, folder=tmp_path, **(fleet.environment | port)) as check:
        assert await check.ended() == 0, check.errors


async def test_the_broker_takes_no_events_of_twice_a_workers_size(
    tmp_path: Path,
) -> None:
    need_rabbitmq()
    (tmp_path / "rabbitmq.conf").write_text(COMPOSE["configs"]["rabbitmq"]["content"])
    most = 2 * Settings.model_fields["max_event_bytes"].default
    async with (
        private_rabbitmq(tmp_path) as broker,
        await aio_pika.connect(broker.url) as connection,
    ):
        exchange = (await connection.channel()).default_exchange
        await exchange.publish(aio_pika.Message(b"x" * most), "nowhere", mandatory=False)
        with pytest.raises(ChannelPreconditionFailed):
            await exchange.publish(aio_pika.Message(b"x" * (most + 1)), "nowhere", mandatory=False)


async def _admin(fleet: Fleet) -> Api:
    """An admin, made by the command line as an operator makes one."""
    email = f"{uuid4().hex}@shop.example"
    arguments = ["create-user", "--role", Role.ADMIN, "--name", "Ada", "--email", email]
    folder = fleet.runs["users"][0].data_dir.parent / email
    async with tidings(
        *arguments, folder=folder, stdin=f"{PASSWORD}\n", **fleet.environment
    ) as creating:
        assert await creating.ended() == 0, creating.errors
    gateway = fleet.gateways[1]
    return gateway.as_((await _login(gateway, LOGIN, email, PASSWORD))["accessToken"])


async def _login(gateway: Api, document: str, email: str, password: str) -> Any:
    return next(iter((await gateway.ask(document, email=email, password=password)).values()))
