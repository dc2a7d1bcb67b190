"""The campaign in short, and its parts that can be looked at alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from campaign.environment import can_move_clocks
from campaign.faults import FAULTS, chosen
from campaign.plan import LONGEST, SHORTEST, night, plan
from campaign.soak import draw, slope
from tests.servers import need, need_rabbitmq

ROOT = Path(__file__).parents[1]
SEED = 7
MINUTES = 3
STOP_SECONDS = 40
RARE = [kind for kind, fault in FAULTS.items() if fault.rare]


@asynccontextmanager
async def campaign(*arguments: str, cwd: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Running; ended with all that it has started when the block is left."""
    setpriv = shutil.which("setpriv")
    dying_with_us = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    process = await asyncio.create_subprocess_exec(
        *dying_with_us,
        *(sys.executable, "-m", "campaign", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.communicate(), STOP_SECONDS)
        if process.returncode is None:
            process.kill()  # its children die with it
            await process.wait()


@pytest.mark.timeout(600)
async def test_nothing_is_lost_and_nothing_comes_twice_whatever_breaks(tmp_path: Path) -> None:
    need_rabbitmq()
    need(can_move_clocks(), "there is no libfaketime: apt-get install libfaketime")
    written = tmp_path / "campaign.json"
    given = ["--minutes", f"{MINUTES}", "--seed", f"{SEED}", "--fault-every", "1.5"]
    async with campaign(*given, "--report", str(written), cwd=tmp_path) as process:
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-8000:]
    report = json.loads(written.read_text())
    facts = report["campaign"]
    assert set(facts["faults"]) == set(FAULTS), facts["impossible"]
    assert sum(facts["faults"].values()) >= len(FAULTS)
    assert facts["accepted"] >= 2000
    assert not facts["unexpected_exits"]


@pytest.mark.timeout(120)
async def test_ctrl_c_stops_a_campaign_and_all_that_it_started(tmp_path: Path) -> None:
    need_rabbitmq()
    async with campaign("--minutes", "5", cwd=tmp_path) as process:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"accepted" not in (line := await process.stdout.readline()):
                assert line, "it has ended"
        assert _processes_in(tmp_path)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            output = await process.stdout.read()
            assert await process.wait() == 130, output.decode()
    assert not _processes_in(tmp_path)
    assert not os.listdir(tmp_path)


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    first, again, other = (
        list(islice(plan(seed, list(FAULTS), RARE, 3), 200)) for seed in (SEED, SEED, SEED + 1)
    )
    assert first == again
    assert first != other


def test_every_kind_gets_its_turn_and_the_rare_ones_half_as_often() -> None:
    turns = len(FAULTS) + len(FAULTS) - len(RARE)
    steps = list(islice(plan(SEED, list(FAULTS), RARE, 3), 5 * turns))
    assert {step.kind for step in steps[: len(FAULTS)]} == set(FAULTS)
    assert Counter(step.kind for step in steps) == {
        kind: 5 if fault.rare else 10 for kind, fault in FAULTS.items()
    }
    assert all(SHORTEST <= step.length <= LONGEST for step in steps)
    assert 2.8 < sum(step.delay for step in steps) / len(steps) < 3.2


def test_a_plan_of_rare_faults_only_goes_on() -> None:
    assert {step.kind for step in islice(plan(SEED, RARE, RARE, 3), 20)} == set(RARE)


def test_faults_are_chosen_by_kind_and_by_group() -> None:
    assert chosen(["link-cut", "restart"]) == ["restart-mongod", "restart-broker", "link-cut"]
    with pytest.raises(ValueError, match="there is no fault called rain"):
        chosen(["rain"])


@pytest.mark.parametrize(("seed", "hours"), [(7, 25), (8, 23)])
def test_a_campaign_plays_while_the_clocks_change(seed: int, hours: int) -> None:
    length, zone = timedelta(minutes=20), ZoneInfo("Europe/Vienna")
    now = datetime(2026, 11, 24, 9, tzinfo=UTC)
    begins = night(seed, now, length)
    before, after = begins.astimezone(zone), (begins + length).astimezone(zone)
    assert begins > now
    assert (after.utcoffset() or timedelta()) - (before.utcoffset() or timedelta()) == timedelta(
        hours=24 - hours
    )


def test_a_slope_is_found_and_drawn(tmp_path: Path) -> None:
    points = [(float(x), 3 + 0.5 * x + (-1) ** x * 0.1) for x in range(100)]
    assert slope(points) == pytest.approx(0.5, rel=0.01)
    assert slope([]) == slope([(0, 1)]) == slope([(1, 1), (1, 2)]) == 0
    draw({"gateway-1": points, "users": [(0.0, 1.0)]}, tmp_path / "soak.svg")
    assert "gateway-1" in (tmp_path / "soak.svg").read_text()


def _processes_in(folder: Path) -> list[Any]:
    """Those whose working directory or command is in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + bytes((process / "cwd").readlink())
        except OSError:
            continue
        if bytes(folder) in words:
            found.append(words)
    return found
