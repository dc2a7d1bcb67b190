"""Questions about notifications that come at the same time: one command for several.

A bell asks for a page and for how many are unread, and in a crowd many bells do. A command of its
own costs the process, and the system between it and the database, more than the counting does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pymongo
from pymongo.errors import WaitQueueTimeoutError

from services.notifications.models import Notification
from services.notifications.shown import COLUMNS
from services.shared.store import Row, quickly

Order = Sequence[tuple[str, int]]
_MOST: Final = 8  # questions in a command
_PATIENCE: Final = 0.25  # of the timeout: then each is asked for alone


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

    def give(self, answer: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Together:
    """What is asked in the same turn of the loop goes in one command, and so does what is asked
    while `at_once` commands are out; what is asked alone, in the command that is made for it.

    `timeout`: seconds that a question waits for its turn at most, and then for its answer. Nobody
    fails for another's question: when a command fails, or takes longer than a part of that, each
    is asked for alone, beside those that come next.
    """

    def __init__(self, at_once: int, timeout: float) -> None:
        self._free = at_once
        self._timeout = timeout
        self._asked: deque[_Asked] = deque()
        self._next: asyncio.Task[None] | None = None
        self._out: set[asyncio.Task[None]] = set()

    async def page(self, there: Row, order: Order, limit: int) -> list[Row]:
        """The first rows of those, with what is shown of them. Raises what the database raises."""
        rows: list[Row] = await self._ask(_Page(there, order, limit))
        return rows

    async def count(self, there: Row) -> int:
        """How many those are. Raises what the database raises."""
        counted: int = await self._ask(there)
        return counted

    async def _ask(self, question: Question) -> Any:
        loop = asyncio.get_running_loop()
        asked = _Asked(question, loop.create_future(), loop.time())
        self._asked.append(asked)
        self._see_to_them()
        return await asked.answer

    def _see_to_them(self) -> None:
        if self._next is None and self._free and self._asked:
            self._free -= 1
            self._next = self._go_on(self._see_to_some())

    async def _see_to_some(self) -> None:
        """Ask for those who wait, until nobody does."""
        self._next = None
        try:
            while asked := self._those_in_turn():
                self._see_to_them()  # by another one, if there are still some
                await self._settle(asked)
        finally:
            self._free += 1

    def _those_in_turn(self) -> list[_Asked]:
        latest = asyncio.get_running_loop().time() - self._timeout
        taken: list[_Asked] = []
        while self._asked and len(taken) < _MOST:
            one = self._asked.popleft()
            if one.answer.done():  # who asked has gone
                continue
            if one.since < latest:
                one.answer.set_exception(WaitQueueTimeoutError("The database did not get to it."))
            else:
                taken.append(one)
        return taken

    async def _settle(self, asked: Sequence[_Asked]) -> None:
        if len(asked) > 1:
            with suppress(Exception), pymongo.timeout(self._timeout * _PATIENCE):
                answers = await _answers([one.question for one in asked])
                for one, answer in zip(asked, answers, strict=True):
                    one.give(answer)
                return
            for one in asked:
                self._go_on(_settle_alone(one))
        else:
            await _settle_alone(*asked)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._out.add(task)
        task.add_done_callback(self._out.discard)
        return task


async def _settle_alone(asked: _Asked) -> None:
    try:
        [answer] = await _answers([asked.question])
    except Exception as error:
        asked.fail(error)
    else:
        asked.give(answer)


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
    answers: list[Any] = [[] if isinstance(one, _Page) else 0 for one in questions]
    for row in await cursor.to_list():
        if "count" in row:
            answers[row["_id"]] = row["count"]
        else:
            answers[row["place"]].append(row)
    return answers


def _pipeline(place: int, question: Question) -> list[Row]:
    """Its rows say to which place they belong; a count answers with nothing for 0."""
    if isinstance(question, _Page):
        there, order, limit = question
        shown: Row = COLUMNS | {"place": {"$literal": place}}
        return [{"$match": there}, {"$sort": dict(order)}, {"$limit": limit}, {"$project": shown}]
    return [{"$match": question}, {"$group": {"_id": place, "count": {"$sum": 1}}}]
