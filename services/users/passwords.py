"""Password hashes: bcrypt, off the event loop, a few at once.

bcrypt reads 72 bytes and stops at NUL, so the password goes through HMAC-SHA-256 and base64 first:
https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from functools import partial
from typing import Final

import bcrypt

SHORTEST: Final = 8
LONGEST: Final = 256
_KEY: Final = b"tidings password v1"


class Passwords:
    """`cost`: log2 of bcrypt's rounds; `at_once`: hashes computed at the same time."""

    def __init__(self, cost: int, at_once: int) -> None:
        self._cost = cost
        self._turns = asyncio.Semaphore(at_once)
        self._nobodys: bytes | None = None

    async def hash(self, password: str) -> bytes:
        salt = bcrypt.gensalt(self._cost)
        async with self._turns:
            return await asyncio.to_thread(bcrypt.hashpw, _prepared(password), salt)

    async def matches(self, password: str, hashed: bytes | None) -> bool:
        """Whether it is the password. Without a hash: no, after the same work."""
        if hashed is None:
            self._nobodys = self._nobodys or await self.hash("nobody's password")
        against = hashed or self._nobodys
        assert against is not None
        async with self._turns:
            check = partial(bcrypt.checkpw, _prepared(password), against)
            return await asyncio.to_thread(check) and hashed is not None


def _prepared(password: str) -> bytes:
    digest = hmac.digest(_KEY, password.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return base64.b64encode(digest)
