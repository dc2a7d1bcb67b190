"""What becomes of the schedules that are due at one instant. Pure: the same whichever scheduler
asks, so that the same fire gives the same event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from services.scheduler import mock
from services.scheduler.cron import Cron
from services.scheduler.models import Due
from services.shared.events import (
    Data,
    Event,
    Malformed,
    OrderStatusChanged,
    PromotionAnnounced,
    RecommendationsRequested,
    parse_data,
)

PUBLISHABLE: Final = (
    OrderStatusChanged.type,
    PromotionAnnounced.type,
    RecommendationsRequested.type,
)
_EXPRESSIONS: Final = 4096  # to parse one takes as long as ten fires

Times = Callable[[str, str, datetime], tuple[datetime, datetime, str]]


class Fire(NamedTuple):
    """What is done with a schedule: `event` is published for the fire `at`, and `next_at` is the
    one that comes then. Without an event the fire is skipped: it was `missed` for too long, or has
    nobody to tell of."""

    schedule: Due
    at: datetime
    next_at: datetime
    event: Event | None
    missed: bool

    @property
    def size(self) -> int:
        """Bytes of what is published, nearly."""
        return len(msgspec.json.encode(self.schedule.event)) if self.event else 0


@lru_cache(_EXPRESSIONS)
def cron_of(expression: str, timezone: str) -> Cron:
    """As it was checked when the schedule was made."""
    return Cron.parse(expression, timezone)


def times_at(now: datetime) -> Times:
    """For an expression, a time zone and a fire that is due `now`: the fire to make up for, the
    first one after now, and the id of the former. Those that are due together are often alike."""

    @cache
    def times(expression: str, timezone: str, since: datetime) -> tuple[datetime, datetime, str]:
        cron = cron_of(expression, timezone)
        fire, next_at = since, cron.next_after(since)
        if next_at <= now:
            fire, next_at = cron.latest_until(now, since), cron.next_after(now)
        return fire, next_at, cron.fire_id(fire)

    return times


def fire_of(
    schedule: Due, times: Times, now: datetime, grace: timedelta, customers: Sequence[str]
) -> Fire:
    """Raises BadInput, Malformed and whatever else another version's schedule may cause."""
    at, next_at, id = times(schedule.cron, schedule.timezone, schedule.next_fire_at)
    event = event_of(schedule.event, at, f"{schedule.id}/{id}", now, customers)
    missed = now - at > grace
    return Fire(schedule, at, next_at, None if missed else event, missed)


def event_of(
    scheduled: Mapping[str, Any], fire: datetime, id: str, now: datetime, customers: Sequence[str]
) -> Event | None:
    """What a schedule of this `event` publishes, under that id. None for a mock order where there
    are no customers."""
    type_ = scheduled.get("type")
    data: Data | None
    if type_ in mock.TYPES:
        data = mock.mock_event(type_, fire, customers)
    elif type_ not in PUBLISHABLE:
        raise Malformed(f"{type_!r} can't be scheduled")
    else:
        given = msgspec.json.encode(scheduled.get("data", {}))
        data = parse_data(type_, given, checked=True)
    return Event.of(data, time=now, id=id) if data else None
