"""What lets somebody in: sessions, API keys, and tokens that reset a password; and from where they
came in. Of all secrets only hashes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from beanie import Document, PydanticObjectId
from pymongo import IndexModel

from services.shared.store import Session as Transaction
from services.shared.store import quickly
from services.shared.vocabulary import Scope
from services.users.models import object_id


class Session(Document):
    """A login. `token_hash` is of the refresh token that counts now; `family_hash` of the part
    that all refresh tokens of this login share, by which one that was used is known again.

    `client`: what the client called itself (User-Agent), for its user to know it by.
    """

    user_id: str
    family_hash: bytes
    token_hash: bytes
    client: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime

    class Settings:
        name = "sessions"
        indexes = (
            IndexModel([("user_id", 1), ("last_used_at", -1)]),
            IndexModel([("expires_at", 1)], expireAfterSeconds=0),
        )

    @classmethod
    async def still_open(cls, session_ids: Sequence[str], now: datetime) -> set[str]:
        """Those of the sessions that have not ended."""
        keys = [key for key in map(object_id, session_ids) if key]
        there = {"_id": {"$in": keys}, "expires_at": {"$gt": now}}
        return {str(row["_id"]) for row in await quickly(cls).find(there, {"_id": 1}).to_list()}

    @classmethod
    async def of_user(cls, user_id: str, now: datetime) -> Sequence[Self]:
        """A user's open sessions, the last used first."""
        ours = {"user_id": user_id, "expires_at": {"$gt": now}}
        return await cls.find(ours).sort("-last_used_at", "-_id").to_list()

    @classmethod
    async def of_family(cls, session_id: str, family_hash: bytes) -> Self | None:
        """The session to which a refresh token belongs, be it the one that counts or an old one."""
        return await cls.find_one({"_id": object_id(session_id), "family_hash": family_hash})

    @classmethod
    async def surplus(
        cls, user_id: str, most: int, transaction: Transaction
    ) -> list[PydanticObjectId]:
        """The ids of a user's sessions beyond the `most` that were used last."""
        found = cls.get_pymongo_collection().find(
            {"user_id": user_id}, {"_id": 1}, session=transaction
        )
        return [row["_id"] async for row in found.sort("last_used_at", -1).skip(most)]


class PasswordReset(Document):
    """A token that was asked for and not used yet."""

    token_hash: bytes
    user_id: str
    expires_at: datetime

    class Settings:
        name = "password_resets"
        indexes = (
            IndexModel([("token_hash", 1)], unique=True),
            IndexModel([("user_id", 1)]),
            IndexModel([("expires_at", 1)], expireAfterSeconds=0),
        )


class KnownPlace(Document):
    """An account, hidden, and an address from which its owner has logged in lately."""

    id: str  # type: ignore[assignment] # a document's id is an ObjectId by default
    expires_at: datetime

    class Settings:
        name = "known_places"
        indexes = (IndexModel([("expires_at", 1)], expireAfterSeconds=0),)

    @classmethod
    async def holds(cls, id: str, now: datetime) -> bool:
        return await cls.find_one({"_id": id, "expires_at": {"$gt": now}}) is not None

    @classmethod
    async def remember(cls, id: str, until: datetime) -> None:
        update = {"$max": {"expires_at": until}}
        await cls.get_pymongo_collection().update_one({"_id": id}, update, upsert=True)


class ApiKey(Document):
    """What a shop's backend (`user_id`, of role SERVICE) may show instead of logging in."""

    user_id: str
    name: str
    secret_hash: bytes
    scopes: list[Scope]
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    class Settings:
        name = "api_keys"
        indexes = (IndexModel([("user_id", 1)]),)

    @classmethod
    async def count_of(cls, user_id: str) -> int:
        """How many keys of a backend count."""
        return await cls.find({"user_id": user_id, "revoked_at": None}).count()

    @classmethod
    async def all_by_age(cls) -> Sequence[Self]:
        """All keys, revoked ones too, the oldest first."""
        return await cls.find_all().sort("_id").to_list()


MODELS: list[type[Document]] = [Session, PasswordReset, KnownPlace, ApiKey]
