"""The servers of a bench, and the programs that are measured on them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from services.shared.settings import Settings
from tests.servers import (
    PrivateMongod,
    PrivateRabbitMQ,
    free_port,
    private_mongod_server,
    private_rabbitmq,
    until,
)

ROOT: Final = Path(__file__).parents[1]
PEERS: Final = ROOT / "bench" / "peers"
SECRET: Final = "a secret for benches, and only for benches"
CACHE_GB: Final = 4.0
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 20.0
_SHOWN: Final = 3000  # characters


@dataclass(frozen=True)
class Program:
    """One that runs: a service, a peer or a limit. `output`: a file with what it has printed."""

    name: str
    process: asyncio.subprocess.Process
    port: int
    output: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def said(self, line: str, timeout: float = _START_SECONDS) -> str:
        """The first line of its output that begins so. Raises AssertionError when it is late, or
        when it has ended without."""

        def found() -> str | bool:
            lines = self.output.read_text(errors="replace").splitlines()
            told = next((one for one in lines if one.startswith(line)), None)
            return told if told is not None else self.process.returncode is not None

        told = await until(found, timeout, every=0.005)
        if not isinstance(told, str):
            raise AssertionError(f"{self.name} has ended: {self.output.read_text()[-_SHOWN:]}")
        return told


class World:
    """A private mongod and RabbitMQ node in `folder`."""

    def __init__(self, folder: Path, mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ) -> None:
        self.folder = folder
        self.mongodb_url = mongod.url
        self.rabbitmq_url = rabbitmq.url
        self.virtual_host = rabbitmq.virtual_host
        self._mongod = mongod
        self._shows_progress = sys.stderr.isatty()

    def progress(self, text: str) -> None:
        """Show what is being done now."""
        ending = "\r" if self._shows_progress else "\n"
        print(f"  {text:<76}"[:78], end=ending, file=sys.stderr, flush=True)

    def settings(self, database: str, **others: object) -> Settings:
        """Those of the services' processes: for what is called in our own."""
        given = self.variables(database, **others)
        fields: dict[str, Any] = {name.lower(): value for name, value in given.items()}
        return Settings(**fields)

    def variables(self, database: str, **others: object) -> dict[str, str]:
        """The environment of every program: the same for all that are compared."""
        given = {
            "MONGODB_URL": self.mongodb_url,
            "MONGODB_DATABASE": database,
            "RABBITMQ_URL": self.rabbitmq_url,
            "JWT_SECRET": SECRET,
            "LOG_LEVEL": "WARNING",
            **others,
        }
        return {name: str(value) for name, value in given.items()}

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
        """An empty one, which is dropped at the end."""
        async with AsyncMongoClient[dict[str, Any]](self.mongodb_url, tz_aware=True) as client:
            await client.drop_database(name)
            try:
                yield client.get_database(name)
            finally:
                await client.drop_database(name)

    @asynccontextmanager
    async def filling(self) -> AsyncIterator[None]:
        """Have mongod write millions of rows fast, while no program runs. Afterwards all is on the
        disk and nothing in its cache, as after any restart."""
        async with self._mongod.standalone():
            yield

    @asynccontextmanager
    async def service(self, kind: str, database: str, **settings: object) -> AsyncIterator[Program]:
        """One of Tidings' processes: a gateway is ready, a worker has just been started."""
        command = (sys.executable, "-m", "services", kind)
        port = free_port()
        variables = self.variables(database, GATEWAY_PORT=port, **settings)
        async with self._program(kind, command, port, variables) as program:
            if kind in ("gateway", "serve"):
                await until(lambda: _is_ready(program), _START_SECONDS)
            yield program

    @asynccontextmanager
    async def limit(self, module: str, database: str, **settings: object) -> AsyncIterator[Program]:
        """One of bench/limits, when it says that it is ready."""
        command = (sys.executable, "-m", f"bench.limits.{module}")
        async with self._ready(module, command, database, settings) as program:
            yield program

    @asynccontextmanager
    async def peer(self, file: str, database: str, **settings: object) -> AsyncIterator[Program]:
        """One of bench/peers, when it says that it is ready."""
        settings = {"NODE_ENV": "production", **settings}
        command = ("node", str(PEERS / file))
        async with self._ready(Path(file).stem, command, database, settings) as program:
            yield program

    @asynccontextmanager
    async def _ready(
        self, name: str, command: Sequence[str], database: str, settings: Mapping[str, object]
    ) -> AsyncIterator[Program]:
        port = free_port()
        variables = self.variables(database, PORT=port, **settings)
        async with self._program(name, command, port, variables) as program:
            await program.said("ready")
            yield program

    @asynccontextmanager
    async def _program(
        self, name: str, command: Sequence[str], port: int, variables: Mapping[str, str]
    ) -> AsyncIterator[Program]:
        """Run it; its output goes to a file, and it dies with us."""
        output = self.folder / f"{name}-{port}.log"
        setpriv = shutil.which("setpriv")
        dying_with_us = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with output.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *dying_with_us,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
                start_new_session=True,
            )
        try:
            yield Program(name, process, port, output)
        except Exception:
            print(f"\n{name} said:\n{output.read_text()[-_SHOWN:]}", file=sys.stderr)
            raise
        finally:
            await _end(process)


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    """Start the servers."""
    async with AsyncExitStack() as stack:
        mongod = await stack.enter_async_context(private_mongod_server(folder / "mongod", CACHE_GB))
        rabbitmq = await stack.enter_async_context(private_rabbitmq(folder / "rabbitmq"))
        yield World(folder, mongod, rabbitmq)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _is_ready(program: Program) -> bool:
    if program.process.returncode is not None:
        raise AssertionError(f"{program.name} has ended: {program.output.read_text()[-_SHOWN:]}")
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            return (await client.get(f"{program.url}/readyz")).status_code == 200
    return False
