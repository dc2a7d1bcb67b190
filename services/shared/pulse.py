"""What the processes do, minute by minute, and which of them live: for an operator to look at.

Whoever does something adds to plain numbers, when it is done; no transaction writes them, and
nobody waits for them. Every PULSE_SECONDS a loop adds them to the minute's document, which all
processes share, and renews what its process says of itself, which goes when it is not renewed.

Nothing is decided by these figures. A process that is killed takes the last seconds' with it; what
is done again, since its end was not heard of, may count again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from beanie import Document
from pymongo import IndexModel
from pymongo.errors import PyMongoError

from services.shared.clock import Clock
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Row, is_away
from services.shared.tasks import end_if_cancelled

log = get_logger()

_MINUTE: Final = timedelta(minutes=1)
_MISSED: Final = 3  # pulses until a process is taken for dead
_LEAVE_SECONDS: Final = 0.5
_COUNTED: Final = ("events", "sent", "suppressed", "failed")


@dataclass(slots=True)
class Counts:
    """What this process has done since its last pulse, and the sockets that are open in it.

    `events`: handled; `sent`: notifications stored; `suppressed`: refused or held instead;
    `failed`: events that will be tried again, or are dead.
    """

    events: int = 0
    sent: int = 0
    suppressed: int = 0
    failed: int = 0
    sockets: int = 0

    def take(self) -> dict[str, int]:
        """What is not 0; it is from now on."""
        taken = {name: count for name in _COUNTED if (count := getattr(self, name))}
        for name in taken:
            setattr(self, name, 0)
        return taken

    def put_back(self, taken: dict[str, int]) -> None:
        for name, count in taken.items():
            setattr(self, name, getattr(self, name) + count)


class MinuteCounts(Document):
    """What all processes did in a minute, which its id is the beginning of."""

    forget_at: datetime

    class Settings:
        name = "minute_counts"
        indexes = (IndexModel([("forget_at", 1)], expireAfterSeconds=0),)


class LivingProcess(Document):
    """A process that runs. Its id is host:pid, and some digits, since containers share these."""

    id: str  # type: ignore[assignment]
    service: str
    started_at: datetime
    seen_at: datetime
    expires_at: datetime
    sockets: int
    memory_bytes: int

    class Settings:
        name = "processes"
        indexes = (IndexModel([("expires_at", 1)], expireAfterSeconds=0),)


MODELS: list[type[Document]] = [MinuteCounts, LivingProcess]


class Minute(NamedTuple):
    """`at`: its beginning."""

    at: datetime
    events: int
    sent: int
    suppressed: int
    failed: int


class Pulse:
    def __init__(self, counts: Counts, clock: Clock, settings: Settings) -> None:
        self._counts = counts
        self._clock = clock
        self._seconds = settings.pulse_seconds
        self._memory = timedelta(seconds=settings.rates_seconds)
        self._id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"
        self._started_at = clock.now()
        self._is_told_of = False

    async def keep_beating(self, service: str) -> None:
        """Tell what is done until cancelled. `service`: what this process is called."""
        self._is_told_of = True
        while True:
            try:
                await self.beat(service)
            except PyMongoError as error:  # nobody's work waits for it
                if not is_away(error):
                    log.error("pulse_failed", error=repr(error))
            end_if_cancelled()
            await asyncio.sleep(self._seconds)

    async def leave(self) -> None:
        """Tell what is left when all work has ended, and that this process is no more."""
        if not self._is_told_of:
            return
        with suppress(PyMongoError, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._tell()
                await LivingProcess.get_pymongo_collection().delete_one({"_id": self._id})

    async def beat(self, service: str) -> None:
        """Tell what was done since the last time, and that this process lives."""
        await self._tell()
        now = self._clock.now()
        state = {
            "service": service,
            "started_at": self._started_at,
            "seen_at": now,
            "expires_at": now + timedelta(seconds=_MISSED * self._seconds),
            "sockets": self._counts.sockets,
            "memory_bytes": resident_bytes(),
        }
        await LivingProcess.get_pymongo_collection().update_one(
            {"_id": self._id}, {"$set": state}, upsert=True
        )

    async def minutes(self, count: int) -> Sequence[Minute]:
        """The last ones, the oldest first; the last is going on."""
        last = _minute(self._clock.now())
        first = last - (count - 1) * _MINUTE
        found = MinuteCounts.get_pymongo_collection().find({"_id": {"$gte": first, "$lte": last}})
        rows: dict[datetime, Row] = {row["_id"]: row async for row in found}
        return [
            Minute(at, *(rows.get(at, {}).get(name, 0) for name in _COUNTED))
            for at in (first + place * _MINUTE for place in range(count))
        ]

    async def processes(self) -> Sequence[LivingProcess]:
        """Those that live, by service and age."""
        living = LivingProcess.find({"expires_at": {"$gt": self._clock.now()}})
        return await living.sort("service", "started_at", "_id").to_list()

    async def _tell(self) -> None:
        counted = self._counts.take()
        if not counted:
            return
        at = _minute(self._clock.now())
        change = {"$inc": counted, "$setOnInsert": {"forget_at": at + self._memory}}
        try:
            await MinuteCounts.get_pymongo_collection().update_one({"_id": at}, change, upsert=True)
        except BaseException:
            self._counts.put_back(counted)
            raise


def resident_bytes() -> int:
    """Memory that this process has now; where the system does not tell, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return most_resident_bytes()
    return pages * resource.getpagesize()


def most_resident_bytes() -> int:
    """The most memory that this process ever had. getrusage(2) tells KiB, but bytes on macOS."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _minute(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
