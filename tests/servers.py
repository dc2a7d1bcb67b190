"""Real servers for tests, on free ports of 127.0.0.1, that can be killed and started again.

A test that needs a broker says so with `need_rabbitmq()`: where none can be had the test is skipped
with the reason, or fails if CI=true. All servers die with the process that started them.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar, overload

import psutil
import pytest
from pymongo.uri_parser import parse_uri

from services.shared.mongod import Mongod, find_mongod

DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on PATH insists on a service user
START_SECONDS = 60.0
STOP_SECONDS = 20.0
_INDEX_MEGABYTES = 1000  # sorted in memory
T = TypeVar("T")


@overload
async def until(
    condition: Callable[[], Awaitable[T]], timeout: float = ..., every: float = ...
) -> T: ...
@overload
async def until(condition: Callable[[], T], timeout: float = ..., every: float = ...) -> T: ...
async def until(
    condition: Callable[[], object], timeout: float = 10.0, every: float = 0.02
) -> object:
    """The first true answer of `condition`, plain or async. Raises AssertionError when late."""
    loop = asyncio.get_running_loop()
    late = loop.time() + timeout
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        assert loop.time() < late, f"not so after {timeout} s: {_source(condition)}"
        await asyncio.sleep(every)


async def hang(pid: int) -> None:
    """Returns when it does: a signal takes effect when one of the process' threads next runs, and
    the others work on until then. SIGCONT ends it."""
    os.kill(pid, signal.SIGSTOP)
    threads = [psutil.Process(thread.id) for thread in psutil.Process(pid).threads()]
    await until(lambda: {one.status() for one in threads} == {psutil.STATUS_STOPPED}, every=0.001)


def _source(condition: Callable[..., object]) -> str:
    with suppress(OSError, TypeError):
        return inspect.getsource(condition).strip()
    return repr(condition)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need(available: bool, reason: str) -> None:
    """Skip the running test with `reason` unless `available`; with CI=true, fail it."""
    if not available:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def need_rabbitmq() -> None:
    need(_rabbitmq() is not None, "there is no rabbitmq-server: apt-get install rabbitmq-server")


def _rabbitmq() -> Path | None:
    if DEBIAN.exists():
        return DEBIAN
    found = shutil.which("rabbitmq-server")
    return Path(found) if found else None


class PrivateMongod:
    """A mongod of its own; a start after `kill` or `stop` keeps its data, its port and its URL."""

    def __init__(self, folder: Path, cache: float = 0.25) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._cache = folder.resolve(), cache
        self._mongod = Mongod(find_mongod(), self._folder, cache)

    @property
    def url(self) -> str:
        return self._mongod.url

    @property
    def pid(self) -> int:
        assert self._mongod.process is not None
        return self._mongod.process.pid

    async def start(self) -> None:
        former = self.url
        await self._mongod.start()
        assert former in ("", self.url), "somebody took the port while mongod was away"

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._mongod.process is not None:
            await _kill(self._mongod.process, "mongod")

    async def stop(self) -> None:
        await self._mongod.stop()

    @asynccontextmanager
    async def standalone(self) -> AsyncIterator[None]:
        """Meanwhile it is no replica set, and keeps neither an oplog nor a journal: it takes a
        third of the time to write. Its data and its URL stay."""
        await self.stop()
        try:
            process = await _spawn(self._standalone_command(), self._folder / "standalone.log", {})
            try:
                yield
            finally:
                process.terminate()
                await process.wait()
        finally:
            await self.start()

    def _standalone_command(self) -> list[str]:
        folder, (_, port) = self._folder, parse_uri(self.url)["nodelist"][0]
        command = [str(find_mongod()), "--dbpath", str(folder / "database"), "--port", str(port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--nojournal", "--quiet"]
        command += ["--keyFile", str(folder / "mongod.key")]
        command += ["--wiredTigerCacheSizeGB", str(self._cache)]
        command += ["--setParameter", f"maxIndexBuildMemoryUsageMegabytes={_INDEX_MEGABYTES}"]
        return command


class PrivateRabbitMQ:
    """A broker of its own, with an epmd of its own: nothing is shared with a system's RabbitMQ."""

    def __init__(self, folder: Path) -> None:
        server = _rabbitmq()
        assert server is not None, "call need_rabbitmq() first"
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._folder = folder.resolve()
        self._server = server
        self.epmd_port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def cookie(self) -> str:
        """What Erlang wants to hear before it talks."""
        return (self._folder / ".erlang.cookie").read_text()

    async def start(self) -> None:
        """Return when it greets AMQP clients: 3 to 6 s, most of it Erlang loading code."""
        if not (self._folder / "plugins").exists():
            self._furnish()
        assert not await _greets(self.port), "somebody took the port while the broker was away"
        process = await _spawn([str(self._server)], self._folder / "output.log", self._variables())
        self._process = process

        async def settled() -> bool:
            return process.returncode is not None or await _greets(self.port)

        await until(settled, START_SECONDS)
        assert process.returncode is None, (self._folder / "output.log").read_text()[-2000:]

    async def kill(self) -> None:
        """kill -9, and wait until it is gone.

        Version 3.10 writes the name of a new quorum queue to disk a second late: killed before
        that, it never finds the queue's leader again. So give the youngest queue that second.
        """
        if self._process is not None and self._process.returncode is None:
            await until(self._queues_are_named)
            await self.end()

    async def end(self) -> None:
        """kill -9 at once, when nobody will start it again."""
        if self._process is not None:
            await _kill(self._process, "beam")

    def _queues_are_named(self) -> bool:
        for names in self._folder.glob("data/*/quorum/*/names.dets"):
            queues = [entry.name for entry in names.parent.iterdir() if entry.is_dir()]
            written = names.read_bytes()
            return all(queue.encode() in written for queue in queues)
        return True

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                await self.end()

    @asynccontextmanager
    async def stuck(self, queue: str) -> AsyncIterator[None]:
        """The leader of a quorum queue answers nobody until the end of the block."""
        leader = f"whereis('%2F_{queue}')"
        await self._evaluate(f"sys:suspend({leader})")
        try:
            yield
        finally:
            await self._evaluate(f"sys:resume({leader})")

    @asynccontextmanager
    async def virtual_host(self, name: str) -> AsyncIterator[str]:
        """The URL of one until the end of the block: whoever is on it hears nothing of others."""
        await self._evaluate(f'rabbit_vhost:add(<<"{name}">>, <<"guest">>)')
        permissions = ", ".join('<<".*">>' for _ in range(3))
        await self._evaluate(
            "rabbit_auth_backend_internal:set_permissions("
            f'<<"guest">>, <<"{name}">>, {permissions}, <<"guest">>)'
        )
        yield self.url + name
        await self._evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"guest">>)')

    async def _evaluate(self, expression: str) -> None:
        """Run Erlang in the broker."""
        node = f"tidings-{self.port}@localhost"
        command = [
            *("erl", "-noinput", "-sname", f"asking-{self.port}@localhost", "-hidden"),
            *("-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-eval"),
            f"""try ok = erpc:call('{node}', fun() -> {expression} end), halt(0)
                catch A:B -> io:format("~p ~p~n", [A, B]), halt(1) end.""",
        ]
        log = self._folder / "asking.log"
        process = await _spawn(command, log, self._variables())
        assert await process.wait() == 0, log.read_text()[-2000:]

    @asynccontextmanager
    async def epmd(self) -> AsyncIterator[None]:
        """Erlang's name server, started by us: one that a node starts would outlive it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"]
        process = await _spawn(command, self._folder / "epmd.log", dict(os.environ))
        try:
            yield
        finally:
            await _kill(process, "epmd")

    def _furnish(self) -> None:
        """Its configuration, and a folder of the plugins it has to read: reading all takes 1 s."""
        folder = self._folder
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq-env.conf").touch()
        (folder / "advanced.config").write_text(
            f'[{{rabbit, [{{tcp_listeners, [{{"127.0.0.1", {self.port}}}]}},\n'
            "  {num_tcp_acceptors, 2}, {disk_free_limit, 10000000},\n"
            '  {vm_memory_high_watermark, {absolute, "512MB"}}]},\n'
            " {ra, [{wal_max_size_bytes, 4194304}]}].\n"
        )
        (folder / "plugins").mkdir()
        for name in ("rabbit", "rabbit_common", "rabbitmq_prelaunch"):
            for plugin in self._server.resolve().parents[1].glob(f"plugins/{name}-[0-9]*"):
                (folder / "plugins" / plugin.name).symlink_to(plugin)

    def _variables(self) -> dict[str, str]:
        folder = self._folder
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # of the Erlang cookie
            "LANG": "C.UTF-8",
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"tidings-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PLUGINS_DIR": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # The script then becomes the broker, so that the process id is the broker's.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }


@asynccontextmanager
async def private_mongod_server(folder: Path, cache: float = 0.25) -> AsyncIterator[PrivateMongod]:
    """A running mongod, a replica set of one, on `folder`. `cache`: GB."""
    server = PrivateMongod(folder, cache)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def private_rabbitmq(folder: Path) -> AsyncIterator[PrivateRabbitMQ]:
    """A running broker on `folder`, version 3.10 on Debian 12.

    Right after a restart a `basic.get` on a quorum queue may never be answered; consuming works.
    """
    server = PrivateRabbitMQ(folder)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.epmd())
        stack.push_async_callback(server.end)
        await server.start()
        yield server


async def _spawn(
    command: list[str], log: Path, variables: dict[str, str]
) -> asyncio.subprocess.Process:
    setpriv = shutil.which("setpriv")
    dying_with_us = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *dying_with_us,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=variables,
            start_new_session=True,
        )


async def _kill(process: asyncio.subprocess.Process, name: str) -> None:
    if process.returncode is None:
        assert name in _command(process.pid), f"process {process.pid} is not our {name}"
        process.kill()
        await process.wait()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


async def _greets(port: int) -> bool:
    """Whether an AMQP 0-9-1 server says hello there."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"AMQP\0\0\x09\x01")
                return await reader.readexactly(1) == b"\x01"  # a method frame: Connection.Start
            finally:
                writer.close()
    return False
