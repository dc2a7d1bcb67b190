"""How often a password may be guessed. A guess is counted before it is made, so that many at once
are, and stays counted when it was wrong, or when nobody waited for the answer.

Counted are guesses by one address at one account, at one account by all, and by one address at all.
Strangers can't keep an owner out: whoever has logged in from an address lately is not held up there
by the guesses of others, nor is who is logged in and changes the password.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from services.shared.clock import Clock
from services.shared.errors import BadInput, Unauthenticated
from services.shared.settings import Settings
from services.shared.throttle import Rate, Throttle
from services.users.credentials import KnownPlace

Count = tuple[Rate, str]


class Guesses:
    def __init__(self, throttle: Throttle, clock: Clock, settings: Settings) -> None:
        self._throttle = throttle
        self._clock = clock
        self._memory = timedelta(seconds=settings.refresh_token_seconds)
        window = timedelta(seconds=settings.attempts_seconds)
        self._pair_rate = Rate("login pair", settings.login_failures, window)
        self._account_rate = Rate("login account", settings.login_failures_per_account, window)
        self._address_rate = Rate("login address", settings.login_failures_per_address, window)
        self._owner_rate = Rate("password change", settings.login_failures, window)

    @asynccontextmanager
    async def login(self, key: str, address: str) -> AsyncIterator[None]:
        """A guess at the password of an email's key. Raises RateLimited."""
        account = hidden(key)
        pair = f"{account} {address}"
        counts = [(self._address_rate, address), (self._pair_rate, pair)]
        if not await KnownPlace.holds(pair, self._clock.now()):
            counts.append((self._account_rate, account))
        async with self._counted(counts):
            yield

    @asynccontextmanager
    async def change(self, user_id: str) -> AsyncIterator[None]:
        """A guess at their own password by somebody who is logged in. Raises RateLimited."""
        async with self._counted([(self._owner_rate, user_id)]):
            yield

    async def was_right(self, key: str, address: str) -> None:
        """From this address the owner comes in."""
        pair = f"{hidden(key)} {address}"
        await KnownPlace.remember(pair, self._clock.now() + self._memory)

    async def forget(self, key: str, address: str) -> None:
        """Whoever has guessed at the account must not keep out its owner, who is at this address
        and has shown it in another way."""
        account = hidden(key)
        await self._throttle.forget(self._account_rate, account)
        await self._throttle.forget(self._pair_rate, f"{account} {address}")
        await self.was_right(key, address)

    @asynccontextmanager
    async def _counted(self, counts: Sequence[Count]) -> AsyncIterator[None]:
        """Given back is what ends in another way than by being wrong or being given up: a client
        that does not wait has had the work done all the same."""
        async with AsyncExitStack() as spent:
            for rate, who in counts:
                await self._throttle.spend(rate, who)
                spent.push_async_callback(self._throttle.give_back, rate, who)
            try:
                yield
            except (Unauthenticated, BadInput, asyncio.CancelledError):
                spent.pop_all()
                raise


def hidden(key: str) -> str:
    """An email's key, of bounded length, and telling nobody who tried to log in."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
