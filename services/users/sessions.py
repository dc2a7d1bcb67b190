"""Sessions: opened by a login, kept up by refresh tokens, ended at once.

Whatever ends a session deletes it and tells the gateways in the same transaction, so that its open
sockets end, too. Opening a session writes to its user's document, as whatever ends all of them
does: of the two at the same time, one comes after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from beanie import PydanticObjectId

from services.shared.clock import Clock
from services.shared.errors import NotFound, Unauthenticated
from services.shared.events import Event, SessionsEnded
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session as Transaction
from services.shared.store import Store
from services.shared.vocabulary import Role
from services.users.credentials import Session
from services.users.models import User, object_id
from services.users.open_sessions import OpenSessions
from services.users.tokens import AccessTokens, Identity, RefreshToken

_LONGEST_CLIENT: Final = 200
_ENDED: Final = "The session has ended: log in again."
_USED_UP: Final = "The refresh token is used up or not valid: log in again."


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from: its network address, and what the client calls itself."""

    address: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """A session that was just opened or refreshed. `expires_at` is the access token's end."""

    user: User
    access_token: str
    refresh_token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Presumption:
    """That a token speaks for its user, while its session is looked up."""

    identity: Identity
    _open: asyncio.Future[Set[str]]

    async def confirm(self) -> None:
        """Raises as `Sessions.identify` does."""
        if self.identity.session_id not in await asyncio.shield(self._open):
            raise Unauthenticated(_ENDED)


@dataclass(frozen=True, slots=True)
class Opening:
    """A session that is not open yet. `write` may be called again, as transactions are."""

    write: Callable[[Transaction], Awaitable[None]]
    login: Login


class Sessions:
    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        tokens: AccessTokens,
        open_sessions: OpenSessions,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._tokens = tokens
        self._clock = clock
        self._life = timedelta(seconds=settings.refresh_token_seconds)
        self._most = settings.max_sessions_per_user
        self._open = open_sessions

    async def open(self, user: User, caller: Caller) -> Login:
        """Log in somebody who has shown who they are. Beyond MAX_SESSIONS_PER_USER the one ends
        that was not used for the longest time. Raises Unauthenticated, if that is no proof now.
        """
        opening = self.opening(user, caller)
        await self._store.transact(opening.write)
        self._outbox.wake()
        return opening.login

    def opening(self, user: User, caller: Caller) -> Opening:
        """A session that is open once it has been written, in a transaction of the caller's."""
        token = RefreshToken.make(str(PydanticObjectId()))
        return Opening(partial(self._insert, user, token, caller), self._logged_in(user, token))

    async def refresh(self, refresh_token: str) -> Login:
        """Exchange a refresh token, once. Using an old one again ends the session."""
        token = RefreshToken.parse(refresh_token)
        session = await Session.of_family(token.session_id, token.family_hash)
        user = await User.by_id(session.user_id) if session else None
        if session is None or user is None:
            raise Unauthenticated(_USED_UP)
        renewed, now = token.renewed(), self._clock.now()
        rotated = await Session.get_pymongo_collection().update_one(
            {"_id": session.id, "token_hash": token.hash, "expires_at": {"$gt": now}},
            {
                "$set": {
                    "token_hash": renewed.hash,
                    "last_used_at": now,
                    "expires_at": now + self._life,
                }
            },
        )
        if not rotated.matched_count:
            await self._store.transact(partial(self.end_all, {"_id": session.id}))
            self._outbox.wake()
            raise Unauthenticated(_USED_UP)
        return self._logged_in(user, renewed)

    def read_token(self, access_token: str) -> Identity:
        """Whom the token names, be its session open or not. Raises Unauthenticated."""
        return self._tokens.identify(access_token)

    async def identify(self, access_token: str) -> Identity:
        """Whom the token speaks for. Raises Unauthenticated, also when the session has ended."""
        identity = self.read_token(access_token)
        if not await self._open.holds(identity.session_id):
            raise Unauthenticated(_ENDED)
        return identity

    def presume(self, access_token: str) -> Presumption | None:
        """Begin to look up a customer's session that was open a moment ago; None for any other.
        Raises Unauthenticated for a token that is not valid."""
        identity = self.read_token(access_token)
        if identity.role is Role.USER and self._open.may_be_presumed(identity.session_id):
            return Presumption(identity, self._open.ask(identity.session_id))
        return None

    async def of_user(self, user_id: str) -> Sequence[Session]:
        """A user's open sessions, the last used first."""
        return await Session.of_user(user_id, self._clock.now())

    async def end(self, user_id: str, session_id: str) -> None:
        """End one session of a user: its tokens are refused from now on. Raises NotFound."""
        which = {"_id": object_id(session_id), "user_id": user_id}
        if not await self._store.transact(partial(self.end_all, which)):
            raise NotFound("There is no such session of yours: it may have ended.")
        self._outbox.wake()

    async def end_all(self, which: Mapping[str, Any], transaction: Transaction) -> int:
        """End these sessions in the transaction, and tell; how many there were.

        To end all of a user's, write to the user's document first. Wake the outbox afterwards.
        """
        sessions = Session.get_pymongo_collection()
        found = sessions.find(which, {"user_id": 1}, session=transaction)
        rows = await found.to_list()
        if rows:
            keys = [row["_id"] for row in rows]
            await sessions.delete_many({"_id": {"$in": keys}}, session=transaction)
            ended = SessionsEnded(user_id=rows[0]["user_id"], session_ids=tuple(map(str, keys)))
            told = [Event.of(ended, time=self._clock.now())]
            await self._outbox.put(told, transaction, whatever_waits=True)
        return len(rows)

    async def _insert(
        self, user: User, token: RefreshToken, caller: Caller, transaction: Transaction
    ) -> None:
        now = self._clock.now()
        proof = {"_id": user.id, "password_hash": user.password_hash, "disabled_at": None}
        counted = await User.get_pymongo_collection().update_one(
            proof, {"$inc": {"credentials_version": 1}}, session=transaction
        )
        if not counted.matched_count:
            raise Unauthenticated("The password has just been changed: log in again.")
        session = Session(
            id=PydanticObjectId(token.session_id),
            user_id=str(user.id),
            family_hash=token.family_hash,
            token_hash=token.hash,
            client=caller.client[:_LONGEST_CLIENT],
            created_at=now,
            last_used_at=now,
            expires_at=now + self._life,
        )
        await session.insert(session=transaction)
        if surplus := await Session.surplus(str(user.id), self._most, transaction):
            await self.end_all({"_id": {"$in": surplus}}, transaction)

    def _logged_in(self, user: User, refresh_token: RefreshToken) -> Login:
        access_token, expires_at = self._tokens.issue(
            str(user.id), user.role, refresh_token.session_id
        )
        return Login(user, access_token, str(refresh_token), expires_at)
