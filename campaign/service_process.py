"""One process of the house: started again whenever it ends, and looked at while it lives."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from campaign.proxy import Proxy
from tests.servers import until

_STOP_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 5.0
_CODES: Final = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 0}
"""With which code a process ends on these."""


@dataclass(frozen=True)
class Sample:
    """What a process holds: bytes of memory, descriptors, sockets among them, asyncio tasks.

    `tasks` is None where it was not asked, or did not answer.
    """

    rss: int
    descriptors: int
    sockets: int
    tasks: int | None = None


class ServiceProcess:
    """One service, its links and its files; started again whenever it ends."""

    def __init__(self, name: str, kind: str, folder: Path) -> None:
        self.name = name
        self.kind = kind
        self.stderr = folder / f"{name}.log"
        self.failpoint = folder / f"{name}.failpoint"
        self.faketime = folder / f"{name}.faketime"
        self.tasks = folder / f"{name}.tasks"
        self.ended = asyncio.Condition()
        self.incarnation = 0
        self.lives_over = 0
        self.started_at = 0.0
        self.links: dict[str, Proxy] = {}
        self.port = 0
        self.is_trapped = False
        """A failpoint may end it."""
        self.at_end: list[Sample] = []
        """What each incarnation held when it was told to end."""
        self._excused: set[int] = set()
        self._process: asyncio.subprocess.Process | None = None
        self.set_clock("+0")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """To the living incarnation."""
        assert self._process is not None
        if number in _CODES:
            self._excused.add(_CODES[number])
            with suppress(psutil.NoSuchProcess):
                self.at_end.append(self._look())
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def set_clock(self, shift: str) -> None:
        """Move its wall clock, while it runs: libfaketime's words, such as `+3600`."""
        scratch = self.faketime.with_suffix(".new")
        scratch.write_text(shift + "\n")
        scratch.replace(self.faketime)

    async def run(self, environment: Mapping[str, str]) -> int:
        """One incarnation, until it ends; its exit code."""
        setpriv = shutil.which("setpriv")
        dying_with_us = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        self._excused.clear()
        with self.stderr.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *dying_with_us,
                *(sys.executable, "-m", "campaign.process", self.kind),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=self.stderr.parent,
                env=dict(environment),
                start_new_session=True,
            )
        self.incarnation += 1
        self.started_at = time.monotonic()
        try:
            return await self._process.wait()
        finally:
            _sweep(self._process.pid)
            self.lives_over = self.incarnation
            async with self.ended:
                self.ended.notify_all()

    def explains(self, code: int) -> bool:
        """Whether it was told to end, and ended as it has to."""
        return code in self._excused or (self.is_trapped and code == -signal.SIGKILL)

    async def end(self) -> None:
        """For good: SIGTERM, and SIGKILL when that takes too long, which is not as it should be."""
        if self._process is None:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def sample(self) -> Sample:
        self.tasks.unlink(missing_ok=True)
        self.send(signal.SIGUSR1)
        tasks = None
        with suppress(AssertionError):
            await until(self.tasks.exists, _ANSWER_SECONDS)
            tasks = int(self.tasks.read_text())
        return replace(self._look(), tasks=tasks)

    def _look(self) -> Sample:
        process = psutil.Process(self.pid)
        return Sample(
            rss=process.memory_info().rss,
            descriptors=process.num_fds(),
            sockets=len(process.net_connections("inet")),
        )


def _sweep(pid: int) -> None:
    """What libfaketime leaves behind of a process that was killed."""
    for left in Path("/dev/shm").glob(f"*faketime_*_{pid}"):
        left.unlink(missing_ok=True)
