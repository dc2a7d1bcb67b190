"""The private mongod: what a newcomer's `make run` stands on, and everything that may go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from services.shared.data_dir import is_held, prepared
from services.shared.errors import CannotStart
from services.shared.mongod import find_mongod, private_mongod, running_url
from tests.servers import until

NOBODY = 65534
ROOT = Path(__file__).parents[1]
PARENT = """
import asyncio, sys
from pathlib import Path
from services.shared.mongod import private_mongod

async def main():
    async with private_mongod(Path(sys.argv[1]), print) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
BUSY = """#!{python}
import os, socket, sys, time

port = int(sys.argv[sys.argv.index("--port") + 1])
with socket.create_server(("127.0.0.1", port)) as server:
    server.settimeout(0.1)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        try:
            server.accept()[0].close()
        except TimeoutError:
            pass
os.execv("{mongod}", ["{mongod}", *sys.argv[1:]])
"""
LOADER = "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object"
FATAL = '{"s":"I","msg":"fine"}\n{"s":"E","msg":"Failed","attr":{"error":"the reason"}}'
FULL = '{"s":"E","msg":"WiredTiger error","attr":{"error_str":"No space left on device"}}'


def ignore(sentence: str) -> None:
    """For runs in which mongod is not expected to end."""


def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A stranger on our port. (One that says nothing makes mongod wait for 30 s.)"""
    writer.close()


@asynccontextmanager
async def orders(url: str) -> AsyncIterator[Any]:
    async with AsyncMongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
        yield client.shop.orders


def mongod_on(folder: Path, parent: int | None = None) -> psutil.Process:
    """The mongod on `folder`, a child of this process (or of `parent`)."""
    children = psutil.Process(parent).children()
    (child,) = (child for child in children if str(folder / "database") in child.cmdline())
    return child


@asynccontextmanager
async def another_process(
    folder: Path, **variables: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A run in a process of its own, and the URL it printed; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(folder)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_transaction_and_a_change_stream_work_at_the_first_start(tmp_path: Path) -> None:
    async with private_mongod(tmp_path / "new" / "data", ignore) as url, orders(url) as collection:
        await collection.insert_one({"_id": 1})
        changes = await collection.watch()
        async with collection.database.client.start_session() as session:
            async with await session.start_transaction():
                await collection.insert_one({"_id": 2}, session=session)
                await session.abort_transaction()
            async with await session.start_transaction():
                await collection.insert_one({"_id": 3}, session=session)
        assert (await changes.next())["documentKey"] == {"_id": 3}
        assert await collection.distinct("_id") == [1, 3]
        await changes.close()


async def test_a_second_start_is_fast_and_keeps_data_and_url(tmp_path: Path) -> None:
    async with private_mongod(tmp_path, ignore) as first_url, orders(first_url) as collection:
        await collection.insert_one({"_id": 1})
    began = asyncio.get_running_loop().time()
    async with private_mongod(tmp_path, ignore) as url, orders(url) as collection:
        assert asyncio.get_running_loop().time() - began < 4  # 0.4 to 1 s on an idle machine
        assert await collection.count_documents({}) == 1
        assert url == first_url
    logs = {name for name in os.listdir(tmp_path) if ".log" in name}
    assert logs == {"mongod.log", "mongod.log.1"}


async def test_a_start_on_another_port_keeps_the_data(tmp_path: Path) -> None:
    async with private_mongod(tmp_path, ignore) as first_url, orders(first_url) as collection:
        await collection.insert_one({"_id": 1})
    port = int((tmp_path / "mongod.port").read_text())
    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", port),
        private_mongod(tmp_path, ignore) as url,
        orders(url) as collection,
    ):
        assert url != first_url
        await collection.insert_one({"_id": 2})
        assert await collection.count_documents({}) == 2


async def test_a_start_goes_on_after_connections_that_were_hung_up(tmp_path: Path) -> None:
    """As a mongod does when it changes its role."""
    busy = tmp_path / "mongod"
    busy.write_text(BUSY.format(python=sys.executable, mongod=find_mongod()))
    busy.chmod(0o755)
    async with (
        private_mongod(tmp_path / "data", ignore, find=lambda: busy) as url,
        orders(url) as collection,
    ):
        await collection.insert_one({"_id": 1})


async def test_it_stops_cleanly_and_leaves_no_process(tmp_path: Path) -> None:
    async with private_mongod(tmp_path, ignore):
        process = mongod_on(tmp_path)
        assert os.getsid(process.pid) != os.getsid(0), "Ctrl-C in a terminal would hit mongod"
    assert not process.is_running()
    assert (tmp_path / "database" / "mongod.lock").read_bytes() == b""  # a clean shutdown's mark


@pytest.mark.parametrize("path", [os.environ["PATH"], ""], ids=["ends with it", "outlives it"])
async def test_after_kill_9_of_its_parent_a_new_start_finds_all_data(
    tmp_path: Path, path: str
) -> None:
    """Without a PATH there is no setpriv, so mongod is an orphan that the new start must end."""
    async with another_process(tmp_path, PATH=path) as (parent, url):
        async with orders(url) as collection:
            await collection.insert_many([{"_id": n} for n in range(100)])
        orphan = mongod_on(tmp_path, parent.pid)
        parent.kill()
        await parent.wait()
    async with private_mongod(tmp_path, ignore) as url, orders(url) as collection:
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        assert await collection.count_documents({}) == 100


async def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    async with another_process(tmp_path) as (parent, _):
        orphan = mongod_on(tmp_path, parent.pid)
        parent.kill()
        await until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


async def test_two_runs_on_two_folders_leave_each_other_alone(tmp_path: Path) -> None:
    async with private_mongod(tmp_path / "a", ignore) as url, orders(url) as collection:
        async with private_mongod(tmp_path / "b", ignore) as other:
            assert other != url
        await collection.insert_one({"_id": 1})


async def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(tmp_path: Path) -> None:
    async with another_process(tmp_path) as (parent, url):
        with pytest.raises(CannotStart, match=rf"process {parent.pid} .*stop that.* DATA_DIR"):
            async with private_mongod(tmp_path, ignore):
                pass
        async with orders(url) as collection:
            await collection.insert_one({"_id": 1})


async def test_the_running_url_is_known_only_while_it_runs(tmp_path: Path) -> None:
    assert running_url(tmp_path) is None
    async with another_process(tmp_path) as (parent, url):
        assert running_url(tmp_path) == url
        parent.kill()
        await parent.wait()
        assert (tmp_path / "mongodb.url").exists()
        assert running_url(tmp_path) is None
    async with private_mongod(tmp_path, ignore) as url:
        assert running_url(tmp_path) == url
    assert running_url(tmp_path) is None


async def test_other_users_of_the_machine_cannot_read_the_data(tmp_path: Path) -> None:
    async with private_mongod(tmp_path, ignore) as url:
        for name in ("mongodb.url", "mongod.key"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        _, _, address = url.partition("@")
        async with orders(f"mongodb://{address}") as collection:
            with pytest.raises(OperationFailure, match="requires authentication"):
                await collection.find_one()
            with pytest.raises(OperationFailure, match="requires authentication"):
                await collection.database.client.admin.command(
                    "createUser", "intruder", pwd="x", roles=["root"]
                )


async def test_the_death_of_a_running_mongod_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    async with private_mongod(tmp_path, told.append):
        mongod_on(tmp_path).send_signal(signal.SIGKILL)
        await until(lambda: told)
    (sentence,) = told
    assert sentence.startswith("The private mongod has ended: ")
    assert str(tmp_path / "mongod.log") in sentence


async def test_a_mongod_that_is_stopped_as_asked_is_no_death(tmp_path: Path) -> None:
    told: list[str] = []
    async with private_mongod(tmp_path, told.append):
        pass
    assert told == []


def test_without_mongod_the_way_out_is_told() -> None:
    with pytest.raises(CannotStart, match=r"install one on PATH, .*MONGODB_URL.*compose\.yaml"):
        find_mongod(package="no_such_package", path="")


async def test_a_nearly_full_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"its disk has \d+ MB free; .* free some space"):
        async with private_mongod(tmp_path, ignore, free_bytes=10**18):
            pass


@pytest.mark.parametrize(
    ("folder", "reason"), [("file", "File exists"), ("file/inside", "Not a directory")]
)
async def test_a_path_that_is_no_folder_is_refused(
    tmp_path: Path, folder: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=f"{folder} can't be used: {reason}; set DATA_DIR"):
        async with private_mongod(tmp_path / folder, ignore):
            pass


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    os.seteuid(user or NOBODY)  # root may write everywhere
    try:
        with pytest.raises(CannotStart, match=r"can't be used: (it is not writ|Permission denied)"):
            prepared(tmp_path, free_bytes=0)
    finally:
        os.seteuid(user)


async def test_damaged_data_are_named_as_the_reason(tmp_path: Path) -> None:
    async with private_mongod(tmp_path, ignore):
        pass
    (tmp_path / "database" / "WiredTiger.turtle").write_bytes(b"nonsense")
    with pytest.raises(CannotStart, match=r"database corruption detected .*mongod\.log"):
        async with private_mongod(tmp_path, ignore):
            pass


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (f"echo '{LOADER}' >&2; exit 127", r"libcurl\.so\.4: .*apt-get install libcurl4"),
        (f"echo '{FATAL}'; exit 1", r"Failed: the reason \(exit code 1\); see .*mongod\.log\.$"),
        (f"echo '{FULL}'; exit 14", "the disk of .* is full; free some space"),
        ("exit 62", "is from another version of MongoDB"),
        ("kill -ILL $$", "this processor lacks AVX"),
        ("exit 3", r"it gave no reason \(exit code 3\)"),
    ],
)
async def test_a_mongod_that_cannot_start_says_why(
    tmp_path: Path, script: str, sentence: str
) -> None:
    stub = tmp_path / "mongod"
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o755)
    with pytest.raises(CannotStart, match=f"^The private mongod did not start: .*{sentence}"):
        async with private_mongod(tmp_path / "data", ignore, find=lambda: stub):
            pass
    assert not is_held(tmp_path / "data")
