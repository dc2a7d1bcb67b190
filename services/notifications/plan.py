"""What a caller asks to go out later, and at which instant that is. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from services.notifications.drafts import Asked, check_key
from services.notifications.scheduled import CancelOn, folded
from services.shared.clock import whole_milliseconds, zone_names
from services.shared.errors import BadInput
from services.shared.wall_time import earliest

_LOCAL: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall go out when: `at` an instant, or when clocks show `local_at` in `timezone`, which
    is the recipient's own if none is given. The paths of its errors start with `input.`."""

    asked: Asked
    at: datetime | None = None
    local_at: str | None = None
    timezone: str | None = None
    dedup_key: str | None = None
    cancel_key: str | None = None
    cancel_on: CancelOn | None = None

    @property
    def field(self) -> str:
        """The path of what says when."""
        return "input.at" if self.local_at is None else "input.localAt"

    def checked(self, most_bytes: int) -> Plan:
        """As it is stored. Raises BadInput."""
        check_key(self.dedup_key, "input.dedupKey")
        check_key(self.cancel_key, "input.cancelKey")
        cancel_on = _checked(self.cancel_on) if self.cancel_on else None
        return replace(self, asked=self.asked.checked(most_bytes), cancel_on=cancel_on)

    def instant(self, own_zone: str) -> datetime:
        """When it goes out, in UTC. Where clocks skip a local time that is the next instant there
        is, where they show it twice the first. Raises BadInput."""
        if self.at is not None and self.local_at is not None:
            raise BadInput("Give at or localAt, not both.", "input.localAt")
        if self.timezone is not None and self.local_at is None:
            raise BadInput("A timezone belongs to localAt.", "input.timezone")
        try:
            if self.local_at is not None:
                zone = own_zone if self.timezone is None else self.timezone
                return earliest(_wall(self.local_at), _zone(zone))
            if self.at is None:
                raise BadInput("Say when: at, or localAt.", "input.at")
            if self.at.tzinfo is None:
                raise BadInput("Write at with its zone: 2026-12-24T18:00:00Z.", "input.at")
            return whole_milliseconds(self.at.astimezone(UTC))
        except OverflowError as error:
            raise BadInput("This lies beyond the calendar.", self.field) from error


def _checked(cancel_on: CancelOn) -> CancelOn:
    given = {
        "orderStatus": cancel_on.order_status,
        "orderId": cancel_on.order_id,
        "productId": cancel_on.product_id,
    }
    for name, value in given.items():
        if value is not None and not 1 <= len(value) <= 200:
            raise BadInput(f"{name} has 1 to 200 characters.", f"input.cancelOn.{name}")
    if cancel_on.order_status is None:
        if cancel_on.order_id is not None:
            raise BadInput("Name the orderStatus, too.", "input.cancelOn.orderStatus")
        if cancel_on.product_id is None:
            raise BadInput("Name an orderStatus or a productId.", "input.cancelOn")
        return cancel_on
    return replace(cancel_on, order_status=folded(cancel_on.order_status))


def _wall(text: str) -> datetime:
    try:
        if _LOCAL.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise BadInput("Write a local time without a zone: 2026-12-24T18:00.", "input.localAt")


def _zone(name: str) -> ZoneInfo:
    if name not in zone_names():
        raise BadInput("Name an IANA time zone, spelled like Europe/Berlin.", "input.timezone")
    return ZoneInfo(name)
