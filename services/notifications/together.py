"""Questions about notifications that come at the same time: one command for several.

A bell asks for a page and for how many are unread, and in a crowd many bells do. A command of its
own costs the process, and the system between it and the database, more than the counting does.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Coroutine, Sequence
from contextvars import Context
from typing import Any, Final, NamedTuple

import pymongo
from pymongo.errors import WaitQueueTimeoutError

from services.notifications.models import Notification
from services.notifications.shown import COLUMNS
from services.shared.log import get_logger
from services.shared.store import Row, quickly

Order = Sequence[tuple[str, int]]
_MOST: Final = 8  # questions in a command
_MOST_ROWS: Final = 200  # that they ask for: these may be large
_PATIENCE: Final = 0.25  # of the timeout: the part that one customer waits for others' questions
_LEAST: Final = 0.1  # of the timeout: with less left it is not worth asking

log = get_logger()


class _Page(NamedTuple):
    there: Row
    order: Order
    limit: int


Question = _Page | Row


class _Asked(NamedTuple):
    """`since`: the loop's time. Whoever asked may have gone."""

    question: Question
    answer: asyncio.Future[Any]
    since: float

    @property
    def is_page(self) -> bool:
        return isinstance(self.question, _Page)

    @property
    def rows(self) -> int:
        return self.question.limit if isinstance(self.question, _Page) else 1

    @property
    def user_id(self) -> Any:
        there = self.question.there if isinstance(self.question, _Page) else self.question
        return there["user_id"]

    def give(self, answer: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Together:
    """What is asked in the same turn of the loop goes in one command, and so does what is asked
    while `at_once` commands are out; what is asked alone, in the command that is made for it.

    `timeout`: seconds in which a question is answered; it is refused a part of that later at most.
    Nobody fails for another customer's question: a command with several customers' that fails, or
    takes that part of the time, is given up, and each is asked for alone. One that takes so long
    lets others have its turn.
    """

    def __init__(self, at_once: int, timeout: float) -> None:
        self._at_once = at_once
        self._timeout = timeout
        self._patience = timeout * _PATIENCE
        self._asked: deque[_Asked] = deque()
        self._starts: asyncio.Task[None] | None = None
        self._in_turn: dict[asyncio.Task[None], float] = {}  # and when it began: the loop's time
        self._watch: asyncio.TimerHandle | None = None
        self._out: set[asyncio.Task[None]] = set()

    async def page(self, there: Row, order: Order, limit: int) -> list[Row]:
        """The first rows of those, with what is shown of them. `there` names one user. Raises what
        the database raises."""
        rows: list[Row] = await self._ask(_Page(there, order, limit))
        return rows

    async def count(self, there: Row) -> int:
        """How many those are. `there` names one user. Raises what the database raises."""
        counted: int = await self._ask(there)
        return counted

    async def _ask(self, question: Question) -> Any:
        loop = asyncio.get_running_loop()
        asked = _Asked(question, loop.create_future(), loop.time())
        self._asked.append(asked)
        self._start_soon()
        try:
            return await asked.answer
        finally:
            del asked  # what failed holds this frame

    def _start_soon(self) -> None:
        """Have those who wait asked for, or see to it when the next turn begins."""
        if not self._asked or self._starts is not None:
            return
        loop = asyncio.get_running_loop()
        if len(self._in_turn) < self._at_once:
            self._starts = self._take_turn(self._answer_some())
        elif self._watch is None:
            oldest = min(self._in_turn.values())
            self._watch = loop.call_at(oldest + self._patience, self._end_long_turns)

    async def _answer_some(self) -> None:
        self._starts = None
        asked = self._those_in_turn()
        self._start_soon()
        if asked:
            await self._answer(asked)

    def _end_turn(self, task: asyncio.Task[None]) -> None:
        self._out.discard(task)
        self._in_turn.pop(task, None)
        if self._starts is task:  # it was cancelled
            self._starts = None
        self._start_soon()

    def _end_long_turns(self) -> None:
        self._watch = None
        began = asyncio.get_running_loop().time() - self._patience
        self._in_turn = {task: at for task, at in self._in_turn.items() if at > began}
        self._start_soon()

    def _those_in_turn(self) -> list[_Asked]:
        taken: list[_Asked] = []
        while self._asked and _may_join(self._asked[0], taken):
            one = self._asked.popleft()
            if self._left(one) < self._timeout * _LEAST:
                one.fail(WaitQueueTimeoutError("The database did not get to it."))
            if not one.answer.done():
                taken.append(one)
        return taken

    async def _answer(self, asked: Sequence[_Asked]) -> None:
        """Ask for them in one command."""
        seconds = self._left(asked[0])
        if len({one.user_id for one in asked}) > 1:
            seconds = min(seconds, self._patience)
        try:
            with pymongo.timeout(seconds):
                answers = await _answers([one.question for one in asked])
            for one, answer in zip(asked, answers, strict=True):
                one.give(answer)
        except asyncio.CancelledError:
            for one in asked:
                one.answer.cancel()
            raise
        except Exception as error:
            if len(asked) > 1:
                log.warning("asked_for_apart", questions=len(asked), error=str(error))
            self._give_up(asked, error)
        finally:
            del asked  # what failed holds its error, and that this frame

    def _give_up(self, asked: Sequence[_Asked], error: Exception) -> None:
        """Their command: each is asked for alone, unless it was, or too little time is left."""
        for one in asked:
            if len(asked) == 1 or self._left(one) < self._timeout * _LEAST:
                one.fail(error)
            elif not one.answer.done():
                self._take_turn(self._answer([one]))

    def _left(self, one: _Asked) -> float:
        """Seconds."""
        return one.since + self._timeout - asyncio.get_running_loop().time()

    def _take_turn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """In nobody's context: what is asked may be another's."""
        task = asyncio.create_task(work, context=Context())
        self._out.add(task)
        self._in_turn[task] = asyncio.get_running_loop().time()
        task.add_done_callback(self._end_turn)
        return task


def _may_join(one: _Asked, others: Sequence[_Asked]) -> bool:
    """Rows are told apart by their users: so each has one page in a command."""
    if not others:
        return True
    of_its_user = (other for other in others if other.user_id == one.user_id)
    return (
        len(others) < _MOST
        and sum(other.rows for other in others) + one.rows <= _MOST_ROWS
        and not (one.is_page and any(other.is_page for other in of_its_user))
    )


async def _answers(questions: Sequence[Question]) -> list[Any]:
    """In one command."""
    notifications = quickly(Notification)
    if len(questions) == 1:
        [question] = questions
        if not isinstance(question, _Page):
            return [await notifications.count_documents(question)]
        found = notifications.find(question.there, COLUMNS)
        return [await found.sort(question.order).limit(question.limit).to_list()]
    first, *others = [_pipeline(place, one) for place, one in enumerate(questions)]
    unions = [{"$unionWith": {"coll": notifications.name, "pipeline": one}} for one in others]
    most = sum(one.limit if isinstance(one, _Page) else 1 for one in questions)
    cursor = await notifications.aggregate([*first, *unions], batchSize=most + 1)
    counts: dict[int, int] = {}
    pages: dict[str, list[Row]] = defaultdict(list)
    for row in await cursor.to_list():
        if "count" in row:
            counts[row["_id"]] = row["count"]
        else:
            pages[row["user_id"]].append(row)
    return [
        pages[one.there["user_id"]] if isinstance(one, _Page) else counts.get(place, 0)
        for place, one in enumerate(questions)
    ]


def _pipeline(place: int, question: Question) -> list[Row]:
    """A count answers with its place for an id, or with nothing for 0."""
    if isinstance(question, _Page):
        there, order, limit = question
        shown: list[Row] = [{"$sort": dict(order)}, {"$limit": limit}, {"$project": COLUMNS}]
        return [{"$match": there}, *shown]
    return [{"$match": question}, {"$group": {"_id": place, "count": {"$sum": 1}}}]
