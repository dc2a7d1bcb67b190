"""Doing what is due when its time has come; any number of workers share that.

What is due is claimed for a while, so that no two have the same in hand; one that dies leaves its
rows to the others. So what is done with a row must be right whoever comes to it, and how often.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Generic, Protocol, TypeVar

from beanie import Document, PydanticObjectId
from pydantic import ValidationError

from services.shared.clock import Clock
from services.shared.errors import Unavailable
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Row, first_part, is_away
from services.shared.worker import keep_doing

log = get_logger()
_PUT_OFF: Final = timedelta(minutes=1)


class HasId(Protocol):
    @property
    def id(self) -> PydanticObjectId | None: ...


R = TypeVar("R", bound=HasId)


class Due(ABC, Generic[R]):
    """Rows of one kind, which have a `due_at`, and a `claim` while a worker has them in hand.

    `name`: what the log calls them; `rows`: where they are; `read` raises ValidationError.
    """

    def __init__(
        self,
        name: str,
        rows: type[Document],
        read: Callable[[Row], R],
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._name = name
        self._rows = rows.get_pymongo_collection()
        self._read_row = read
        self._clock = clock
        self._settings = settings

    @abstractmethod
    def _due(self, now: datetime) -> AsyncIterable[Row]:
        """Those whose time has come and that nobody has in hand, the longest overdue first."""

    @abstractmethod
    def _size(self, row: Row) -> int:
        """Bytes that are written when it is done, nearly."""

    @abstractmethod
    async def _transact(self, claimed: Sequence[R]) -> None:
        """Do those of them that are still to be done, in one transaction."""

    async def keep_working(self) -> None:
        """Do what is due until cancelled; waits while the database is away."""
        await keep_doing(self.work, f"what was {self._name}", self._settings.scheduler_tick_seconds)

    async def work(self) -> int:
        """Do what is due, or some of it; how many were found."""
        now = self._clock.now()
        rows, _ = await first_part(self._due(now), self._size)
        found = [one for row in rows if (one := await self._read(row))]
        if claimed := await self._claim(found, now):
            await self._do(claimed)
        return len(rows)

    async def _read(self, row: Row) -> R | None:
        """None, and the row is put off, where another version wrote what we can't read."""
        try:
            return self._read_row(row)
        except ValidationError:
            log.error(f"{self._name}_unreadable", id=str(row["_id"]))
            await self._put_off(row["_id"])
            return None

    async def _claim(self, found: Sequence[R], now: datetime) -> Sequence[R]:
        """Those of them that nobody else has in hand for SCHEDULED_LEASE_SECONDS."""
        if not found:
            return []
        claim = PydanticObjectId()
        lease = timedelta(seconds=self._settings.scheduled_lease_seconds)
        these = {"_id": {"$in": [one.id for one in found]}}
        # With the hint: by `due_at` MongoDB might go through all that is due.
        await self._rows.update_many(
            these | {"due_at": {"$lte": now}},
            {"$set": {"due_at": now + lease, "claim": claim}},
            hint="_id_",
        )
        ours = self._rows.find(these | {"claim": claim}, {"_id": 1}, hint="_id_")
        claimed = {row["_id"] for row in await ours.to_list()}
        return [one for one in found if one.id in claimed]

    async def _do(self, claimed: Sequence[R]) -> None:
        """In halves, where all at once fails: so what can't be done holds up nothing else."""
        try:
            await self._transact(claimed)
        except Unavailable:  # the outbox is full: for half of them, too
            raise
        except Exception as error:
            if len(claimed) > 1:
                log.warning(f"{self._name}_in_halves", rows=len(claimed), exc_info=error)
                half = len(claimed) // 2
                await self._do(claimed[:half])
                await self._do(claimed[half:])
            elif is_away(error):
                raise
            else:
                log.error(f"{self._name}_put_off", id=str(claimed[0].id), exc_info=error)
                await self._put_off(claimed[0].id)

    async def _put_off(self, id: PydanticObjectId | None) -> None:
        later = {"due_at": self._clock.now() + _PUT_OFF}
        await self._rows.update_one({"_id": id}, {"$set": later})
