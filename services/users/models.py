"""Who the customers are, to what they consented, and what they did in the shop."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from beanie import Document
from bson import ObjectId
from bson.errors import InvalidId
from pydantic import Field
from pymongo import IndexModel
from pymongo.collation import Collation, CollationStrength

from services.shared.store import Session as Transaction
from services.shared.vocabulary import ActivityKind, Channel, NotificationType, Role
from services.users.consent import Consents
from services.users.preferences import Choices, Preferences, resolve
from services.users.quiet_hours import QuietChoices
from services.users.traits import Traits

_DEED: Final = {"_id": 0, "user_id": 1, "product_id": 1, "kind": 1, "at": 1}
_AT_ONCE: Final = 500
# Upper case, lower case and accents are alike, wherever the text was written.
FOLDED: Final = Collation(locale="en", strength=CollationStrength.PRIMARY)
CUSTOMERS: Final = {"role": {"$ne": Role.SERVICE.value}, "disabled_at": None}


def object_id(text: str) -> ObjectId | None:
    """The id in this text, or None where no id looks like that: ours are in lower case."""
    try:
        return ObjectId(text) if text == text.lower() else None
    except InvalidId:
        return None


class User(Document):
    """A person, or a shop's backend (role SERVICE). `email_key` is the address folded for search.

    `locale` is a BCP 47 tag, `timezone` an IANA zone or None: the shop's, SHOP_TIMEZONE. `tags`
    are the shop's words.
    `credentials_version` rises with each login and with whatever ends all sessions, so that no two
    of these pass each other by.
    """

    name: str
    email: str
    email_key: str
    password_hash: bytes
    role: Role = Role.USER
    locale: str
    timezone: str | None = None
    tags: list[str] = Field(default_factory=list)
    created_at: datetime
    choices: Choices = Field(default_factory=dict)
    quiet_hours: QuietChoices = Field(default_factory=dict)
    consents: Consents = Field(default_factory=dict)
    preferences_version: int = 0
    disabled_at: datetime | None = None
    credentials_version: int = 0

    class Settings:
        name = "users"
        indexes = (
            IndexModel([("email_key", 1)], unique=True),
            IndexModel([("name", 1)], name="name_folded", collation=FOLDED),
        )

    @property
    def preferences(self) -> Preferences:
        return resolve(
            self.choices,
            self.preferences_version,
            self.timezone,
            self.quiet_hours,
            self.consents,
        )

    @classmethod
    async def by_id(cls, user_id: str) -> Self | None:
        key = object_id(user_id)
        return await cls.get(key) if key else None

    @classmethod
    async def by_ids(cls, user_ids: Iterable[str]) -> Mapping[str, Self]:
        """The users that exist, by id, in one query."""
        keys = [key for key in map(object_id, user_ids) if key]
        return {str(user.id): user async for user in cls.find({"_id": {"$in": keys}})}

    @classmethod
    async def by_email_key(cls, email_key: str) -> Self | None:
        return await cls.find_one({"email_key": email_key})

    @classmethod
    async def nth_behind(cls, after: str | None, count: int) -> str | None:
        """The id of the `count`-th next user in the order of ids; None where fewer follow."""
        found = cls.get_pymongo_collection().find(between(after, None), {"_id": 1})
        async for row in found.sort("_id").skip(count - 1).limit(1):
            return str(row["_id"])
        return None

    @classmethod
    async def with_traits(
        cls, traits: Traits, after: str | None, upto: str | None, at: datetime, shop_timezone: str
    ) -> list[str]:
        """The ids of customers, as `Customer.audience` has them, behind `after` and up to
        `upto`, who had registered by then, in their order."""
        there = CUSTOMERS | between(after, upto) | {"created_at": {"$lte": at}}
        query = there | traits.query(shop_timezone)
        found = cls.get_pymongo_collection().find(query, {"_id": 1})
        return [str(row["_id"]) async for row in found.sort("_id")]

    @classmethod
    async def customers(cls, limit: int) -> Sequence[Self]:
        """The first who registered, by their ids."""
        return await cls.find({"role": Role.USER}).sort("_id").limit(limit).to_list()


class ConsentRecord(Document):
    """That a user gave or withdrew consent, as it can be shown later. Never changed.

    `at`: when it was said; `recorded_at`: when it was written down here; `recorded_by`: the id of
    the user who had it written down, or None for whoever held an unsubscribe link.
    """

    user_id: str
    type: NotificationType
    channel: Channel
    given: bool
    at: datetime
    source: str
    recorded_at: datetime
    recorded_by: str | None

    class Settings:
        name = "consents"
        indexes = (IndexModel([("user_id", 1), ("recorded_at", -1), ("_id", -1)]),)

    @classmethod
    async def of_user(cls, user_id: str) -> Sequence[Self]:
        """The newest first."""
        return await cls.find({"user_id": user_id}).sort("-recorded_at", "-_id").to_list()

    @classmethod
    async def surplus(cls, user_id: str, most: int, transaction: Transaction) -> list[ObjectId]:
        """The ids of a user's records beyond the newest `most` about one type on one channel."""
        rows = cls.get_pymongo_collection().find(
            {"user_id": user_id}, {"type": 1, "channel": 1}, session=transaction
        )
        seen: Counter[tuple[str, str]] = Counter()
        surplus = []
        async for row in rows.sort([("recorded_at", -1), ("_id", -1)]):
            about = row["type"], row["channel"]
            seen[about] += 1
            if seen[about] > most:
                surplus.append(row["_id"])
        return surplus


