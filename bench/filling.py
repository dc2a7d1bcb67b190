"""A shop's database as it is after months: users with sessions, and their notifications.

The rows lie in the order in which they were sent, so that one user's are scattered among those of
all others. The indexes are built when all rows are there. For more than a million of them mongod
wants a cache of some gigabytes.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any, Final

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase

from services.notifications.models import Notification
from services.notifications.scheduled import ScheduledNotification
from services.scheduler.models import Schedule
from services.shared.clock import SystemClock
from services.shared.events import OrderStatusChanged
from services.shared.store import Row
from services.shared.vocabulary import ChangeKind, NotificationType, Role, ScheduledState
from services.users.credentials import Session
from services.users.models import User

Database = AsyncDatabase[Row]
Progress = Callable[[str], None]

_SEEDS: Final = "filling_seeds"
_WRITERS: Final = 2
_BATCH: Final = 5_000
_TOLD: Final = 500_000
_DIGITS: Final = 12
_SPAN: Final = timedelta(days=30)
_NEWEST: Final = timedelta(hours=3)
_AN_HOUR: Final = timedelta(hours=1)
_A_MINUTE: Final = timedelta(minutes=1)
_UNSEEN: Final = 6
# What stands in a template for a user's own: the row's id, the user's id, and its time.
_ID: Final = ObjectId(b"\xfe\xed" * 6)
_USER: Final = "5a5a5a5a5a5aEEEEEEEEEEEE"
_AT: Final = datetime(1999, 9, 9, 9, 9, 9, tzinfo=UTC)
_CRONS: Final = ("0 9 * * *", "30 18 * * *", "0 */6 * * *", "15 7 * * MON-FRI", "0 12 1 * *")
_ZONES: Final = (
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "Asia/Tokyo",
    "UTC",
    "Asia/Kolkata",
)
_TYPES: Final = tuple(NotificationType)
_RULES: Final = ["expiry", "collapse", "critical", "lock"]
_MORE_RULES: Final = ["type", "channel", "consent", "quiet_hours", "frequency"]


def user_id(number: int) -> str:
    """The id of the user who has this number: 0, 1, 2 and so on."""
    return f"5a5a5a5a5a5a{number:0{_DIGITS}}"


def session_id(number: int) -> str:
    """The id of that user's only session, which is open for a month."""
    return f"5b5b5b5b5b5b{number:0{_DIGITS}}"


async def fill_notifications(
    database: Database, users: int, each: int, progress: Progress = print
) -> None:
    """Instead of all users, sessions and notifications: so many users, who have `each`
    notifications of the last 30 days, the newest two to three hours old.

    A third each are order updates, promotions and recommendations. Two thirds are read, a twentieth
    is archived, a fiftieth snoozed; promotions expire after a day or a week.
    """
    await fill_users(database, users)
    rows = _rows(users, each, SystemClock().now())
    await _fill(database, Notification.Settings, rows, users * each, progress)


async def fill_users(database: Database, users: int) -> None:
    """Instead of all users and sessions: so many users, who have one session each."""
    now = SystemClock().now()
    models: Sequence[tuple[str, Sequence[IndexModel], Row]] = (
        (User.Settings.name, User.Settings.indexes, _user(now)),
        (Session.Settings.name, Session.Settings.indexes, _session(now)),
    )
    seeds = database[_SEEDS]
    await seeds.drop()
    await seeds.insert_one({})
    for name, indexes, row in models:
        await database[name].drop()
        await seeds.aggregate(
            [
                {"$project": {"user": {"$range": [0, users]}}},
                {"$unwind": "$user"},
                {"$replaceWith": row},
                {"$out": name},
            ]
        )
        await database[name].create_indexes([*indexes])
    await seeds.drop()


async def fill_schedules(database: Database, count: int, progress: Progress = print) -> None:
    """Instead of all schedules: so many, which fire tomorrow."""
    tomorrow = SystemClock().now() + timedelta(days=1)
    rows = (
        {
            "_id": ObjectId(f"5d5d5d5d5d5d{number:0{_DIGITS}}"),
            "name": f"schedule {number}",
            "cron": _CRONS[number % len(_CRONS)],
            "timezone": _ZONES[number % len(_ZONES)],
            "event": {
                "type": OrderStatusChanged.type,
                "data": {
                    "orderId": f"2026-{number:07}",
                    "userId": user_id(number % 10_000),
                    "status": "ready",
                },
            },
            "paused": False,
            "next_fire_at": tomorrow + timedelta(seconds=number % 86_400),
            "last_fired_at": None,
        }
        for number in range(count)
    )
    await _fill(database, Schedule.Settings, rows, count, progress)


