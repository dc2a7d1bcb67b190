"""One service of the campaign: as `python -m services` runs it, but with ways to harm it.

    python -m campaign.process gateway | users | notifications | scheduler

CAMPAIGN_CLOCK_OFFSET   seconds that are added to its clock, so that it plays in another night
CAMPAIGN_FAILPOINT_FILE `<failpoint> <n>` in it: kill -9 at the n-th time that it gets there
CAMPAIGN_TASKS_FILE     where SIGUSR1 writes how many asyncio tasks there are
CAMPAIGN_CONTROL        a mechanism to do without: a negative control
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Final

TASKS_FILE: Final = "CAMPAIGN_TASKS_FILE"
FAILPOINT_FILE: Final = "CAMPAIGN_FAILPOINT_FILE"
CLOCK_OFFSET: Final = "CAMPAIGN_CLOCK_OFFSET"
CONTROL: Final = "CAMPAIGN_CONTROL"


def _write_tasks(*_: object) -> None:
    path = Path(os.environ[TASKS_FILE])
    with suppress(OSError, RuntimeError):
        scratch = path.with_suffix(".new")
        scratch.write_text(str(len(asyncio.all_tasks())))
        scratch.replace(path)


if __name__ == "__main__":  # before the long imports: an early SIGUSR1 must not end us
    signal.signal(signal.SIGUSR1, _write_tasks)

from services import __main__ as command_line
from services import host
from services.shared import failpoints
from services.shared.clock import DatabaseClock


def move_clock(offset: timedelta) -> None:
    """Add to the time that the whole process goes by: the database's, plus `offset`."""

    class MovedClock(DatabaseClock):
        def now(self) -> datetime:
            return super().now() + offset

    vars(host)["DatabaseClock"] = MovedClock


class Trap:
    """Ends the process at the failpoint that a file names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._order = ""
        self._reached = 0

    def __call__(self, failpoint: failpoints.Failpoint) -> None:
        try:
            order = self._path.read_text()
        except OSError:
            return
        name, _, rest = order.partition(" ")
        if name != failpoint.value:
            return
        self._reached = self._reached + 1 if order == self._order else 1
        self._order = order
        if self._reached >= int(rest.split()[0]):
            with suppress(FileNotFoundError):
                self._path.unlink()  # whoever removes it decides
                os.kill(os.getpid(), signal.SIGKILL)


def main(kind: str) -> int:
    if path := os.environ.get(FAILPOINT_FILE):
        failpoints.arm(Trap(Path(path)))
    if name := os.environ.get(CONTROL):
        import_module("campaign.controls").CONTROLS[name].switch_off()
    if offset := float(os.environ.get(CLOCK_OFFSET, "0")):
        move_clock(timedelta(seconds=offset))
    return command_line.main([kind])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
