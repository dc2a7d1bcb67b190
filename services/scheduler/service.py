"""What is done with schedules: made, changed, paused, run now, and fired when they are due.

Several schedulers need no leader. Fires and the moves to the next ones are a single transaction,
which moves only what still waits for the fire that was found, so of two schedulers that find the
same one only one succeeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

import msgspec
from beanie import PydanticObjectId
from bson import ObjectId
from pymongo import UpdateMany
from pymongo.errors import DuplicateKeyError

from services.scheduler import mock
from services.scheduler.cron import Cron
from services.scheduler.fires import PUBLISHABLE, Fire, cron_of, event_of, fire_of, times_at
from services.scheduler.models import Due, Schedule
from services.shared.clock import Clock
from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput, Conflict, NotFound, Unavailable
from services.shared.events import Malformed, parse_data
from services.shared.log import get_logger
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session, Store, is_away, parts
from services.shared.worker import keep_doing
from services.users.models import User

log = get_logger()

LONGEST_NAME: Final = 100
_NAMES_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What a schedule shall be. The paths of its errors start with `input.`."""

    name: str
    cron: str
    timezone: str
    event: Any


class _SomeHaveMoved(Exception):
    """Not all that were found wait for the same fire any more."""


class SchedulerService:
    def __init__(self, store: Store, outbox: Outbox, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._settings = settings

    async def create(self, plan: Plan) -> Schedule:
        """Raises BadInput, and Conflict for a name that is taken."""
        plan, cron = self._checked(plan)
        schedule = Schedule(
            id=PydanticObjectId(),
            name=plan.name,
            cron=plan.cron,
            timezone=plan.timezone,
            event=plan.event,
            next_fire_at=cron.next_after(self._clock.now()),
        )
        try:
            await schedule.insert()
        except DuplicateKeyError as error:
            raise _taken(plan.name) from error
        return schedule

    async def update(self, schedule_id: str, plan: Plan) -> Schedule:
        """Raises BadInput, NotFound, and Conflict for a name that is taken."""
        plan, cron = self._checked(plan)
        schedule = await self._find(schedule_id)
        changes = {
            "name": plan.name,
            "cron": plan.cron,
            "timezone": plan.timezone,
            "event": plan.event,
        }
        if (plan.cron, plan.timezone) != (schedule.cron, schedule.timezone):
            changes["next_fire_at"] = cron.next_after(self._clock.now())
        try:
            return await self._set(schedule_id, changes)
        except DuplicateKeyError as error:
            raise _taken(plan.name) from error

    async def pause(self, schedule_id: str, paused: bool) -> Schedule:
        """Pause, or go on with the next fire from now; what was missed is not made up for."""
        schedule = await self._find(schedule_id)
        if schedule.paused == paused:
            return schedule
        next_fire_at = cron_of(schedule.cron, schedule.timezone).next_after(self._clock.now())
        return await self._set(schedule_id, {"paused": paused, "next_fire_at": next_fire_at})

    async def delete(self, schedule_id: str) -> None:
        """Raises NotFound."""
        await (await self._find(schedule_id)).delete()

    async def run(self, schedule_id: str) -> str:
        """Publish now, beside the cron's fires; the event's id. Raises NotFound."""
        schedule = await self._find(schedule_id)
        now = self._clock.now()
        id = f"{schedule.id}/run/{uuid4().hex}"
        event = event_of(schedule.event, now, id, now, await _customers([schedule.event]))
        if event is None:
            raise NotFound("There is no customer yet to mock an order for.")

        async def write(session: Session) -> None:
            await Schedule.get_pymongo_collection().update_one(
                {"_id": schedule.id}, {"$set": {"last_fired_at": now}}, session=session
            )
            await self._outbox.put([event], session)

        await self._store.transact(write)
        self._outbox.wake()
        return event.id

    async def tick(self, now: datetime) -> int:
        """Fire what is due, or the first of it; how many fires are behind us, skipped ones too."""
        due = await Schedule.due(now, self._settings.fan_out_size)
        if not due:
            return 0
        grace = timedelta(seconds=self._settings.missed_run_grace_seconds)
        times, customers = times_at(now), await _customers([schedule.event for schedule in due])
        fires: list[Fire] = []
        for schedule in due:
            try:
                fires.append(fire_of(schedule, times, now, grace, customers))
            except Exception as error:
                await self._pause(schedule, error)
        return sum([await self._fire(part) for part in parts(fires, lambda fire: fire.size)])

    async def keep_ticking(self) -> None:
        """Tick until cancelled, at once again while there is more; waits while the database is
        away."""
        await keep_doing(
            lambda: self.tick(self._clock.now()),
            "the scheduler's tick",
            self._settings.scheduler_tick_seconds,
        )

    async def _fire(self, fires: Sequence[Fire]) -> int:
        """In halves where all at once fails, so that what can't be fired holds up nothing else."""
        try:
            return await self._fire_together(fires)
        except Unavailable:  # the outbox is full: for half of them, too
            raise
        except _SomeHaveMoved:  # once more, meanwhile: the next tick finds what is left
            return 0
        except Exception as error:
            if len(fires) > 1:
                log.warning("schedules_in_halves", count=len(fires), exc_info=error)
                half = len(fires) // 2
                return await self._fire(fires[:half]) + await self._fire(fires[half:])
            if is_away(error):
                raise
            await self._pause(fires[0].schedule, error)
            return 0

    async def _fire_together(self, fires: Sequence[Fire]) -> int:
        """Those of them that are still to be fired; how many that were. It is only asked which,
        where another scheduler or an operator came between."""
        try:
            ours = await self._store.transact(partial(self._write, fires))
        except _SomeHaveMoved:
            ours = await self._store.transact(partial(self._write_what_is_left, fires))
        self._outbox.wake()
        _tell(ours)
        return len(ours)

    async def _write(self, fires: Sequence[Fire], session: Session) -> Sequence[Fire]:
        """Raises _SomeHaveMoved unless all of them wait for the fires that were found."""
        if await _move_on(fires, session) < len(fires):
            raise _SomeHaveMoved
        if events := [fire.event for fire in fires if fire.event]:
            await self._outbox.put(events, session)
        return fires

    async def _write_what_is_left(self, fires: Sequence[Fire], session: Session) -> Sequence[Fire]:
        there = await Schedule.still_due([fire.schedule for fire in fires], session)
        left = [fire for fire in fires if fire.schedule.id in there]
        return await self._write(left, session) if left else []

    async def _pause(self, schedule: Due, error: Exception) -> None:
        log.error("schedule_paused", schedule=schedule.name, exc_info=error)
        with suppress(NotFound):  # it was deleted meanwhile
            await self._set(str(schedule.id), {"paused": True})

    def _checked(self, plan: Plan) -> tuple[Plan, Cron]:
        """The plan with its name in NFC, so that no two look the same. Raises BadInput."""
        if not 1 <= len(plan.name) <= LONGEST_NAME:
            raise BadInput(f"A name has 1 to {LONGEST_NAME} characters.", "input.name")
        for name, value in (("name", plan.name), ("event", plan.event)):
            try:
                check_content(value, name)
            except ContentRefused as error:
                raise BadInput(str(error), f"input.{name}") from error
        self._check_event(plan.event)
        try:
            cron = Cron.parse(plan.cron, plan.timezone)
        except BadInput as error:
            raise BadInput(error.message, f"input.{error.field}") from error
        return replace(plan, name=composed(plan.name)), cron

    def _check_event(self, event: Any) -> None:
        allowed = (*PUBLISHABLE, *(mock.TYPES if self._settings.demo_data else ()))
        if not isinstance(event, dict) or event.get("type") not in allowed:
            raise BadInput(
                f'An event is {{"type": …, "data": {{…}}}} of a type of: {", ".join(allowed)}.',
                "input.event",
            )
        size = len(msgspec.json.encode(event))
        if size > self._settings.max_content_bytes:
            raise BadInput(
                f"The event has {size} bytes; {self._settings.max_content_bytes} is the most "
                "(MAX_CONTENT_BYTES).",
                "input.event",
            )
        if event["type"] in mock.TYPES:
            return
        try:
            parse_data(event["type"], msgspec.json.encode(event.get("data", {})))
        except Malformed as error:
            raise BadInput(str(error), "input.event.data") from error

    async def _find(self, schedule_id: str) -> Schedule:
        schedule = await Schedule.by_id(schedule_id)
        if schedule is None:
            raise NotFound("There is no such schedule.")
        return schedule

    async def _set(self, schedule_id: str, changes: dict[str, Any]) -> Schedule:
        schedule = await self._find(schedule_id)
        await Schedule.get_pymongo_collection().update_one({"_id": schedule.id}, {"$set": changes})
        return await self._find(schedule_id)


async def _move_on(fires: Sequence[Fire], session: Session) -> int:
    """To their next fires, those that still wait for the ones that were found: one write for all
    that move alike. How many those were."""
    alike: dict[tuple[datetime, datetime, datetime | None], list[ObjectId]] = defaultdict(list)
    for fire in fires:
        key = fire.schedule.next_fire_at, fire.next_at, fire.at if fire.event else None
        alike[key].append(fire.schedule.id)
    writes = []
    for (found_at, next_at, fired_at), ids in alike.items():
        waiting = {"_id": {"$in": ids}, "paused": False, "next_fire_at": found_at}
        moved = {"next_fire_at": next_at}
        if fired_at:
            moved["last_fired_at"] = fired_at
        writes.append(UpdateMany(waiting, {"$set": moved}, hint="_id_"))
    collection = Schedule.get_pymongo_collection()
    result = await collection.bulk_write(writes, ordered=False, session=session)
    return result.matched_count


def _tell(fires: Sequence[Fire]) -> None:
    """In the log, one line for all that fired: one for each would take longer than to fire it."""
    if fired := [fire.schedule.name for fire in fires if fire.event]:
        log.info("schedules_fired", count=len(fired), schedules=fired[:_NAMES_TOLD])
    for fire in fires:
        if fire.event is None:
            log.warning(
                "schedule_skipped", schedule=fire.schedule.name, fire=fire.at, missed=fire.missed
            )


def _taken(name: str) -> Conflict:
    return Conflict(f"A schedule named {name!r} exists: choose another name.")


async def _customers(scheduled: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """The first customers: whom mock orders are for, if any of these events is one."""
    if all(event.get("type") != mock.ORDER for event in scheduled):
        return ()
    return [str(user.id) for user in await User.customers(10)]
