"""What an operator types, and what is refused: in one sentence, with an exit code that is not 0."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from services import demo
from tests.kit import PASSWORD, GraphQLFailed
from tests.processes import ROOT, SECRET, Run, elsewhere, nowhere, tidings
from tests.servers import PrivateMongod, free_port

LOGIN = "mutation($input: LoginInput!) { login(input: $input) { accessToken user { id name } } }"


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """A running shop with demo data, which tests leave running."""
    folder = tmp_path_factory.mktemp("shop")
    async with tidings("serve", folder=folder, DEMO_DATA="true") as run:
        yield await run.ready()


async def test_a_taken_port_is_told_in_a_sentence(shop: Run, tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, GATEWAY_PORT=shop.port) as run:
        sentence = await run.refused()
        assert str(shop.port) in sentence
        assert "GATEWAY_PORT" in sentence
        assert not run.mongods


async def test_an_address_of_another_machine_is_told_in_a_sentence(tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, GATEWAY_HOST="192.0.2.1") as run:
        assert "GATEWAY_HOST" in await run.refused()


async def test_a_folder_of_another_run_is_told_in_a_sentence(shop: Run, tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, DATA_DIR=shop.data_dir) as run:
        sentence = await run.refused()
        assert str(shop.process.pid) in sentence
        assert "DATA_DIR" in sentence
    await shop.ready()


async def test_a_folder_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for data_dir in (file, file / "below", _folder_that_nobody_may_make(tmp_path)):
        async with tidings("serve", folder=tmp_path / "run", DATA_DIR=data_dir) as run:
            sentence = await run.refused()
            assert str(data_dir) in sentence
            assert "DATA_DIR" in sentence


async def test_a_machine_without_mongod_is_told_in_a_sentence(tmp_path: Path) -> None:
    # An empty package hides the wheel's, and an empty folder all that is on PATH.
    (tmp_path / "hiding" / "fiftyone").mkdir(parents=True)
    (tmp_path / "hiding" / "fiftyone" / "__init__.py").touch()
    (tmp_path / "bin").mkdir()
    path = f"{tmp_path / 'hiding'}:{ROOT}"
    async with tidings(
        "serve", folder=tmp_path / "run", PYTHONPATH=path, PATH=tmp_path / "bin"
    ) as run:
        sentence = await run.refused()
        assert "no mongod" in sentence
        assert "MONGODB_URL" in sentence


async def test_a_folder_holds_no_secret_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "jwt.secret").write_text("half writ")
    async with tidings("serve", folder=tmp_path) as run:
        assert "jwt.secret" in await run.refused()


async def test_an_empty_setting_is_one_that_is_not_set(tmp_path: Path) -> None:
    async with tidings("serve", folder=tmp_path, GATEWAY_HOST="", RETRY_WAITS="") as run:
        assert "http://127.0.0.1:" in (await run.ready()).output


@pytest.mark.parametrize(
    ("arguments", "settings", "names"),
    [
        ("serve", {"RABBITMQ_URL": "amqp://127.0.0.1/"}, "MONGODB_URL"),
        ("gateway", {}, "RABBITMQ_URL"),
        ("serve", {"MONGODB_URL": "mongodb://127.0.0.1:1/"}, "JWT_SECRET"),
        ("serve", {"JWT_SECRET": "short"}, "JWT_SECRET"),
        ("serve", {"GATEWAY_PORT": "abc"}, "GATEWAY_PORT"),
        ("serve", {"RETRY_WAITS": "1, 2"}, "RETRY_WAITS"),
        ("serve", {"LOG_LEVEL": "LOUD"}, "LOG_LEVEL"),
        ("serve", {"WRITE_WINDOW_SECONDS": "1"}, "WRITE_WINDOW_SECONDS"),
        ("serve", {"MONGODB_URL": "http://db", "JWT_SECRET": SECRET}, "MONGODB_URL"),
        ("serve", {"MONGODB_DATABASE": "a/b"}, "MONGODB_DATABASE"),
        (
            "gateway",
            {"RABBITMQ_URL": "rabbit:5672", "MONGODB_URL": "mongodb://x", "JWT_SECRET": SECRET},
            "RABBITMQ_URL",
        ),
        (
            "gateway",
            {
                "RABBITMQ_URL": "amqp://127.0.0.1/",
                "MONGODB_URL": "mongodb://127.0.0.1:1/",
                "JWT_SECRET": SECRET,
                "RABBITMQ_TIMEOUT_SECONDS": "2",
            },
            "OUTBOX_LEASE_SECONDS",
        ),
    ],
)
async def test_a_setting_that_cannot_be_is_named_in_a_sentence(
    tmp_path: Path, arguments: str, settings: dict[str, Any], names: str
) -> None:
    async with tidings(arguments, folder=tmp_path, **settings) as run:
        assert names in await run.refused()
        assert not run.mongods


async def test_a_database_out_of_reach_is_given_up_after_the_time_that_is_set(
    tmp_path: Path,
) -> None:
    settings = elsewhere(nowhere()) | {"STARTUP_WAIT_SECONDS": "1"}
    began = time.monotonic()
    async with tidings("serve", folder=tmp_path, **settings) as run:
        assert "MONGODB_URL" in await run.refused()
        assert time.monotonic() - began >= 1


async def test_a_database_that_is_no_replica_set_is_refused(
    tmp_path: Path, standalone: str
) -> None:
    async with tidings("serve", folder=tmp_path, **elsewhere(standalone)) as run:
        assert "replica set" in await run.refused()


async def test_a_user_is_made_beside_a_running_shop_and_can_log_in_at_once(
    shop: Run, tmp_path: Path
) -> None:
    output = await _create_user(tmp_path, shop, "beside@shop.example", "admin")
    assert "admin beside@shop.example" in output
    answer = await shop.api.ask(LOGIN, input={"email": "beside@shop.example", "password": PASSWORD})
    assert answer["login"]["user"]["id"] in output


async def test_a_user_is_made_without_a_running_shop_and_can_log_in_later(tmp_path: Path) -> None:
    await _create_user(tmp_path, None, "before@shop.example", "user")
    async with tidings("serve", folder=tmp_path) as run:
        await (await run.ready()).api.ask(
            LOGIN, input={"email": "before@shop.example", "password": PASSWORD}
        )


async def test_a_taken_address_is_told_in_a_sentence(shop: Run, tmp_path: Path) -> None:
    command, stdin = _user_command("ALICE@shop.example", "user"), f"{PASSWORD}\n"
    async with tidings(*command, folder=tmp_path, stdin=stdin, DATA_DIR=shop.data_dir) as run:
        assert "email" in (await run.refused()).lower()


async def test_a_user_without_a_password_is_refused_when_nobody_can_be_asked(
    shop: Run, tmp_path: Path
) -> None:
    command = _user_command("nobody@shop.example", "user")
    async with tidings(*command, folder=tmp_path, DATA_DIR=shop.data_dir) as run:
        assert "standard input" in await run.refused()


async def test_a_disabled_user_comes_in_no_more(shop: Run, tmp_path: Path) -> None:
    email = "gone@shop.example"
    await _create_user(tmp_path, shop, email, "admin")
    for name, says in ((email, "Disabled admin"), ("nobody@shop.example", "no user")):
        command = ["disable-user", "--email", name]
        async with tidings(*command, folder=tmp_path, DATA_DIR=shop.data_dir) as run:
            await run.ended()
            assert says in run.output + run.errors
    with pytest.raises(GraphQLFailed) as failure:
        await shop.api.ask(LOGIN, input={"email": email, "password": PASSWORD})
    assert failure.value.code == "UNAUTHENTICATED"


async def test_production_does_not_start_with_accounts_of_the_demo(
    mongod: PrivateMongod, tmp_path: Path
) -> None:
    settings = elsewhere(mongod.url) | {"MONGODB_DATABASE": f"test_{uuid4().hex[:12]}"}
    async with tidings("serve", folder=tmp_path / "demo", DEMO_DATA="true", **settings) as run:
        await run.ready()
    production = settings | {
        "PROFILE": "production",
        "PUBLIC_URL": "https://tidings.example",
        "BCRYPT_COST": 10,
    }
    async with tidings("serve", folder=tmp_path / "first", **production) as run:
        assert "admin@shop.example" in await run.refused()
    for account in demo.ACCOUNTS:
        command = ["disable-user", "--email", account.email]
        async with tidings(*command, folder=tmp_path / account.key, **production) as run:
            assert await run.ended() == 0, run.errors
    async with tidings("serve", folder=tmp_path / "second", **production) as run:
        await run.ready()


async def test_an_api_key_is_made_for_a_backend_and_shown_once(shop: Run, tmp_path: Path) -> None:
    output = await _create_user(tmp_path, shop, "backend@shop.example", "service")
    id = output.split()[-1].rstrip(".")
    command = ["create-api-key", "--email", "backend@shop.example", "--name", "orders"]
    command += ["--scope", "read_users"]
    async with tidings(*command, folder=tmp_path, DATA_DIR=shop.data_dir) as run:
        assert await run.ended() == 0, run.errors
        key = run.output.split()[0]
    found = await shop.api.as_(key).ask("query ($id: ID!) { user(id: $id) { email } }", id=id)
    assert found == {"user": {"email": "backend@shop.example"}}


async def test_an_api_key_for_nobody_or_for_a_customer_is_refused(
    shop: Run, tmp_path: Path
) -> None:
    for email, says in (("nobody@shop.example", "no user"), ("alice@shop.example", "SERVICE")):
        command = ["create-api-key", "--email", email, "--name", "x", "--scope", "read_users"]
        async with tidings(*command, folder=tmp_path, DATA_DIR=shop.data_dir) as run:
            assert says in await run.refused()


async def test_the_backlog_tells_what_waits_in_the_outbox(shop: Run, tmp_path: Path) -> None:
    async with tidings("backlog", folder=tmp_path, DATA_DIR=shop.data_dir) as run:
        assert await run.ended() == 0, run.errors
        assert re.fullmatch(
            r"\d+ events? in the outbox(, the oldest for \d+ s)?\.", run.output.strip()
        )


async def test_health_tells_whether_the_gateway_is_ready(shop: Run, tmp_path: Path) -> None:
    anywhere, elsewhere = "0.0.0.0", "127.0.0.2"
    for host, port, code in (
        ("127.0.0.1", shop.port, 0),
        ("127.0.0.1", free_port(), 1),
        (anywhere, shop.port, 0),
        (elsewhere, shop.port, 1),
    ):
        place: dict[str, Any] = {"GATEWAY_HOST": host, "GATEWAY_PORT": port}
        async with tidings("health", "gateway", folder=tmp_path, **place) as run:
            assert await run.ended() == code
            assert not run.errors


@pytest.mark.parametrize(
    ("command", "name"),
    [("schema", "schema.graphql"), ("asyncapi", "asyncapi.yaml"), ("settings", ".env.example")],
)
async def test_an_export_is_checked_against_the_code(
    tmp_path: Path, command: str, name: str
) -> None:
    copy = tmp_path / name
    shutil.copy(ROOT / name, copy)
    assert await _check(command, tmp_path) == (0, "")
    copy.write_text(copy.read_text() + "\n# changed by hand\n")
    code, output = await _check(command, tmp_path)
    assert code == 1
    assert f"python -m services {command}" in output
    async with tidings(command, folder=tmp_path) as run:
        assert await run.ended() == 0
    assert copy.read_text() == (ROOT / name).read_text()


@pytest.fixture
async def standalone(tmp_path: Path, mongod: PrivateMongod) -> AsyncIterator[str]:
    """The address of a mongod that is no replica set."""
    port, folder = free_port(), tmp_path / "standalone"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        psutil.Process(mongod.pid).exe(),
        *("--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1"),
        "--nounixsocket",
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"mongodb://127.0.0.1:{port}/"
    finally:
        process.kill()
        await process.wait()


def _folder_that_nobody_may_make(tmp_path: Path) -> Path:
    if os.geteuid() == 0:
        return Path("/proc/tidings")
    (tmp_path / "parent").mkdir(mode=0o500)
    return tmp_path / "parent" / "data"


def _user_command(email: str, role: str) -> list[str]:
    return ["create-user", "--name", "Some Body", "--email", email, "--role", role]


async def _create_user(folder: Path, shop: Run | None, email: str, role: str) -> str:
    data_dir = shop.data_dir if shop else folder / "data"
    command, stdin = _user_command(email, role), f"{PASSWORD}\n"
    async with tidings(*command, folder=folder, stdin=stdin, DATA_DIR=data_dir) as run:
        assert await run.ended() == 0, run.errors
        return run.output


async def _check(command: str, folder: Path) -> tuple[int, str]:
    async with tidings(command, "--check", folder=folder) as run:
        return await run.ended(), run.output