async def fill_scheduled(
    database: Database, users: int, count: int, progress: Progress = print
) -> None:
    """Instead of all notifications that wait for their time: so many, for tomorrow."""
    now = SystemClock().now()
    rows = (
        scheduled_row(number, number % users, now + timedelta(days=1, seconds=number % 86_400), now)
        for number in range(count)
    )
    await _fill(database, ScheduledNotification.Settings, rows, count, progress)


def scheduled_row(number: int, user: int, at: datetime, now: datetime) -> Row:
    """One that waits for its time, as notifications/scheduled.py has it."""
    return {
        "_id": ObjectId(),
        "user_id": user_id(user),
        "source": "urn:bench",
        "type": NotificationType.ORDER_UPDATE.value,
        "title": "Your parcel waits for you",
        "content": {"orderId": f"2026-{number:07}", "text": "Fetch it at the shop until Friday."},
        "at": at,
        "created_at": now,
        "state": ScheduledState.WAITING.value,
        "due_at": at,
    }


async def _fill(
    database: Database,
    model: Any,
    rows: Iterator[Row | RawBSONDocument],
    count: int,
    progress: Progress,
) -> None:
    """Instead of all rows of that model: these, and then their indexes."""
    await database[model.name].drop()
    written = 0

    async def write() -> None:
        nonlocal written
        while batch := list(islice(rows, _BATCH)):
            await database.command(  # insert_many() takes as long again
                "insert", model.name, documents=batch, ordered=False, writeConcern={"w": 1}
            )
            written += len(batch)
            if written % _TOLD < len(batch):
                progress(f"{model.name}: {written:,} of {count:,}")

    await asyncio.gather(*(write() for _ in range(_WRITERS)))
    progress(f"{model.name}: indexes")
    parts = [model.indexes[part::_WRITERS] for part in range(_WRITERS)]
    await asyncio.gather(*(database[model.name].create_indexes([*part]) for part in parts if part))


def _user(now: datetime) -> Row:
    """As users/models.py has it, in MongoDB's expressions."""
    address = {"$concat": ["customer-", {"$toString": "$user"}, "@shop.example"]}
    return {
        "_id": {"$toObjectId": _id_text(user_id(0))},
        "name": {"$concat": ["Customer ", {"$toString": "$user"}]},
        "email": address,
        "email_key": address,
        "password_hash": b"",
        "role": Role.USER.value,
        "locale": "en",
        "timezone": None,
        "tags": [],
        "created_at": now - _SPAN,
        "choices": {"$literal": {}},
        "quiet_hours": {"$literal": {}},
        "consents": {"$literal": {}},
        "preferences_version": 0,
        "disabled_at": None,
        "credentials_version": 1,
    }


def _session(now: datetime) -> Row:
    """As users/credentials.py has it, in MongoDB's expressions."""
    return {
        "_id": {"$toObjectId": _id_text(session_id(0))},
        "user_id": _id_text(user_id(0)),
        "family_hash": bytes(32),
        "token_hash": bytes(32),
        "client": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "created_at": now - _AN_HOUR,
        "last_used_at": now - _AN_HOUR,
        "expires_at": now + _SPAN,
    }


def _rows(users: int, each: int, now: datetime) -> Iterator[RawBSONDocument]:
    """All notifications as they are stored, the oldest first. Encoded once for all users, with
    places for what is each user's own: that takes a tenth of the time."""
    ids = [user_id(number).encode() for number in range(users)]
    numbers = [struct.pack(">I", number) for number in range(users)]
    for number in range(each):
        sent_at = now - _NEWEST - (each - 1 - number) * _SPAN / each
        start, rest = bson.encode(_row(number, each, sent_at)).split(_ID.binary)
        start += struct.pack(">II", 0x5C5C5C5C, number)
        between, rest = rest.split(_milliseconds(_AT))
        around = rest.split(_USER.encode())
        times = [_milliseconds(sent_at + timedelta(seconds=one)) for one in range(3600)]
        for id, own, at in zip(ids, numbers, cycle(times), strict=False):
            yield RawBSONDocument(b"".join((start, own, between, at, id.join(around))))


