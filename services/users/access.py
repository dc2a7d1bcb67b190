"""Who may come in: logging in, changing and resetting passwords, and accounts that are disabled."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from services.shared.clock import Clock
from services.shared.errors import BadInput, Conflict, NotFound, Unauthenticated
from services.shared.events import Event, PasswordResetRequested
from services.shared.outbox import Outbox
from services.shared.settings import Settings
from services.shared.store import Session as Transaction
from services.shared.store import Store
from services.shared.throttle import Rate, Throttle
from services.users.addresses import email_key
from services.users.credentials import PasswordReset
from services.users.models import User
from services.users.passwords import Passwords, check_password
from services.users.sessions import Caller, Login, Sessions
from services.users.tokens import hashed


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
        window = timedelta(seconds=settings.attempts_seconds)
        self._pair_rate = Rate("login pair", settings.login_failures, window)
        self._account_rate = Rate("login account", settings.login_failures_per_account, window)
        self._address_rate = Rate("login address", settings.login_failures_per_address, window)
        self._pair_reset_rate = Rate("reset pair", settings.resets, window)
        self._reset_rate = Rate("reset account", settings.resets_per_account, window)
        # More than the longer way may take before it fails.
        self._reset_answer_seconds = settings.mongodb_timeout_seconds + 0.3
        self._resets_rate = Rate("reset address", settings.resets_per_address, window)

    async def log_in(self, email: str, password: str, caller: Caller) -> Login:
        """Raises RateLimited, and Unauthenticated alike for unknown emails and wrong passwords."""
        key = email_key(email)
        async with self._guess(key, caller):
            user = await User.by_email_key(key)
            known = user.password_hash if user else None
            matches = await self._passwords.matches(password, known)
            if user is None or not matches or user.disabled_at is not None:
                raise Unauthenticated("Email or password is wrong.")
        if self._passwords.is_outdated(user.password_hash):
            user = await self._hash_anew(user, password)
        return await self._sessions.open(user, caller)

    async def change_password(self, user_id: str, current: str, new: str, caller: Caller) -> Login:
        """Change it, end all sessions and open a new one. Raises BadInput and RateLimited."""
        user = await _existing(user_id)
        check_password(new, "input.newPassword", email=user.email_key)
        async with self._guess(user.email_key, caller):
            if not await self._passwords.matches(current, user.password_hash):
                raise BadInput("This is not your password.", "input.currentPassword")
        former, user.password_hash = user.password_hash, await self._passwords.hash(new)
        opening = self._sessions.opening(user, caller)

        async def write(transaction: Transaction) -> None:
            await self._replace_password(user, former, transaction)
            await opening.write(transaction)

        await self._store.transact(write)
        self._outbox.wake()
        return opening.login

    async def request_reset(self, email: str, caller: Caller) -> None:
        """Tell by an event how the owner of the address gets in again, if there is one.

        The caller learns nothing of that: it takes the same time. Raises RateLimited.
        """
        key = email_key(email)
        account = _hidden(key)
        await self._throttle.spend(self._resets_rate, caller.address)
        await self._throttle.spend(self._pair_reset_rate, f"{account} {caller.address}")
        await self._throttle.spend(self._reset_rate, account)
        answer = asyncio.create_task(asyncio.sleep(self._reset_answer_seconds))
        try:
            user = await User.by_email_key(key)
            if user is not None and user.disabled_at is None:
                await self._store.transact(partial(self._write_reset, user))
                self._outbox.wake()
        finally:
            await answer

    async def reset_password(self, token: str, new: str) -> None:
        """Set a new password with a token that was asked for, once; all sessions end.

        Raises BadInput for a password that is not taken and for a token that does not count.
        """
        check_password(new, "input.newPassword")
        reset = await PasswordReset.find_one(
            {"token_hash": hashed(token), "expires_at": {"$gt": self._clock.now()}}
        )
        if reset is None:
            raise BadInput("This token is used up or has expired: ask for another.", "input.token")
        user = await _existing(reset.user_id)
        check_password(new, "input.newPassword", email=user.email_key)
        former, user.password_hash = user.password_hash, await self._passwords.hash(new)
        await self._store.transact(partial(self._replace_password, user, former))
        self._outbox.wake()
        # Whoever guesses at the account meanwhile must not keep its owner out.
        await self._throttle.forget(self._account_rate, _hidden(user.email_key))

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

    @asynccontextmanager
    async def _guess(self, key: str, caller: Caller) -> AsyncIterator[None]:
        """A guess at a password, which raises Unauthenticated or BadInput when it is wrong: counted
        before it is made, so that many at once are, and given back when it was not wrong. By one
        address at one account, which locks out nobody else; at one account by all; and by one
        address at all.
        """
        account = _hidden(key)
        counts = (
            (self._address_rate, caller.address),
            (self._pair_rate, f"{account} {caller.address}"),
            (self._account_rate, account),
        )
        async with AsyncExitStack() as spent:
            for rate, who in counts:
                await self._throttle.spend(rate, who)
                spent.push_async_callback(self._throttle.give_back, rate, who)
            try:
                yield
            except (Unauthenticated, BadInput):
                spent.pop_all()
                raise

    async def _hash_anew(self, user: User, password: str) -> User:
        user.password_hash, former = await self._passwords.hash(password), user.password_hash
        await User.get_pymongo_collection().update_one(
            {"_id": user.id, "password_hash": former},
            {"$set": {"password_hash": user.password_hash}},
        )
        return user

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
        """Raises Conflict when it has been replaced meanwhile: so a reset's token works once."""
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


def _hidden(key: str) -> str:
    """An address as a key of bounded length that tells nobody who tried to log in."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
