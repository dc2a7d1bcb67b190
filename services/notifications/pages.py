"""Pages of a user's notifications, and where in the list a reader is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson import ObjectId

from services.notifications.cursor import Cursor, Position, Progress, Seen, to_milliseconds
from services.notifications.models import Notification
from services.notifications.queries import Filter, Span, between, beyond, query
from services.notifications.shown import Shown
from services.notifications.together import Together


@dataclass(frozen=True, slots=True)
class Page:
    """Newest first; `cursors[i]` belongs to `rows[i]`."""

    rows: Sequence[Shown]
    cursors: Sequence[Cursor]
    has_next: bool
    has_previous: bool


async def page(
    together: Together,
    user_id: str,
    which: Filter,
    span: Span,
    now: datetime,
    *,
    window: timedelta,
    most_ids: int,
) -> Page:
    """One page, newest first. `window`: how long an order by sent_at may still change.

    Cursors of rows within the window carry what was seen in it, up to `most_ids`; those ids
    are read before the rows, so that one that is written in between is not taken for seen.
    """
    rows = await _rows(together, user_id, which, span, now)
    recent: Sequence[Position] = ()
    if rows and max(row.sent_at for row in rows) >= now - window:
        recent = await _positions_since(user_id, now - window, most_ids + 1)
        rows = await _rows(together, user_id, which, span, now)
    more = len(rows) > span.size
    rows = rows[: span.size]
    if span.from_end:
        rows.reverse()
    return Page(
        rows=rows,
        cursors=_cursors([row.position for row in rows], recent, now - window, most_ids),
        has_next=more if not span.from_end else await _any(user_id, which, span, now),
        has_previous=more if span.from_end else await _any(user_id, which, span, now),
    )


async def cursor_at(user_id: str, now: datetime, window: timedelta, most_ids: int) -> Cursor:
    """The cursor of a reader who has seen all that was sent before, and waits for more.

    In a flood of more than `most_ids` within the window it is that of a moment before.
    """
    floor = to_milliseconds(now - window)
    progress = Progress(Cursor(floor, bytes(12), floor))
    for place in await _positions_since(user_id, now - window, most_ids):
        if place.at < to_milliseconds(now):
            progress.saw(place)
    return progress.cursor()


async def _rows(
    together: Together, user_id: str, which: Filter, span: Span, now: datetime
) -> list[Shown]:
    there = query(user_id, which, now) | between(span.after, span.before)
    order = 1 if span.from_end else -1
    rows = await together.page(there, [("sent_at", order), ("_id", order)], span.size + 1)
    return [Shown.of(row) for row in rows]


async def _any(user_id: str, which: Filter, span: Span, now: datetime) -> bool:
    """Whether there are rows on the other side of the cursor that the page started from."""
    edge = span.before if span.from_end else span.after
    if edge is None:
        return False
    there = beyond(edge.position, "$lte" if span.from_end else "$gte")
    found = Notification.get_pymongo_collection()
    return await found.find_one(query(user_id, which, now) | there, {"_id": 1}) is not None


async def _positions_since(user_id: str, moment: datetime, limit: int) -> list[Position]:
    """The first ones since then, the oldest first."""
    return await Notification.places({"user_id": user_id, "sent_at": {"$gte": moment}}, limit)


def _cursors(
    positions: Sequence[Position],
    recent: Sequence[Position],
    settled: datetime,
    most_ids: int,
) -> list[Cursor]:
    start = Position.of(settled, ObjectId(bytes(12)))
    seen = sorted({place for place in (*recent, *positions) if place >= start})

    def cursor(place: Position) -> Cursor:
        if place < start:
            return Cursor(place.at, place.id, place.at + 1)
        latest = {p.id: p.at for p in seen if p <= place}
        if len(latest) > most_ids or len(recent) > most_ids:
            return Cursor(place.at, place.id, place.at + 1, exact=False)
        told = tuple(Seen(id, at - start.at) for id, at in latest.items())
        return Cursor(place.at, place.id, start.at, told)

    return [cursor(place) for place in positions]
