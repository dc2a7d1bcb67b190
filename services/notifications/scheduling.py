"""Notifications for later: scheduled, and cancelled before their time has come.

A cancel answers what is true: it turns a row that still waits, as `firing` does, or says that it
came too late. A cancel by key holds for a while whatever was scheduled before it, so that of a
schedule and its cancel that overtake one another the cancel wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from beanie import PydanticObjectId
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from services.notifications.drafts import check_key
from services.notifications.plan import Plan
from services.notifications.scheduled import CancelKey, ScheduledNotification, folded
from services.shared.clock import Clock
from services.shared.errors import BadInput, Conflict, NotFound
from services.shared.events import Event, OrderStatusChanged
from services.shared.settings import Settings
from services.shared.store import Row, Session, Store
from services.shared.vocabulary import CancelOutcome, ScheduledState, ScheduleOutcome
from services.users.models import User, object_id


class Scheduling:
    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings

    async def schedule(
        self, plan: Plan, source: str
    ) -> tuple[ScheduleOutcome, ScheduledNotification]:
        """Have it go out at its time. `source` names the caller, whose keys are its own.

        Raises BadInput, NotFound for an unknown user, and Conflict for a dedup key that was used
        with another one.
        """
        plan = plan.checked(self._settings.max_content_bytes)
        user = await User.by_id(plan.asked.user_id)
        if user is None:
            raise NotFound(f"There is no user {plan.asked.user_id}.")
        at = plan.instant(user.timezone or self._settings.shop_timezone)
        scheduled = self._scheduled(plan, at, source)
        if original := await _original(scheduled):
            return ScheduleOutcome.DUPLICATE, original
        self._check_time(plan, at)
        await self._check_room(user)
        try:
            state = await self._store.transact(partial(self._insert, scheduled))
        except DuplicateKeyError:
            original = await _original(scheduled)
            if original is None:
                raise
            return ScheduleOutcome.DUPLICATE, original
        if state is ScheduledState.CANCELLED:
            return ScheduleOutcome.CANCELLED, scheduled.model_copy(update={"state": state})
        return ScheduleOutcome.SCHEDULED, scheduled

    async def cancel(self, id: str) -> CancelOutcome:
        """Cancel one, whoever asked for it. Raises NotFound for an id that never was."""
        key = object_id(id)
        if key and await self._cancel({"_id": key}):
            return CancelOutcome.CANCELLED
        scheduled = await ScheduledNotification.get(key) if key else None
        if scheduled is None:
            raise NotFound("There is no such scheduled notification.")
        if scheduled.state is ScheduledState.CANCELLED:
            return CancelOutcome.CANCELLED
        return CancelOutcome.TOO_LATE

    async def cancel_by_key(self, key: str, source: str) -> CancelOutcome:
        """Cancel what waits under the caller's key, and what comes in CANCEL_MEMORY_SECONDS.

        TOO_LATE when nothing waited, and what was scheduled last under it has gone out or was
        suppressed. Raises BadInput.
        """
        check_key(key, "cancelKey")
        until = self._clock.now() + timedelta(seconds=self._settings.cancel_memory_seconds)
        under_key = {"source": source, "cancel_key": key}

        async def write(session: Session) -> CancelOutcome:
            kept = {"cancelled_until": until, "forget_at": until}
            await _write_key(source, key, {"$set": kept}, session)
            if await self._cancel(under_key, session):
                return CancelOutcome.CANCELLED
            last = await ScheduledNotification.get_pymongo_collection().find_one(
                under_key, {"state": 1}, sort=[("created_at", -1), ("_id", -1)], session=session
            )
            never = last is None or last["state"] == ScheduledState.CANCELLED
            return CancelOutcome.CANCELLED if never else CancelOutcome.TOO_LATE

        return await self._store.transact(write)

    async def cancel_on_orders(self, events: Sequence[Event]) -> None:
        """Cancel what was to be cancelled on these, if it was scheduled before they happened."""
        orders = [(event.read(OrderStatusChanged), event.time) for event in events]
        waiting = ScheduledNotification.get_pymongo_collection().find(
            {
                "user_id": {"$in": list({order.user_id for order, _ in orders})},
                "state": ScheduledState.WAITING,
                "cancel_on.order_status": {"$in": list({folded(o.status) for o, _ in orders})},
            }
        )
        met = []
        async for row in waiting:
            scheduled = ScheduledNotification.model_validate(row)
            if any(_cancels(order, at, scheduled) for order, at in orders):
                met.append(scheduled.id)
        if met:
            await self._cancel({"_id": {"$in": met}})

    async def _cancel(self, which: Row, session: Session | None = None) -> int:
        """Cancel those that still wait; how many that were."""
        cancelled = ended(ScheduledState.CANCELLED, self._clock.now(), self._settings)
        collection = ScheduledNotification.get_pymongo_collection()
        result = await collection.update_many(
            which | {"state": ScheduledState.WAITING}, {"$set": cancelled}, session=session
        )
        return result.modified_count

    async def _insert(self, scheduled: ScheduledNotification, session: Session) -> ScheduledState:
        """Store it, to wait, or as cancelled when its key is; in which state."""
        row, now = scheduled.row(), self._clock.now()
        if (key := scheduled.cancel_key) is not None:
            used = await _write_key(scheduled.source, key, {"$max": {"forget_at": now}}, session)
            until = used.get("cancelled_until")
            if until is not None and until > now:
                row |= ended(ScheduledState.CANCELLED, now, self._settings)
            else:
                await self._check_room_under(scheduled.source, key, session)
        await ScheduledNotification.get_pymongo_collection().insert_one(row, session=session)
        return ScheduledState(row["state"])

    def _scheduled(self, plan: Plan, at: datetime, source: str) -> ScheduledNotification:
        return ScheduledNotification(
            id=PydanticObjectId(),
            user_id=plan.asked.user_id,
            source=source,
            type=plan.asked.type,
            content=plan.asked.content,
            title=plan.asked.title,
            expires_at=plan.asked.expires_at,
            at=at,
            created_at=self._clock.now(),
            state=ScheduledState.WAITING,
            due_at=at,
            dedup_key=plan.dedup_key,
            cancel_key=plan.cancel_key,
            cancel_on=plan.cancel_on,
        )

    def _check_time(self, plan: Plan, at: datetime) -> None:
        now, ahead = self._clock.now(), self._settings.scheduled_ahead_seconds
        ends = plan.asked.expires_at
        if ends is not None and ends <= at:
            raise BadInput("It would be over before it goes out.", "input.expiresAt")
        if at <= now:
            raise BadInput("This lies in the past: createNotification sends at once.", plan.field)
        if at > now + timedelta(seconds=ahead):
            raise BadInput(
                f"This is too far ahead: {ahead / 86400:g} days are the most "
                "(SCHEDULED_AHEAD_SECONDS).",
                plan.field,
            )

    async def _check_room(self, user: User) -> None:
        most = self._settings.max_scheduled_per_user
        if await ScheduledNotification.count_of_user(str(user.id), most) >= most:
            raise BadInput(
                f"{most} wait for this user, the most (MAX_SCHEDULED_PER_USER): cancel some first.",
                "input.userId",
            )

    async def _check_room_under(self, source: str, key: str, session: Session) -> None:
        most = self._settings.max_scheduled_per_cancel_key
        if await ScheduledNotification.count_of_key(source, key, most, session) >= most:
            raise BadInput(
                f"{most} wait under this cancelKey, the most (MAX_SCHEDULED_PER_CANCEL_KEY): "
                "use another.",
                "input.cancelKey",
            )


def ended(state: ScheduledState, now: datetime, settings: Settings) -> dict[str, Any]:
    """What is set when a row has come to its end."""
    forget_at = now + timedelta(seconds=settings.scheduled_memory_seconds)
    return {"state": state.value, "forget_at": forget_at}


async def _original(scheduled: ScheduledNotification) -> ScheduledNotification | None:
    """What was scheduled before under the same dedupKey. Raises Conflict if it is not the same."""
    if scheduled.dedup_key is None:
        return None
    original = await ScheduledNotification.by_dedup_key(
        scheduled.source, scheduled.user_id, scheduled.dedup_key
    )
    if original is not None and not scheduled.says_the_same(original):
        raise Conflict("This dedupKey was used for another notification: choose a new one.")
    return original


async def _write_key(source: str, key: str, change: Row, session: Session) -> Row:
    """The key's row after this change."""
    row: Any = await CancelKey.get_pymongo_collection().find_one_and_update(
        {"_id": f"{source} {key}"},
        change | {"$inc": {"writes": 1}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    return dict(row)


def _cancels(order: OrderStatusChanged, at: datetime, scheduled: ScheduledNotification) -> bool:
    return (
        scheduled.cancel_on is not None
        and scheduled.user_id == order.user_id
        and scheduled.created_at <= at
        and scheduled.cancel_on.is_met_by(order)
    )
