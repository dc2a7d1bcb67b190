"""A shop's database as it is after months: users with sessions, and their notifications.

MongoDB makes the rows itself, from a few seeds. They lie in the order in which they were sent, so
that one user's are scattered among all others'; the indexes are built when all rows are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import IndexModel
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
_PARTS: Final = 2
_DIGITS: Final = 12
_SPAN: Final = timedelta(days=30)
_NEWEST: Final = timedelta(hours=3)
_AN_HOUR: Final = timedelta(hours=1)
_A_MINUTE: Final = timedelta(minutes=1)
_UNSEEN: Final = 6
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
    seeds = database[_SEEDS]
    await seeds.insert_many([_seed(number, each, now) for number in range(each)])
    bounds = [part * each // _PARTS for part in range(_PARTS + 1)]
    filling = asyncio.gather(
        *(
            seeds.aggregate(_notifications(name, users, start, end))
            for start, end in zip(bounds, bounds[1:], strict=False)
        )
    )
    while not filling.done():
        await asyncio.wait([filling], timeout=2)
        count = await database[name].estimated_document_count()
        progress(f"notifications: {count:,} of {users * each:,}")
    await filling
    await seeds.drop()
    progress("notifications: indexes")
    await database[name].create_indexes([*Notification.Settings.indexes])


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


def _seed(number: int, each: int, now: datetime) -> Row:
    """What all users' notifications of this number have: 0 is the oldest."""
    type_ = _TYPES[number % 3]
    sent_at = now - _NEWEST - (each - 1 - number) * _SPAN / each
    is_read, is_archived = number // 3 % 3 > 0, number % 20 == 7
    is_snoozed = number % 50 == 9
    row = _told(type_, number) | {
        "own_title": False,
        "read": is_read,
        "read_at": sent_at + _AN_HOUR + _A_MINUTE if is_read else None,
        "seen": is_read or is_archived or is_snoozed or number < each - _UNSEEN,
        "archived": is_archived,
        "snoozed_until": now + _SPAN if is_snoozed else None,
        "decision": _decision(type_),
        "revision": 1,
    }
    if is_read:
        row |= {"change": ChangeKind.READ.value, "changed_at": row["read_at"]}
    life = {
        NotificationType.PROMOTION: timedelta(days=7 if number // 3 % 4 else 1),
        NotificationType.RECOMMENDATION: timedelta(days=7),
    }.get(type_)
    return {"_id": number, "row": row, "sent_at": sent_at, "life": life and _milliseconds(life)}


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
            "said": number.to_bytes(16, "big"),
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


def _notifications(name: str, users: int, start: int, end: int) -> list[dict[str, Any]]:
    """Those that are made from these seeds: a user's own parts are added to each."""
    user, number = _id_text(user_id(0)), {"$toString": "$_id"}
    event = {"$concat": ["urn:bench ", number, "/", user]}
    own = {
        "_id": {"$toObjectId": {"$concat": ["5c5c5c5c", _padded("$_id", 8), _padded("$user", 8)]}},
        "user_id": user,
        "event": event,
        "sent_at": "$sent_at",
        "expires_at": {"$cond": [{"$eq": ["$life", None]}, None, {"$add": ["$sent_at", "$life"]}]},
        "decision": {"$mergeObjects": ["$row.decision", {"at": "$sent_at"}]},
    }
    thing = {
        "thing": {"$concat": [user, " order_update order:2026-", number]},
        "rank": [False, 0, "$sent_at", event],
    }
    is_order = {"$eq": ["$row.type", NotificationType.ORDER_UPDATE.value]}
    within_the_hour = {"$multiply": [{"$mod": ["$user", 3600]}, 1000]}
    return [
        {"$match": {"_id": {"$gte": start, "$lt": end}}},
        {"$sort": {"_id": 1}},
        {"$set": {"user": {"$range": [0, users]}}},
        {"$unwind": "$user"},
        {"$set": {"sent_at": {"$add": ["$sent_at", within_the_hour]}}},
        {
            "$replaceWith": {
                "$mergeObjects": ["$row", own, {"$cond": [is_order, thing, {"$literal": {}}]}]
            }
        },
        {"$merge": {"into": name, "whenMatched": "fail"}},
    ]


def _id_text(first: str) -> Row:
    """An id's 24 digits for the user number at hand; `first`: for number 0."""
    return {"$concat": [first[:-_DIGITS], _padded("$user", _DIGITS)]}


def _padded(number: str, digits: int) -> Row:
    """That number's decimal digits, with zeros before them."""
    filled = {"$toString": {"$add": [number, 10**digits]}}
    return {"$substrBytes": [filled, 1, digits]}


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
