"""Broadcasts: created, paused, resumed, cancelled, and tried out beforehand.

A verb turns a broadcast by compare-and-set, as its workers do, and answers how it stands then: a
cancel that comes too late says DONE. From the answer to a pause or a cancel on no chunk is handed
to a worker; one that a worker has in hand still goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from beanie import Document, PydanticObjectId
from pydantic import ValidationError
from pymongo.errors import DuplicateKeyError, ServerSelectionTimeoutError

from services.notifications.audience import Audience
from services.notifications.broadcasts import GOES_ON, OPEN, Broadcast
from services.notifications.drafts import check_key, checked_end
from services.notifications.intake import checked_body
from services.notifications.membership import Find, Search, members
from services.shared.clock import Clock, steady
from services.shared.errors import BadInput, Conflict, NotFound
from services.shared.events import PromotionAnnounced
from services.shared.log import get_logger
from services.shared.settings import Settings
from services.shared.store import Row, Session, is_away
from services.shared.tasks import end_if_cancelled
from services.shared.vocabulary import BroadcastState
from services.users.models import User, object_id

D = TypeVar("D", bound=Document)

SAMPLE: Final = 10
PUT_OFF: Final = timedelta(minutes=1)
SOON: Final = timedelta(seconds=5)  # what was too slow, or met something that is away
log = get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall go out to whom. The paths of its errors start with `input.`."""

    title: str
    body: str
    audience: Audience
    per_second: int | None = None
    expires_at: datetime | None = None
    dedup_key: str | None = None


@dataclass(frozen=True, slots=True)
class DryRun:
    """How many are in an audience now; where it is not exact, at least so many. `sample`: the first
    of them who registered."""

    count: int
    is_exact: bool
    sample: Sequence[User]


class Broadcasting:
    def __init__(self, clock: Clock, settings: Settings, find: Find = members) -> None:
        self._clock = clock
        self._settings = settings
        self._find_members = find

    async def create(self, wish: Wish, source: str) -> Broadcast:
        """Start a broadcast now; the same one when its dedup key was used before. `source` names
        the caller, whose keys are its own.

        Raises BadInput, and Conflict for a dedup key that was used with another one.
        """
        broadcast = self._broadcast(wish, source)
        if original := await _original(broadcast):
            return original
        if broadcast.expires_at is not None and broadcast.expires_at <= broadcast.started_at:
            raise BadInput("expiresAt lies in the past.", "input.expiresAt")
        most = self._settings.max_broadcasts
        await Search.of(wish.audience, broadcast.started_at, self._settings, "input.audience")
        if await Broadcast.count_going_on() >= most:
            raise BadInput(
                f"{most} broadcasts go on, the most (MAX_BROADCASTS): wait for one, or cancel one.",
                "input",
            )
        try:
            await Broadcast.get_pymongo_collection().insert_one(broadcast.row())
        except DuplicateKeyError:
            original = await _original(broadcast)
            if original is None:
                raise
            return original
        return broadcast

    async def pause(self, id: str) -> Broadcast:
        """Hand out no more until it is resumed. Raises NotFound."""
        return await self._turn(id, [BroadcastState.RUNNING], {"state": BroadcastState.PAUSED})

    async def resume(self, id: str) -> Broadcast:
        """Go on where it was paused. Raises NotFound."""
        return await self._turn(id, [BroadcastState.PAUSED], {"state": BroadcastState.RUNNING})

    async def cancel(self, id: str) -> Broadcast:
        """Hand out no more, for good. Raises NotFound."""
        forget_at = self._clock.now() + _memory(self._settings)
        change = {"state": BroadcastState.CANCELLED, "forget_at": forget_at}
        return await self._turn(id, [BroadcastState.RUNNING, BroadcastState.PAUSED], change)

    async def dry_run(self, audience: Audience) -> DryRun:
        """Count for half of OPERATION_SECONDS at most."""
        now, late = self._clock.now(), steady() + self._settings.operation_seconds / 2
        count = 0
        first: list[str] = []
        after: str | None = None
        search = await Search.of(audience, now, self._settings, "input")
        size, is_exact = self._settings.fan_out_size, False
        while not is_exact:
            end_if_cancelled()
            try:
                ids, after = await self._find_members(search, after, size)
            except Exception as error:
                is_down = isinstance(error, ServerSelectionTimeoutError)
                if is_down or size == 1 or not is_away(error):
                    raise
                size //= 2  # it may be too slow for so many at once
            else:
                count += len(ids)
                first += ids[: SAMPLE - len(first)]
                is_exact = after is None
            if steady() >= late:
                break
        users = await User.by_ids(first)
        return DryRun(count, is_exact, [users[id] for id in first if id in users])

    def _broadcast(self, wish: Wish, source: str) -> Broadcast:
        checked_body(PromotionAnnounced(title=wish.title, body=wish.body))
        if wish.per_second is not None and wish.per_second < 1:
            raise BadInput("perSecond is 1 or more.", "input.perSecond")
        check_key(wish.dedup_key, "input.dedupKey")
        now = self._clock.now()
        return Broadcast(
            id=PydanticObjectId(),
            source=source,
            title=wish.title,
            body=wish.body,
            audience=wish.audience.json,
            started_at=now,
            per_second=wish.per_second,
            expires_at=checked_end(wish.expires_at, "input.expiresAt"),
            dedup_key=wish.dedup_key,
            plan_at=now,
            send_at=now,
        )

    async def _turn(
        self, id: str, since: Sequence[BroadcastState], change: Mapping[str, Any]
    ) -> Broadcast:
        """Change it if it is in one of these states; as it stands then."""
        there = {"_id": object_id(id), "state": {"$in": [state.value for state in since]}}
        await Broadcast.get_pymongo_collection().update_one(there, {"$set": change})
        broadcast = await Broadcast.by_id(id)
        if broadcast is None:
            raise NotFound("There is no such broadcast.")
        return broadcast


async def end_if_over(
    id: PydanticObjectId | None, now: datetime, settings: Settings, session: Session
) -> None:
    """It is DONE when all recipients are found, and each of them is counted."""
    served = {"$add": ["$sent", "$held", "$suppressed", "$failed"]}
    over = {
        "_id": id,
        **OPEN,
        "state": {"$in": GOES_ON},
        "plan_at": None,
        "$expr": {"$eq": ["$total", served]},
    }
    done = {
        "state": BroadcastState.DONE.value,
        "is_open": False,
        "forget_at": now + _memory(settings),
    }
    await Broadcast.get_pymongo_collection().update_one(over, {"$set": done}, session=session)


async def readable(
    kind: type[D], row: Row, due: str, now: datetime, session: Session | None = None
) -> D | None:
    """None, and the row is put off, where another version wrote what we can't read. `due`: the
    field that says when somebody looks at it."""
    try:
        read: D = kind.model_validate(row)
    except ValidationError:
        log.error("broadcast_unreadable", rows=kind.get_collection_name(), id=str(row["_id"]))
        later = {"$set": {due: now + PUT_OFF}}
        await kind.get_pymongo_collection().update_one({"_id": row["_id"]}, later, session=session)
        return None
    return read


async def _original(broadcast: Broadcast) -> Broadcast | None:
    if broadcast.dedup_key is None:
        return None
    original = await Broadcast.by_dedup_key(broadcast.source, broadcast.dedup_key)
    if original is not None and not broadcast.says_the_same(original):
        raise Conflict("This dedupKey was used for another broadcast: choose a new one.")
    return original


def _memory(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.broadcast_memory_seconds)