def _row(number: int, each: int, sent_at: datetime) -> Row:
    """The notification of this number, where 0 is the oldest, of the user _USER."""
    type_ = _TYPES[number % 3]
    is_read, is_archived = number // 3 % 3 > 0, number % 20 == 7
    is_snoozed = number % 50 == 9
    read_at = sent_at + _AN_HOUR + _A_MINUTE if is_read else None
    event = f"urn:bench {number}/{_USER}"
    row: Row = {
        "_id": _ID,
        "sent_at": _AT,
        "user_id": _USER,
        "event": event,
        **_told(type_, number),
        "own_title": False,
        "expires_at": None,
        "read": is_read,
        "read_at": read_at,
        "seen": is_read or is_archived or is_snoozed or number < each - _UNSEEN,
        "archived": is_archived,
        "snoozed_until": sent_at + _NEWEST + _SPAN if is_snoozed else None,
        "decision": _decision(type_) | {"at": sent_at},
        "revision": 1,
    }
    if is_read:
        row |= {"change": ChangeKind.READ.value, "changed_at": read_at}
    if type_ is NotificationType.ORDER_UPDATE:
        thing = f"{_USER} {type_.value} order:2026-{number:06}"
        row |= {"thing": thing, "rank": [False, 0, sent_at, event], "said": bytes(16)}
    else:
        is_short = type_ is NotificationType.PROMOTION and number // 3 % 4 == 0
        row["expires_at"] = sent_at + timedelta(days=1 if is_short else 7)
    return row


def _told(type_: NotificationType, number: int) -> Row:
    """What a notification says, by its type, in about as many bytes as a shop's."""
    said: Row = {"type": type_.value, "product_ids": []}
    if type_ is NotificationType.ORDER_UPDATE:
        details = {
            "carrier": "DHL",
            "tracking": f"JD0146{number:014}",
            "items": [{"sku": f"SHOE-{number:05}-42", "name": "Trail shoe", "quantity": 1}],
        }
        content = {"orderId": f"2026-{number:06}", "status": "shipped", "details": details}
        return said | {
            "title": f"Order 2026-{number:06} is on its way",
            "body": "Your parcel has left our warehouse.",
            "content": content,
        }
    if type_ is NotificationType.PROMOTION:
        title, body = f"Sale number {number}", "Twenty per cent off all shoes until Sunday evening."
        return said | {"title": title, "body": body, "content": {"title": title, "body": body}}
    products = [
        {
            "productId": f"product-{number}-{place}",
            "name": "Trail shoe",
            "score": 0.5,
            "reason": "You looked at a shoe like this one.",
        }
        for place in range(5)
    ]
    return said | {
        "title": "Picked for you: Trail shoe",
        "body": "Trail shoe, and four more that go with what you looked at.",
        "content": {"products": products},
        "product_ids": [product["productId"] for product in products],
    }


def _decision(type_: NotificationType) -> Row:
    """As traces.py stores it; its time is the notification's."""
    decision: Row = {
        "class": "marketing",
        "channel": "in_app",
        "outcome": "sent",
        "reason": "ACCEPTED",
        "until": None,
        "asked": _RULES + _MORE_RULES,
        "preferences_version": 0,
    }
    if type_ is not NotificationType.ORDER_UPDATE:
        return decision
    accepted = {"outcome": "sent", "reason": "ACCEPTED"}
    return decision | {
        "class": "transactional",
        "reason": "LOCKED_CHANNEL",
        "asked": _RULES,
        "channels": {"email": accepted, "web_push": accepted},
    }


def _milliseconds(moment: datetime) -> bytes:
    """As BSON has it."""
    return struct.pack("<q", int(moment.timestamp() * 1000))


def _id_text(first: str) -> Row:
    """An id's 24 digits for the user number at hand; `first`: for number 0."""
    return {"$concat": [first[:-_DIGITS], _padded("$user", _DIGITS)]}


def _padded(number: str, digits: int) -> Row:
    """That number's decimal digits, with zeros before them."""
    filled = {"$toString": {"$add": [number, 10**digits]}}
    return {"$substrBytes": [filled, 1, digits]}
