"""One process at a time: what the embedded bus stands on, since its queues have no locks.

Whoever consumes holds a lease in the database and renews it. One whose holder has died is free when
it runs out; on the machine of the dead, at once. The database's clock decides, so that no other has
to be right.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from beanie import Document
from pymongo.errors import DuplicateKeyError, PyMongoError

from services.shared.errors import CannotStart
from services.shared.log import get_logger
from services.shared.tasks import end_if_cancelled
from services.shared.worker import when_back

log = get_logger()

LEASE_SECONDS: Final = 6.0
_RENEWAL_SECONDS: Final = 2.0
_ASK_SECONDS: Final = 0.2
_RELEASE_SECONDS: Final = 0.5
_BUS: Final = "embedded bus"
_NOBODY: Final = "||"
_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)


class Lease(Document):
    """Who consumes, until when, under the id _BUS. `owner`: machine, process id, start, with bars
    between."""

    owner: str
    until: datetime

    class Settings:
        name = "embedded_lease"


class Hold:
    """A bus's hold on the lease, shared by all that consume on it. A process has one bus."""

    def __init__(self) -> None:
        self._holders = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Raises CannotStart while another process holds the lease, and when it takes it over."""
        await _take()
        self._holders += 1
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(_keep())
            try:
                yield
            finally:
                keeping.cancel()
                self._holders -= 1
                if not self._holders:
                    await _release()


async def _release() -> None:
    with suppress(PyMongoError, TimeoutError):  # then it runs out
        async with asyncio.timeout(_RELEASE_SECONDS):
            await Lease.get_pymongo_collection().delete_one({"_id": _BUS, "owner": _US})


async def _take() -> None:
    loop = asyncio.get_running_loop()
    late = loop.time() + LEASE_SECONDS + 1
    while not await when_back(_claim, "the embedded bus"):
        end_if_cancelled()
        if loop.time() > late:
            raise CannotStart(
                "Another process runs the embedded bus on this database: stop that one, or set "
                "RABBITMQ_URL, which any number of processes can share."
            )
        await asyncio.sleep(_ASK_SECONDS)


async def _keep() -> None:
    while True:
        end_if_cancelled()
        await asyncio.sleep(_RENEWAL_SECONDS)
        if not await when_back(_claim, "the embedded bus"):
            raise CannotStart(
                "Another process has taken the embedded bus of this database over: run one of them,"
                " or set RABBITMQ_URL."
            )


async def _claim() -> bool:
    """Whether the lease is ours, for LEASE_SECONDS from now."""
    leases = Lease.get_pymongo_collection()
    lease = await leases.find_one({"_id": _BUS})
    if lease is None:
        with suppress(DuplicateKeyError):
            await leases.insert_one({"_id": _BUS, "owner": _NOBODY, "until": _LONG_AGO})
    elif _has_died(lease["owner"]):
        log.info("lease_of_a_dead_process", owner=lease["owner"])
        nobodys = {"$set": {"owner": _NOBODY, "until": _LONG_AGO}}
        await leases.update_one({"_id": _BUS, "owner": lease["owner"]}, nobodys)
    free = {"$expr": {"$or": [{"$eq": ["$owner", _US]}, {"$lte": ["$until", "$$NOW"]}]}}
    until = {"$add": ["$$NOW", int(LEASE_SECONDS * 1000)]}
    claimed = await leases.update_one(
        {"_id": _BUS, **free}, [{"$set": {"owner": _US, "until": until}}]
    )
    return claimed.matched_count == 1


def _this_process() -> str:
    """Ids of processes mean something on one boot of one machine, in one container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        return f"{machine}|{os.getpid()}|{_start(os.getpid())}"
    except OSError:
        return f"{uuid4().hex}|{os.getpid()}|"


def _start(pid: int) -> str:
    """When the process was started, in the kernel's ticks; ids are used again. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _has_died(owner: str) -> bool:
    """Whether it was a process of this machine, and is no more. Of others nothing is known."""
    machine, pid, start = owner.split("|")
    if machine != _US.split("|")[0]:
        return False
    try:
        return _start(int(pid)) != start
    except FileNotFoundError:
        return True
    except OSError:
        return False


_US: Final = _this_process()
