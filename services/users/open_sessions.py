"""Whether sessions are open: asked for each request, and once for all that come together.

A busy gateway reads many requests at a time, and each needs an answer before it is let in. Nobody
is answered from what was known before: a session that has ended counts for nothing from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set

from services.shared.clock import Clock
from services.users.credentials import Session


class OpenSessions:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wanted: set[str] = set()
        self._asking: asyncio.Task[Set[str]] | None = None

    async def holds(self, session_id: str) -> bool:
        self._wanted.add(session_id)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(_heard)
        return session_id in await asyncio.shield(self._asking)

    async def _ask(self) -> Set[str]:
        await asyncio.sleep(0)  # who comes in the same turn of the loop is asked for, too
        wanted, self._wanted, self._asking = self._wanted, set(), None
        return await Session.still_open(list(wanted), self._clock.now())


def _heard(task: asyncio.Task[Set[str]]) -> None:
    """All who asked may have gone before it failed."""
    if not task.cancelled():
        task.exception()