class Deed(NamedTuple):
    """What an activity says. Thousands are read for one recommendation."""

    user_id: str
    product_id: str
    kind: ActivityKind
    at: datetime


class Activity(Document):
    """One thing that a user did with a product. `event` is the key of the event that told of it."""

    event: str
    user_id: str
    product_id: str
    kind: ActivityKind
    at: datetime

    class Settings:
        name = "activities"
        indexes = (
            IndexModel([("user_id", 1), ("event", 1)], unique=True),
            IndexModel([("user_id", 1), ("at", -1), ("kind", 1), ("product_id", 1)]),
            IndexModel([("product_id", 1), ("at", -1)]),
            IndexModel([("at", -1), ("user_id", 1)]),
            IndexModel(
                [("user_id", 1), ("product_id", 1), ("at", -1)],
                partialFilterExpression={"kind": ActivityKind.PURCHASE.value},
            ),
        )

    @classmethod
    def of_user(cls, user_id: str, since: datetime, limit: int) -> AsyncIterator[Deed]:
        """The newest first."""
        return cls._deeds({"user_id": user_id, "at": {"$gte": since}}, limit)

    @classmethod
    def purchases(cls, user_id: str, since: datetime, limit: int) -> AsyncIterator[Deed]:
        """What the user bought, the newest first."""
        bought = {"user_id": user_id, "kind": ActivityKind.PURCHASE, "at": {"$gte": since}}
        return cls._deeds(bought, limit)

    @classmethod
    async def purchases_of(
        cls, user_ids: Iterable[str], product_ids: Iterable[str], since: datetime
    ) -> Sequence[Deed]:
        """What any of these users bought of these products since then."""
        bought = {
            "kind": ActivityKind.PURCHASE,
            "user_id": {"$in": list(set(user_ids))},
            "product_id": {"$in": list(set(product_ids))},
            "at": {"$gte": since},
        }
        rows = cls.get_pymongo_collection().find(bought, _DEED)
        return [
            Deed(row["user_id"], row["product_id"], ActivityKind.PURCHASE, row["at"])
            async for row in rows
        ]

    @classmethod
    async def who(
        cls,
        user_ids: Sequence[str],
        since: datetime | None,
        upto: datetime,
        kind: ActivityKind | None = None,
        product_ids: Sequence[str] | None = None,
    ) -> set[str]:
        """Which of these users did that since then, and up to then, both inclusive.

        None: at any time before, anything, with any product.
        """
        did: dict[str, Any] = {"user_id": {"$in": [*user_ids]}, "at": {"$lte": upto}}
        if since is not None:
            did["at"]["$gte"] = since
        if kind is not None:
            did["kind"] = kind.value
        if product_ids is not None:
            did["product_id"] = {"$in": [*product_ids]}
        pipeline: list[dict[str, Any]] = [{"$match": did}, {"$group": {"_id": "$user_id"}}]
        rows = await cls.get_pymongo_collection().aggregate(pipeline)
        return {row["_id"] async for row in rows}

    @classmethod
    async def around(
        cls, product_ids: Sequence[str], but: str, since: datetime, users: int, limit: int
    ) -> AsyncIterator[Deed]:
        """What others than `but` did who lately touched these products, the newest first.

        `users`: how many others, at most; `limit`: how many activities, at most.
        """
        touching = cls._deeds(
            {
                "product_id": {"$in": list(product_ids)},
                "user_id": {"$ne": but},
                "at": {"$gte": since},
            },
            limit,
        )
        others: dict[str, None] = {}
        async with aclosing(touching):
            async for deed in touching:
                others[deed.user_id] = None
                if len(others) == users:
                    break
        async for deed in cls._deeds({"user_id": {"$in": [*others]}, "at": {"$gte": since}}, limit):
            yield deed

    @classmethod
    def latest(cls, since: datetime, limit: int) -> AsyncIterator[Deed]:
        """What anybody did since then, the newest first."""
        return cls._deeds({"at": {"$gte": since}}, limit)

    @classmethod
    async def active_users(cls, since: datetime, after: str | None, limit: int) -> list[str]:
        """The next ids of users who did anything since then, in order."""
        query: dict[str, Any] = {"at": {"$gte": since}}
        if after:
            query["user_id"] = {"$gt": after}
        rows = await cls.get_pymongo_collection().aggregate(
            [
                {"$match": query},
                {"$group": {"_id": "$user_id"}},
                {"$sort": {"_id": 1}},
                {"$limit": limit},
            ]
        )
        return [row["_id"] async for row in rows]

    @classmethod
    async def _deeds(cls, query: Mapping[str, Any], limit: int) -> AsyncGenerator[Deed, None]:
        """The newest first, a few in memory at a time."""
        names: dict[str, str] = {}  # most are the same again
        found = cls.get_pymongo_collection().find(query, _DEED, batch_size=_AT_ONCE)
        async with found.sort("at", -1).limit(limit) as rows:
            while part := await rows.to_list(_AT_ONCE):
                for row in part:
                    user_id, product_id = (
                        names.setdefault(name, name) for name in (row["user_id"], row["product_id"])
                    )
                    yield Deed(user_id, product_id, ActivityKind(row["kind"]), row["at"])


MODELS: list[type[Document]] = [User, ConsentRecord, Activity]


def between(after: str | None, upto: str | None) -> dict[str, Any]:
    """Behind one id, up to another."""
    bounds = {"$gt": after, "$lte": upto}
    given = {compared: ObjectId(id) for compared, id in bounds.items() if id is not None}
    return {"_id": given} if given else {}
