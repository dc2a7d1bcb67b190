"""Time: the database's, whatever the wall clock of a machine says."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.shared.clock import DatabaseClock, SystemClock
from tests.servers import need, until

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
PROGRAM = """
import asyncio, sys
from datetime import UTC, datetime
from services.shared.clock import DatabaseClock, SystemClock

async def main():
    async def ask():
        return datetime.fromisoformat(sys.argv[1])
    clock = DatabaseClock(ask)
    await clock.adjust()
    for line in sys.stdin:
        print(clock.now().isoformat(), SystemClock().now().isoformat(), flush=True)

asyncio.run(main())
"""


async def test_it_is_the_databases_time_to_within_a_round_trip() -> None:
    elsewhere = timedelta(days=-40)
    slow_answers = iter([0.2, 0.1, 0.0, 0.1, 0.2])

    async def ask() -> datetime:
        told = SystemClock().now() + elsewhere
        await asyncio.sleep(next(slow_answers))
        return told

    clock = DatabaseClock(ask)
    await clock.adjust()
    assert abs(clock.now() - SystemClock().now() - elsewhere) < timedelta(milliseconds=45)


async def test_the_first_answers_may_be_slow_while_a_quick_one_is_still_to_come() -> None:
    elsewhere = timedelta(days=-40)
    answers = iter([0.15] * 7 + [0.0] * 9)

    async def ask() -> datetime:
        told = SystemClock().now() + elsewhere
        await asyncio.sleep(next(answers))
        return told

    clock = DatabaseClock(ask)
    await clock.adjust()
    assert abs(clock.now() - SystemClock().now() - elsewhere) < timedelta(milliseconds=45)


async def test_when_all_answers_are_slow_it_starts_all_the_same() -> None:
    async def ask() -> datetime:
        await asyncio.sleep(0.11)
        return SystemClock().now()

    clock = DatabaseClock(ask)
    async with asyncio.timeout(10):
        await clock.adjust()
    assert abs(clock.now() - SystemClock().now()) < timedelta(seconds=0.2)


async def test_it_counts_the_time_that_the_machine_sleeps() -> None:
    """In a time namespace whose machine has slept for years before the program began."""
    unshare = shutil.which("unshare")
    need(unshare is not None, "there is no unshare: apt-get install util-linux")
    assert unshare
    program = "import time; from services.shared.clock import steady; print(steady())"
    process = await asyncio.create_subprocess_exec(
        *(unshare, "--time", "--boottime", "1000000000", "--fork", sys.executable, "-c", program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    output, errors = await process.communicate()
    need(b"unshare" not in errors, f"there are no time namespaces: {errors.decode()}")
    assert float(output) > 1_000_000_000


@pytest.mark.parametrize("jump", ["+3600", "-3600"])
async def test_a_wall_clock_that_jumps_moves_it_not(tmp_path: Path, jump: str) -> None:
    need(FAKETIME is not None, "there is no libfaketime: apt-get install libfaketime")
    setting = tmp_path / "faketime"
    setting.write_text("+0")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, datetime(2026, 10, 25, tzinfo=UTC).isoformat()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(setting),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )
    assert process.stdin
    assert process.stdout

    async def times() -> tuple[datetime, datetime]:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"\n")
        ours, wall = (await process.stdout.readline()).decode().split()
        return datetime.fromisoformat(ours), datetime.fromisoformat(wall)

    ours, wall = await times()
    setting.write_text(jump)

    async def jumped() -> bool:
        return abs((await times())[1] - wall) > timedelta(minutes=50)

    await until(jumped)
    assert timedelta() <= (await times())[0] - ours < timedelta(minutes=1)
    process.stdin.close()
    assert await process.wait() == 0
