"""Passwords: which are taken, and their hashes: bcrypt, off the event loop, a few at once.

bcrypt reads 72 bytes and stops at NUL, so the password goes through HMAC-SHA-256 and base64 first:
https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Final, TypeVar

import bcrypt

from services.shared.errors import BadInput, RateLimited

T = TypeVar("T")

SHORTEST: Final = 8
LONGEST: Final = 256
_NICENESS: Final = 10  # a tenth of the share of what is not nice, where both want a core
_KEY: Final = b"tidings password v1"
_NOBODYS_TAIL: Final = b"." * 31  # of the right length, and what no password comes to


def check_password(password: str, field: str, *, email: str = "") -> None:
    """Raises BadInput for one that is too short, too long or among the first to be guessed.

    What OWASP ASVS 5 (6.2.1 to 6.2.9) asks for, and no rules of composition.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadInput(f"A password has {SHORTEST} to {LONGEST} characters.", field)
    folded = password.casefold()
    if folded in _common() or (email and folded in (email, email.partition("@")[0])):
        raise BadInput("This password is among the first to be guessed: choose another.", field)


@cache
def _common() -> frozenset[str]:
    """The most common passwords of eight characters or more, folded. The file names its source."""
    text = Path(__file__).with_name("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("# "))


class Passwords:
    """`cost`: log2 of bcrypt's rounds; `at_once`: hashes computed at the same time; `waiting`: how
    many more may wait for their turn; `per_address`: how many of both are one address's at most.
    Where it is not known who asks, or is the operator, `address` is empty."""

    def __init__(self, cost: int, at_once: int, waiting: int, per_address: int) -> None:
        self._cost = cost
        self._workers = ThreadPoolExecutor(
            at_once, thread_name_prefix="bcrypt", initializer=_give_way
        )
        self._places, self._per_address = at_once + waiting, per_address
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    async def hash(self, password: str, address: str) -> bytes:
        """Raises RateLimited when too many wait."""
        salt = bcrypt.gensalt(self._cost)
        return await self._in_turn(partial(bcrypt.hashpw, digested(password), salt), address)

    async def matches(self, password: str, hashed: bytes | None, address: str) -> bool:
        """Whether it is the password, after the work of our cost: also for a hash that was made at
        a lower one, and without a hash, when it is not.

        Raises RateLimited when too many wait.
        """
        against = hashed or bcrypt.gensalt(self._cost) + _NOBODYS_TAIL
        digest = digested(password)

        def check() -> bool:
            is_right = bcrypt.checkpw(digest, against)
            for cost in range(_cost_of(against), self._cost):  # twice the work is one step
                bcrypt.hashpw(digest, bcrypt.gensalt(cost))
            return is_right

        return await self._in_turn(check, address) and hashed is not None

    def is_outdated(self, hashed: bytes) -> bool:
        """Whether the hash was made at another cost, and so takes another time."""
        return _cost_of(hashed) != self._cost

    async def _in_turn(self, work: Callable[[], T], address: str) -> T:
        """Work that has begun takes its place until it is done, even if nobody waits any more."""
        with self._lock:
            if self._taken.total() >= self._places or self._taken[address] >= self._per_address:
                raise RateLimited(1)
            self._taken[address] += 1
        working = self._workers.submit(work)
        working.add_done_callback(lambda _: self._leave(address))
        return await asyncio.wrap_future(working)

    def _leave(self, address: str) -> None:
        with self._lock:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]


def _give_way() -> None:
    """Let all else go first that this machine has to do: a hash takes long anyway, and so many
    short requests are answered as if nobody logged in. On Linux that is each thread's own."""
    if sys.platform == "linux":
        with suppress(OSError):  # a container may refuse it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _cost_of(hashed: bytes) -> int:
    return int(hashed.split(b"$")[2])


def digested(password: str) -> bytes:
    """What bcrypt is given of it."""
    digest = hmac.digest(_KEY, password.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return base64.b64encode(digest)
