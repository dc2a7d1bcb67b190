"""API keys: how a shop's backend calls without logging in. Each is shown once, and may do only
what its scopes name."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from beanie import PydanticObjectId

from services.shared.clock import Clock
from services.shared.content import ContentRefused, check_content, composed
from services.shared.errors import BadInput, NotFound, Unauthenticated
from services.shared.settings import Settings
from services.shared.vocabulary import Role, Scope
from services.users.credentials import ApiKey
from services.users.models import User, object_id
from services.users.tokens import Identity, hashed

PREFIX: Final = "tidings_"
LONGEST_NAME: Final = 100
_USE_IS_KEPT_EVERY: Final = timedelta(minutes=1)


def is_api_key(token: str) -> bool:
    """Whether it has the form of one; access tokens have not."""
    return token.startswith(PREFIX)


class ApiKeys:
    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._most = settings.max_api_keys_per_user

    async def create(self, user_id: str, name: str, scopes: Iterable[Scope]) -> tuple[ApiKey, str]:
        """A key of this backend, and its text, which is told this once. Raises BadInput.

        Events that are published with it have the backend as their source, as those that are
        published after a login have: a key that replaces another changes nothing.
        """
        user = await User.by_id(user_id)
        if user is None or user.role is not Role.SERVICE:
            raise BadInput("This is no user of role SERVICE.", "input.userId")
        wanted = sorted(set(scopes))
        if not wanted:
            raise BadInput("Name what the key may do.", "input.scopes")
        if await ApiKey.count_of(user_id) >= self._most:
            raise BadInput(
                f"This user has {self._most} API keys that count, the most "
                "(MAX_API_KEYS_PER_USER): revoke one first.",
                "input.userId",
            )
        secret = secrets.token_urlsafe(32)
        key = ApiKey(
            id=PydanticObjectId(),
            user_id=user_id,
            name=_checked(name),
            secret_hash=hashed(secret),
            scopes=wanted,
            created_at=self._clock.now(),
        )
        await key.insert()
        return key, f"{PREFIX}{key.id}_{secret}"

    async def revoke(self, id: str) -> ApiKey:
        """End a key: it is refused from now on. Raises NotFound."""
        key = await _known(id)
        if key is None:
            raise NotFound(f"There is no API key {id}.")
        if key.revoked_at is None:
            key.revoked_at = self._clock.now()
            await ApiKey.get_pymongo_collection().update_one(
                {"_id": key.id}, {"$set": {"revoked_at": key.revoked_at}}
            )
        return key

    async def all(self) -> Sequence[ApiKey]:
        """All keys, revoked ones too, the oldest first."""
        return await ApiKey.all_by_age()

    async def identify(self, text: str) -> Identity:
        """Whom the key speaks for. Raises Unauthenticated, alike for all that don't count."""
        id, _, secret = text.removeprefix(PREFIX).partition("_")
        key = await _known(id)
        known = key.secret_hash if key else b""
        if not hmac.compare_digest(known, hashed(secret)) or key is None or key.revoked_at:
            raise Unauthenticated("The API key is not valid: ask an admin for another.")
        user = await User.by_id(key.user_id)
        if user is None or user.disabled_at is not None:
            raise Unauthenticated("The API key is not valid: ask an admin for another.")
        await self._keep_use(key)
        return Identity(key.user_id, user.role, scopes=frozenset(key.scopes))

    async def _keep_use(self, key: ApiKey) -> None:
        now = self._clock.now()
        if key.last_used_at is None or key.last_used_at <= now - _USE_IS_KEPT_EVERY:
            await ApiKey.get_pymongo_collection().update_one(
                {"_id": key.id}, {"$max": {"last_used_at": now}}
            )


async def _known(id: str) -> ApiKey | None:
    key = object_id(id)
    return await ApiKey.get(key) if key else None


def _checked(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise BadInput(f"A name has 1 to {LONGEST_NAME} characters.", "input.name")
    try:
        check_content(name, "name")
    except ContentRefused as error:
        raise BadInput(str(error), "input.name") from error
    return str(composed(name))
