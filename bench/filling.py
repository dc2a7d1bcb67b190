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
from typing import Final

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from services.notifications.models import Notification
from services.shared.clock import SystemClock
from services.shared.store import Row
from services.shared.vocabulary import ChangeKind, NotificationType, Role
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
    now = SystemClock().now()
    name = Notification.Settings.name
    await database[name].drop()
    collection = database[name].with_options(write_concern=WriteConcern(w=1))
    batches = iter(_batches(users, each, now))
    written = 0

    async def write() -> None:
        nonlocal written
        for batch in batches:
            await collection.insert_many(batch, ordered=False)
            written += len(batch)
            if written % _TOLD < len(batch):
                progress(f"notifications: {written:,} of {users * each:,}")

    await asyncio.gather(*(write() for _ in range(_WRITERS)))
    progress("notifications: indexes")
    indexes = [*Notification.Settings.indexes]
    await asyncio.gather(
        *(collection.create_indexes(indexes[part::_WRITERS]) for part in range(_WRITERS))
    )


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


def _batches(users: int, each: int, now: datetime) -> Iterator[list[RawBSONDocument]]:
    """All notifications as they are stored, the oldest first. Encoded once for all users, with
    places for what is each user's own: two million rows are a minute's work so."""
    ids = [user_id(number).encode() for number in range(users)]
    for number in range(each):
        sent_at = now - _NEWEST - (each - 1 - number) * _SPAN / each
        start, rest = bson.encode(_row(number, each, sent_at)).split(_ID.binary)
        between, rest = rest.split(_milliseconds(_AT))
        around = rest.split(_USER.encode())
        for first in range(0, users, _BATCH):
            yield [
                RawBSONDocument(
                    start
                    + struct.pack(">III", 0x5C5C5C5C, number, user)
                    + between
                    + _milliseconds(sent_at + timedelta(seconds=user % 3600))
                    + ids[user].join(around)
                )
                for user in range(first, min(first + _BATCH, users))
            ]


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
