"""What is done with schedules: made, changed, paused, run now, and fired when they are due.

Several schedulers need no leader. A fire and the move to the next one are a single transaction
that names the fire it found, so of two schedulers that find the same one only one succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import msgspec
from beanie import PydanticObjectId
from pymongo.errors import DuplicateKeyError

from services.scheduler import mock
from services.scheduler.cron import Cron
from services.scheduler.models import Schedule
from services.shared.clock import Clock
from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput, Conflict, NotFound, Unavailable
from services.shared.events import (
    Data,
    Event,
    Malformed,
    OrderStatusChanged,
    PromotionAnnounced,
    RecommendationsRequested,
    parse_data,
)
from services.shared.log import get_logger
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session, Store, is_away
from services.shared.tasks import end_if_cancelled
from services.shared.worker import when_back
from services.users.models import User

log = get_logger()

LONGEST_NAME: Final = 100
_PUBLISHABLE: Final = (
    OrderStatusChanged.type,
    PromotionAnnounced.type,
    RecommendationsRequested.type,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a schedule shall be. The paths of its errors start with `input.`."""

    name: str
    cron: str
    timezone: str
    event: Any


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
        next_fire_at = _cron(schedule).next_after(self._clock.now())
        return await self._set(schedule_id, {"paused": paused, "next_fire_at": next_fire_at})

    async def delete(self, schedule_id: str) -> None:
        """Raises NotFound."""
        await (await self._find(schedule_id)).delete()

    async def run(self, schedule_id: str) -> str:
        """Publish now, beside the cron's fires; the event's id. Raises NotFound."""
        schedule = await self._find(schedule_id)
        now = self._clock.now()
        event = await self._event(schedule, now, f"{schedule.id}/run/{uuid4().hex}")
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
        """Fire what is due; how many fired here."""
        due = await Schedule.due(now, self._settings.fan_out_size)
        return sum([await self._fire_or_pause(schedule, now) for schedule in due])

    async def keep_ticking(self) -> None:
        """Tick until cancelled; waits while the database is away."""
        while True:
            await when_back(lambda: self.tick(self._clock.now()), "the scheduler's tick")
            end_if_cancelled()
            await asyncio.sleep(self._settings.scheduler_tick_seconds)

    async def _fire_or_pause(self, schedule: Schedule, now: datetime) -> bool:
        try:
            return await self._fire(schedule, now)
        except Exception as error:
            if is_away(error) or isinstance(error, Unavailable):
                raise
            log.error("schedule_paused", schedule=schedule.name, exc_info=error)
            with suppress(NotFound):  # it was deleted meanwhile
                await self._set(str(schedule.id), {"paused": True})
            return False

    async def _fire(self, schedule: Schedule, now: datetime) -> bool:
        cron = _cron(schedule)
        fire = cron.latest_until(now, since=schedule.next_fire_at)
        grace = timedelta(seconds=self._settings.missed_run_grace_seconds)
        missed = now - fire > grace
        event = await self._event(schedule, fire, f"{schedule.id}/{cron.fire_id(fire)}")
        publish = [event] if event and not missed else []
        moved: dict[str, Any] = {"next_fire_at": cron.next_after(now)}
        if publish:
            moved["last_fired_at"] = fire

        async def write(session: Session) -> bool:
            if not await self._move_on(schedule, moved, session):
                return False
            if publish:
                await self._outbox.put(publish, session)
            return True

        won = await self._store.transact(write)
        if won and publish:
            self._outbox.wake()
            log.info("schedule_fired", schedule=schedule.name, fire=fire, event_id=publish[0].id)
        elif won:
            log.warning("schedule_skipped", schedule=schedule.name, fire=fire, missed=missed)
        return won and bool(publish)

    async def _move_on(self, schedule: Schedule, moved: dict[str, Any], session: Session) -> bool:
        """Whether it is still at the fire that was found, and so ours to fire."""
        found = {"_id": schedule.id, "paused": False, "next_fire_at": schedule.next_fire_at}
        result = await Schedule.get_pymongo_collection().update_one(
            found, {"$set": moved}, session=session
        )
        return result.modified_count == 1

    async def _event(self, schedule: Schedule, fire: datetime, id: str) -> Event | None:
        type_ = schedule.event.get("type")
        data: Data | None
        if type_ in mock.TYPES:
            data = mock.mock_event(type_, fire, await _customers())
        elif type_ not in _PUBLISHABLE:
            raise Malformed(f"{type_!r} can't be scheduled")
        else:
            data = parse_data(type_, msgspec.json.encode(schedule.event.get("data", {})))
        return Event.of(data, time=self._clock.now(), id=id) if data else None

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
        allowed = (*_PUBLISHABLE, *(mock.TYPES if self._settings.demo_data else ()))
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


def _cron(schedule: Schedule) -> Cron:
    return Cron.parse(schedule.cron, schedule.timezone)


def _taken(name: str) -> Conflict:
    return Conflict(f"A schedule named {name!r} exists: choose another name.")


async def _customers() -> Sequence[str]:
    """The first customers: whom mock orders are for."""
    return [str(user.id) for user in await User.customers(10)]
