"""A mend of PyMongo's wait for a server, without which one cancelled task may stop a whole process.

PyMongo waits with `asyncio.wait_for(condition.wait(), …)`. Before Python 3.12 that is a task of its
own: when the waiting task is cancelled while its time runs out, the condition's lock is released by
the one and taken by the other, which nobody tells to let go. Every operation of that client then
waits for the lock for ever, whatever its time limit. It takes no more than a client that leaves
while the database is away.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

from pymongo import lock

T = TypeVar("T")


def mend_waiting() -> None:
    """Have PyMongo wait as Python 3.12 does. Once is enough; from 3.12 on it changes nothing."""
    if sys.version_info < (3, 12):
        vars(lock)["wait_for"] = _wait_for


async def _wait_for(waited_for: Awaitable[T], timeout: float | None) -> T:
    """As Python 3.12's: in the same task, so that whoever is cancelled has the lock."""
    async with asyncio.timeout(timeout):
        return await waited_for
