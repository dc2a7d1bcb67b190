"""The command line as a process of its own: started, watched, and ended by its own process id."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.kit import Api, http_client
from tests.servers import free_port, until

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
SECRET = "a secret for tests, and only for tests"


class Run:
    """One `python -m services …`, with what it has printed so far."""

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path, port: int, data_dir: Path
    ) -> None:
        self.process = process
        self.port = port
        self.data_dir = data_dir
        self._folder = folder
        self._others = mongods_on(data_dir)

    @property
    def api(self) -> Api:
        return Api(f"http://127.0.0.1:{self.port}/graphql")

    @property
    def output(self) -> str:
        return (self._folder / "stdout").read_text()

    @property
    def errors(self) -> str:
        return (self._folder / "stderr").read_text()

    @property
    def mongods(self) -> Sequence[int]:
        """The mongod processes that it has started."""
        return [pid for pid in mongods_on(self.data_dir) if pid not in self._others]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, timeout: float = STOP_SECONDS) -> int:
        """Its exit code, when it ends. Raises AssertionError when that is late."""
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.process.wait(), timeout)
        raise AssertionError(f"still there after {timeout} s: {self.output}{self.errors}")

    async def ready(self) -> Run:
        """Itself, when its gateway says that it is ready."""

        async def settled() -> bool:
            return self.process.returncode is not None or await _is_ready(self.port)

        await until(settled, START_SECONDS)
        assert self.process.returncode is None, self.output + self.errors
        return self

    async def refused(self, timeout: float = STOP_SECONDS) -> str:
        """The one sentence that it says on stderr as it ends with an exit code that is not 0."""
        assert await self.ended(timeout) == 1, self.errors
        said = [line for line in self.errors.splitlines() if not line.startswith("timestamp=")]
        assert len(said) == 1, self.errors
        prefix, _, sentence = said[0].partition(": ")
        assert prefix == "tidings", said
        return sentence


@asynccontextmanager
async def tidings(
    *arguments: str,
    folder: Path,
    stdout: int | None = None,
    stdin: str = "",
    **environment: object,
) -> AsyncIterator[Run]:
    """Start `python -m services` in `folder`, with these settings and no others.

    Its data are in `folder` too, its gateway on a free port; whatever is still alive at the end
    of the block is ended. It dies with the tests, should they be killed. It is given `stdin`; its
    output is kept, or goes to `stdout`.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240
    defaults: dict[str, object] = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ROOT,
        "DATA_DIR": folder / "data",
        "GATEWAY_PORT": free_port(),
        "BCRYPT_COST": 4,
    }
    variables = {name: str(value) for name, value in (defaults | environment).items()}
    port = int(variables["GATEWAY_PORT"]) if variables["GATEWAY_PORT"].isdecimal() else 0
    setpriv = shutil.which("setpriv")
    dying_with_us = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    (folder / "stdin").write_text(stdin)
    with (
        (folder / "stdin").open("rb") as given,
        (folder / "stdout").open("wb") as output,
        (folder / "stderr").open("wb") as errors,
    ):
        process = await asyncio.create_subprocess_exec(
            *dying_with_us,
            *(sys.executable, "-m", "services", *arguments),
            stdin=given,
            stdout=output if stdout is None else stdout,
            stderr=errors,
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
    run = Run(process, folder, port, Path(variables["DATA_DIR"]))
    try:
        yield run
    finally:
        await _end(run)


def nowhere() -> str:
    """The address of a MongoDB that is not there."""
    return f"mongodb://127.0.0.1:{free_port()}/"


def elsewhere(url: str) -> dict[str, Any]:
    """Settings for a MongoDB that others have started."""
    return {"MONGODB_URL": url, "JWT_SECRET": SECRET}


def mongods_on(data_dir: Path) -> Sequence[int]:
    """The ids of the mongod processes whose database is in `data_dir`."""
    database = str((data_dir / "database").resolve())
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        if Path(command[0]).name == "mongod" and database in command:
            found.append(process.pid)
    return found


async def _end(run: Run) -> None:
    if run.process.returncode is None:
        run.process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(run.process.wait(), STOP_SECONDS)
    if run.process.returncode is None:
        run.process.kill()
        await run.process.wait()
    await until(lambda: not run.mongods, STOP_SECONDS)  # its own dies with it, a moment later


async def _is_ready(port: int) -> bool:
    with suppress(httpx.TransportError):
        async with http_client(timeout=5) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/readyz")
            return answer.status_code == 200
    return False
