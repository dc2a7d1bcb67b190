"""Who may come in: logging in, changing and resetting passwords, and accounts that are disabled."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

from pymongo.errors import PyMongoError

from services.shared.clock import Clock
from services.shared.errors import (
    BadInput,
    Conflict,
    DomainError,
    NotFound,
    RateLimited,
    Unauthenticated,
)
from services.shared.events import Event, PasswordResetRequested
from services.shared.log import get_logger
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session as Transaction
from services.shared.store import Store
from services.shared.throttle import Rate, Throttle
from services.users.addresses import email_key
from services.users.credentials import PasswordReset
from services.users.guesses import Guesses, hidden
from services.users.models import User
from services.users.passwords import Passwords, check_password
from services.users.sessions import Caller, Login, Sessions
from services.users.tokens import hashed

log = get_logger()

_WRONG: Final = "Email or password is wrong."
_USED_UP: Final = "This token is used up or has expired: ask for another."


class Access:
    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        sessions: Sessions,
        passwords: Passwords,
        throttle: Throttle,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._sessions = sessions
        self._passwords = passwords
        self._throttle = throttle
        self._clock = clock
        self._reset_life = timedelta(seconds=settings.password_reset_seconds)
        self._guesses = Guesses(throttle, clock, settings)
        window = timedelta(seconds=settings.attempts_seconds)
        self._pair_reset_rate = Rate("reset pair", settings.resets, window)
        self._reset_rate = Rate("reset account", settings.resets_per_account, window)
        self._resets_rate = Rate("reset address", settings.resets_per_address, window)
        # By then it is told, mostly.
        self._reset_answer_seconds = settings.mongodb_timeout_seconds + 0.3
        self._telling: set[asyncio.Task[None]] = set()

    async def log_in(self, email: str, password: str, caller: Caller) -> Login:
        """Raises RateLimited, and Unauthenticated alike for unknown emails and wrong passwords."""
        key = email_key(email)
        async with self._guesses.login(key, caller.address):
            user = await User.by_email_key(key)
            known = user.password_hash if user else None
            matches = await self._passwords.matches(password, known, caller.address)
            if user is None or not matches or user.disabled_at is not None:
                raise Unauthenticated(_WRONG)
        await self._guesses.was_right(key, caller.address)
        if self._passwords.is_outdated(user.password_hash):
            user = await self._hash_anew(user, password, caller)
        return await self._sessions.open(user, caller)

    async def change_password(self, user_id: str, current: str, new: str, caller: Caller) -> Login:
        """Change it, end all sessions and open a new one. Raises BadInput and RateLimited."""
        user = await _existing(user_id)
        check_password(new, "input.newPassword", email=user.email_key)
        async with self._guesses.change(user_id):
            if not await self._passwords.matches(current, user.password_hash, caller.address):
                raise BadInput("This is not your password.", "input.currentPassword")
        former = user.password_hash
        user.password_hash = await self._passwords.hash(new, caller.address)
        opening = self._sessions.opening(user, caller)

        async def write(transaction: Transaction) -> None:
            await self._replace_password(user, former, transaction)
            await opening.write(transaction)

        await self._store.transact(write)
        self._outbox.wake()
        return opening.login

    async def request_reset(self, email: str, caller: Caller) -> None:
        """Tell by an event how the owner of the address gets in again, if there is one.

        The caller learns nothing of that: it takes the same time, even where telling takes longer,
        or fails. Raises RateLimited.
        """
        key = email_key(email)
        await self._throttle.spend(self._resets_rate, caller.address)
        await self._throttle.spend(self._pair_reset_rate, f"{hidden(key)} {caller.address}")
        telling = asyncio.create_task(self._tell_of_reset(key))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        await asyncio.sleep(self._reset_answer_seconds)

    async def reset_password(self, token: str, new: str, caller: Caller) -> None:
        """Set a new password with a token that was asked for, once; all sessions end.

        Raises BadInput for a password that is not taken and for a token that does not count.
        """
        check_password(new, "input.newPassword")
        reset = await PasswordReset.find_one(
            {"token_hash": hashed(token), "expires_at": {"$gt": self._clock.now()}}
        )
        if reset is None:
            raise BadInput(_USED_UP, "input.token")
        user = await _existing(reset.user_id)
        check_password(new, "input.newPassword", email=user.email_key)
        former = user.password_hash
        user.password_hash = await self._passwords.hash(new, caller.address)

        async def write(transaction: Transaction) -> None:
            tokens = PasswordReset.get_pymongo_collection()
            used = await tokens.delete_one({"_id": reset.id}, session=transaction)
            if not used.deleted_count:
                raise BadInput(_USED_UP, "input.token")
            await self._replace_password(user, former, transaction)

        await self._store.transact(write)
        self._outbox.wake()
        await self._guesses.forget(user.email_key, caller.address)

    async def disable(self, user_id: str, disabled: bool) -> User:
        """Let nobody in as this user and end all sessions; or let them in. Raises NotFound."""
        user = await User.by_id(user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id}.")
        if disabled != (user.disabled_at is not None):
            user.disabled_at = self._clock.now() if disabled else None
            change = {"disabled_at": user.disabled_at}
            await self._store.transact(partial(self._change_and_end_sessions, user, {}, change))
            self._outbox.wake()
        return user

    async def log_out_everywhere(self, user_id: str) -> None:
        """End all sessions of a user, the caller's own included."""
        user = await _existing(user_id)
        await self._store.transact(partial(self._change_and_end_sessions, user, {}, {}))
        self._outbox.wake()

    async def _hash_anew(self, user: User, password: str, caller: Caller) -> User:
        """The user with a hash of our cost. Raises Unauthenticated when it is the password no more:
        another login, or a change of it, may have been quicker."""
        former, anew = user.password_hash, await self._passwords.hash(password, caller.address)
        changed = await User.get_pymongo_collection().update_one(
            {"_id": user.id, "password_hash": former}, {"$set": {"password_hash": anew}}
        )
        if changed.matched_count:
            user.password_hash = anew
            return user
        user = await _existing(str(user.id))
        if not await self._passwords.matches(password, user.password_hash, caller.address):
            raise Unauthenticated(_WRONG)
        return user

    async def _tell_of_reset(self, key: str) -> None:
        try:
            await self._throttle.spend(self._reset_rate, hidden(key))
            user = await User.by_email_key(key)
            if user is not None and user.disabled_at is None:
                await self._store.transact(partial(self._write_reset, user))
                self._outbox.wake()
        except RateLimited:
            log.warning("resets_limited")  # enough of them are on their way to the owner
        except (DomainError, PyMongoError) as error:
            log.error("reset_not_told", exc_info=error)

    async def _write_reset(self, user: User, transaction: Transaction) -> None:
        """One more token; those that were asked for before count until one is used."""
        token = secrets.token_urlsafe(32)
        reset = PasswordReset(
            token_hash=hashed(token),
            user_id=str(user.id),
            expires_at=self._clock.now() + self._reset_life,
        )
        await reset.insert(session=transaction)
        requested = PasswordResetRequested(
            user_id=reset.user_id, email=user.email, token=token, expires_at=reset.expires_at
        )
        told = [Event.of(requested, time=self._clock.now())]
        await self._outbox.put(told, transaction, whatever_waits=True)

    async def _replace_password(self, user: User, former: bytes, transaction: Transaction) -> None:
        """Raises Conflict when it has been replaced meanwhile."""
        await self._change_and_end_sessions(
            user, {"password_hash": former}, {"password_hash": user.password_hash}, transaction
        )

    async def _change_and_end_sessions(
        self,
        user: User,
        condition: Mapping[str, Any],
        change: Mapping[str, Any],
        transaction: Transaction,
    ) -> None:
        update: dict[str, Any] = {"$inc": {"credentials_version": 1}}
        if change:
            update["$set"] = change
        changed = await User.get_pymongo_collection().update_one(
            {"_id": user.id, **condition}, update, session=transaction
        )
        if not changed.matched_count:
            raise Conflict("The password was changed by somebody else just now: log in again.")
        resets = PasswordReset.get_pymongo_collection()
        await resets.delete_many({"user_id": str(user.id)}, session=transaction)
        await self._sessions.end_all({"user_id": str(user.id)}, transaction)


async def _existing(user_id: str) -> User:
    user = await User.by_id(user_id)
    if user is None:
        raise NotFound("The user does not exist any more.")
    return user
