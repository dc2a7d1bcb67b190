"""Workers that another overtakes, or that die, just before a transaction or just after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.shared.store import Session, Store

T = TypeVar("T")


class Elsewhere(Store):
    """A store on which something happens just before a transaction, or just after it."""

    def __init__(
        self,
        store: Store,
        before: Callable[[], Awaitable[object]] | None = None,
        after: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._store = store
        self._before = before
        self._after = after

    async def transact(self, work: Callable[[Session], Awaitable[T]]) -> T:
        if self._before:
            await self._before()
        result = await self._store.transact(work)
        if self._after:
            await self._after()
        return result


class Killed(BaseException):
    """The end of the process."""


async def killed() -> None:
    raise Killed
