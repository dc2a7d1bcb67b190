"""The README's tour, pasted as it stands: what a newcomer copies has to work."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit import House, forget_queues, open_house, quick_settings
from tests.processes import ROOT, Run, tidings
from tests.servers import PrivateMongod, PrivateRabbitMQ, until

README = (ROOT / "README.md").read_text()
TOUR = README[README.index("## Five minutes") : README.index("## Many processes")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TOUR, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    folder = tmp_path_factory.mktemp("readme")
    async with tidings("serve", folder=folder, DEMO_DATA="true") as run:
        yield await run.ready()


@pytest.fixture
async def on_rabbitmq(mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, rabbitmq_url=rabbitmq.url)
    await forget_queues(rabbitmq.url, settings)
    async with open_house(settings) as house:
        yield house


async def shell(script: str, port: int) -> str:
    """What bash prints, in the project's folder."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TOKEN": "", "GATEWAY_PORT": str(port)},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_tour_in_the_shell_works_as_it_stands(serving: Run, tmp_path: Path) -> None:
    register, page, live, preferences, why, publish = blocks("sh")
    heard = tmp_path / "live"
    listen = f"timeout 20 {sys.executable} -u - <<'PYTHON' > {heard} &"
    live = live.replace(".venv/bin/python - <<'PYTHON'", listen)
    again = publish.strip().splitlines()[-1]
    output = await shell(
        "\n".join(
            (
                register,
                page,
                live,
                "LISTENING=$!",
                f"until grep -q connection_ack {heard}; do sleep 0.1; done; sleep 1",
                preferences,
                why,
                publish,
                again,
                f"until grep -q 'on its way' {heard}; do sleep 0.1; done",
                "kill $LISTENING",
            )
        ),
        serving.port,
    )
    assert '"errors"' not in output
    assert '"email":"zoe@shop.example"' in output
    assert '"unreadCount":' in output
    assert '{"type":"PROMOTION","enabled":false}' in output
    assert '"reason":"ACCEPTED","steps":[{"words":"It lasts until' in output
    assert output.count('"eventId":"4711-shipped"') == 2
    assert heard.read_text().count("Order 4711 is on its way") == 1


async def test_the_python_producer_works_as_it_stands(
    on_rabbitmq: House, rabbitmq: PrivateRabbitMQ, tmp_path: Path
) -> None:
    [script] = blocks("python")
    zoe = await on_rabbitmq.somebody()
    path = tmp_path / "producer.py"
    path.write_text(script)
    process = await asyncio.create_subprocess_exec(sys.executable, path, rabbitmq.url, zoe.id)
    assert await process.wait() == 0

    async def delivered() -> bool:
        page = await zoe.api.ask("{ notifications { edges { node { title } } } }")
        titles = [edge["node"]["title"] for edge in page["notifications"]["edges"]]
        return "Order 4711 was delivered" in titles

    await until(delivered)
