"""Negative controls: a promise's mechanism switched off, to see that the checker is not blind.

Only a campaign's processes can do this; the product has no such switch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import IndexModel

from campaign.verdict import Violation
from gateway.live import Live
from services.notifications import personalize
from services.notifications.broadcasting import end_if_over
from services.notifications.broadcasts import OPEN, Broadcast, Chunk
from services.notifications.caps import Allowance
from services.notifications.fan_out import FanOut
from services.notifications.ledgers import Ledgers
from services.notifications.models import Notification
from services.notifications.personalize import Rule
from services.notifications.scheduled import ScheduledNotification
from services.notifications.scheduling import Scheduling, ended
from services.notifications.tallies import Tally
from services.scheduler import service as scheduler
from services.scheduler.fires import Fire
from services.scheduler.models import Schedule
from services.shared.events import Event
from services.shared.outbox import Outbox
from services.shared.store import Row, Session
from services.shared.vocabulary import ScheduledState


def _outbox() -> None:
    """Events are published after the commit, straight from memory."""
    waiting: list[Event] = []
    running: set[asyncio.Task[None]] = set()

    async def put(
        self: Outbox, events: Sequence[Event], session: Session, *, whatever_waits: bool = False
    ) -> None:
        waiting.extend(events)

    def wake(self: Outbox) -> None:
        task = asyncio.get_running_loop().create_task(_publish(self, waiting[:]))
        waiting.clear()
        running.add(task)
        task.add_done_callback(running.discard)

    Outbox.put = put  # type: ignore[method-assign]
    Outbox.wake = wake  # type: ignore[method-assign]


async def _publish(outbox: Outbox, events: list[Event]) -> None:
    try:
        await outbox._bus.publish(events)
    except Exception as error:
        print("lost, as nobody kept them:", [event.id for event in events], error)


def _unique_key() -> None:
    """Nothing keeps a recipient's row from being stored again."""
    indexes = [
        IndexModel(list(index.document["key"].items())) if index.document.get("unique") else index
        for index in Notification.Settings.indexes
    ]
    Notification.Settings.indexes = tuple(indexes)  # type: ignore[assignment]

    async def of_events(
        keys: Sequence[tuple[str, str]], session: Session | None = None
    ) -> Mapping[tuple[str, str], Any]:
        return {}

    Notification.of_events = of_events  # type: ignore[method-assign]


def _resume_window() -> None:
    """A cursor is a position alone: what is committed late behind it is not looked for."""
    start = Live.__init__

    def init(self: Live, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        self.window = timedelta()

    Live.__init__ = init  # type: ignore[method-assign]


def _compare_and_set() -> None:
    """A scheduler fires what it found, whoever has fired it meanwhile."""

    async def move_on(fires: Sequence[Fire], session: Session) -> int:
        schedules = Schedule.get_pymongo_collection()
        for fire in fires:
            moved = {"next_fire_at": fire.next_at, "last_fired_at": fire.at}
            await schedules.update_one({"_id": fire.schedule.id}, {"$set": moved}, session=session)
        return len(fires)

    scheduler._move_on = move_on


def _collapse() -> None:
    """Whatever of a thing arrives last is shown."""
    rules = {rule: asked for rule, asked in personalize.RULES.items() if rule is not Rule.COLLAPSE}
    personalize.RULES = rules  # type: ignore[assignment,misc]


def _chunks() -> None:
    """A chunk of a broadcast is gone as soon as a worker has it, and not when it is done."""

    async def claim(self: FanOut, chunk: Chunk, until: datetime, session: Session) -> Chunk | None:
        these = Chunk.get_pymongo_collection()
        removed = await these.delete_one({"_id": chunk.id}, session=session)
        return chunk if removed.deleted_count else None

    async def count(
        self: FanOut, chunk: Chunk, tally: Tally, unserved: Sequence[str], session: Session
    ) -> None:
        those = Broadcast.get_pymongo_collection()
        id, now = chunk.broadcast_id, self._clock.now()
        await those.update_one({"_id": id}, {"$inc": dict(tally)}, session=session)
        await end_if_over(id, now, self._settings, session)

    FanOut._claim = claim  # type: ignore[method-assign]
    FanOut._count = count  # type: ignore[method-assign]


def _pause() -> None:
    """Chunks of a broadcast are handed out however it stands."""

    async def to_send(now: datetime) -> Sequence[Row]:
        there = {**OPEN, "send_at": {"$lte": now}}
        return await Broadcast.get_pymongo_collection().find(there).to_list()

    async def hand_out(self: FanOut, broadcast: Broadcast, session: Session) -> Chunk | None:
        now = self._clock.now()
        row = await Chunk.next_of(broadcast.id, now, session)
        if row is None:
            return None
        chunk = Chunk.model_validate(row)
        next_at = self._next_at(broadcast, len(chunk.user_ids), now)
        those = Broadcast.get_pymongo_collection()
        change = {"$set": {"send_at": next_at}, "$inc": {"handed_out": 1}}
        await those.update_one({"_id": broadcast.id}, change, session=session)
        return await self._claim(chunk, now + self._lease, session)

    Broadcast.to_send = to_send  # type: ignore[method-assign]
    FanOut._hand_out = hand_out  # type: ignore[method-assign]


def _cancel() -> None:
    """Whatever was scheduled is cancelled, also when it has gone out."""

    async def cancel(self: Scheduling, which: Row, session: Session | None = None) -> int:
        cancelled = ended(ScheduledState.CANCELLED, self._clock.now(), self._settings)
        collection = ScheduledNotification.get_pymongo_collection()
        result = await collection.update_many(which, {"$set": cancelled}, session=session)
        return result.matched_count

    Scheduling._cancel = cancel  # type: ignore[method-assign]


def _caps() -> None:
    """Nobody writes down what was spent."""

    async def write(self: Ledgers, allowance: Allowance, now: datetime, session: Session) -> None:
        return

    Ledgers.write = write  # type: ignore[method-assign]


@dataclass(frozen=True)
class Control:
    """`violations`: of these the checker has to find one at least."""

    switch_off: Callable[[], None]
    violations: Sequence[Violation]


CONTROLS: Final[Mapping[str, Control]] = {
    "outbox": Control(_outbox, [Violation.LOST, Violation.MISSED_FIRE]),
    "unique-key": Control(_unique_key, [Violation.DUPLICATED]),
    "resume-window": Control(_resume_window, [Violation.READER_MISSED]),
    "collapse": Control(_collapse, [Violation.STALE]),
    "compare-and-set": Control(_compare_and_set, [Violation.DOUBLE_FIRE]),
    "chunks": Control(_chunks, [Violation.ACKNOWLEDGED_MISSING, Violation.LOST]),
    "pause": Control(_pause, [Violation.STOPPED_BUT_SENT]),
    "cancel": Control(_cancel, [Violation.STOPPED_BUT_SENT]),
    "caps": Control(_caps, [Violation.OVER_CAP]),
}
