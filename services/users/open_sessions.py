"""Whether sessions are open: asked for each request, and once for all that come together.

A busy gateway reads many requests at a time, and each needs an answer before it is let in. While
one question is out, whoever comes waits for the next. Nobody is answered from what was known
before: a session that has ended counts for nothing from then on. What was known says only who may
read before they are answered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Set

from services.shared.clock import Clock
from services.users.credentials import Session


class OpenSessions:
    """`remembered`: of so many it is known that they were open when they were looked up last."""

    def __init__(self, clock: Clock, remembered: int) -> None:
        self._clock = clock
        self._remembered = remembered
        self._were_open: OrderedDict[str, None] = OrderedDict()
        self._next: _Question | None = None
        self._asking: asyncio.Task[None] | None = None

    def may_be_presumed(self, session_id: str) -> bool:
        """Whether it was open when it was looked up last, and nobody asks now. Reading ahead gains
        nothing in a crowd, which waits for the next question anyway."""
        return self._asking is None and session_id in self._were_open

    async def holds(self, session_id: str) -> bool:
        """Within the time of two questions: the one that is out, and the next. Raises what the
        database raises: also when it was the question before that failed, or everybody would wait
        twice for one that does not answer."""
        return session_id in await asyncio.shield(self.ask(session_id))

    def ask(self, session_id: str) -> asyncio.Future[Set[str]]:
        """Those that are open among all that are asked for together; to be shielded, since others
        wait for it, too."""
        question = self._next = self._next or _Question()
        question.wanted.add(session_id)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return question.answer

    async def _ask(self) -> None:
        question: _Question | None = None
        try:
            await asyncio.sleep(0)  # who comes in the same turn of the loop is asked for, too
            while question := self._next:
                self._next = None
                found = await Session.still_open(list(question.wanted), self._clock.now())
                self._remember(question.wanted, found)
                question.answer.set_result(found)
        except BaseException as error:
            self._fail(question, error)
        finally:
            self._asking = question = None  # which would hold its error, and that this frame

    def _fail(self, question: _Question | None, error: BaseException) -> None:
        """That one, and the next."""
        for failed in (question, self._next):
            if failed is not None:
                failed.fail(error)
        self._next = None

    def _remember(self, wanted: Set[str], found: Set[str]) -> None:
        for id in wanted:
            self._were_open.pop(id, None)
        self._were_open |= dict.fromkeys(found)
        while len(self._were_open) > self._remembered:
            self._were_open.popitem(last=False)


class _Question:
    """Which of these sessions are open?"""

    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self.answer: asyncio.Future[Set[str]] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.answer.cancel()
        else:
            self.answer.set_exception(error)
            self.answer.exception()  # all who asked may have gone
