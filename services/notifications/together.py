"""Questions about notifications that one request puts at the same time: one command for all.

A bell asks for a page and for how many are unread. A command of its own costs the process, and the
system between it and the database, more than the counting does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from bson import ObjectId

from services.notifications.models import Notification
from services.notifications.shown import COLUMNS
from services.shared.store import Row, quickly

Order = Sequence[tuple[str, int]]
_ORDINARY: Final = 101  # rows that the database answers at once, if they are not large


class _Page(NamedTuple):
    there: Row
    order: Order
    limit: int


class _Asked(NamedTuple):
    question: _Page | Row
    answer: asyncio.Future[Any]


class Together:
    """Of one request. What is asked in the same turn of the loop is asked in one command, but for a
    second page; what is asked alone in the command that is made for it."""

    def __init__(self) -> None:
        self._asked: list[_Asked] = []
        self._asking: asyncio.Task[None] | None = None

    async def page(self, there: Row, order: Order, limit: int) -> list[Row]:
        """The first rows of those, with what is shown of them."""
        rows: list[Row] = await self._ask(_Page(there, order, limit))
        return rows

    async def count(self, there: Row) -> int:
        """How many those are."""
        counted: int = await self._ask(there)
        return counted

    async def _ask(self, question: _Page | Row) -> Any:
        asked = _Asked(question, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._asking is None:
            self._asking = asyncio.create_task(self._answer())
        return await asked.answer

    async def _answer(self) -> None:
        asked, self._asked, self._asking = self._asked, [], None
        others = [one for one in asked if isinstance(one.question, _Page)][1:]
        if others:  # each in a command of its own
            asked = [one for one in asked if one not in others]
            await asyncio.gather(_settle(asked), *(_settle([one]) for one in others))
        else:
            await _settle(asked)


async def _settle(asked: Sequence[_Asked]) -> None:
    """Answer them; whoever asked may have gone."""
    try:
        answers = await _answers([one.question for one in asked])
    except Exception as error:
        for one in asked:
            if not one.answer.done():
                one.answer.set_exception(error)
    else:
        for one, answer in zip(asked, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)


async def _answers(questions: Sequence[_Page | Row]) -> list[Any]:
    """In one command. `questions`: one page among them at most."""
    notifications = quickly(Notification)
    if len(questions) == 1:
        [question] = questions
        if not isinstance(question, _Page):
            return [await notifications.count_documents(question)]
        found = notifications.find(question.there, COLUMNS)
        return [await found.sort(question.order).limit(question.limit).to_list()]
    first, *others = [_pipeline(place, one) for place, one in enumerate(questions)]
    unions = [{"$unionWith": {"coll": notifications.name, "pipeline": one}} for one in others]
    cursor = await notifications.aggregate([*first, *unions], batchSize=_ORDINARY + len(questions))
    counts: dict[int, int] = {}
    page: list[Row] = []
    for row in await cursor.to_list():
        if isinstance(row["_id"], ObjectId):
            page.append(row)
        else:
            counts[row["_id"]] = row["count"]
    return [
        page if isinstance(question, _Page) else counts.get(place, 0)
        for place, question in enumerate(questions)
    ]


def _pipeline(place: int, question: _Page | Row) -> list[Row]:
    """A count answers with its place for an id, or with nothing for 0."""
    if isinstance(question, _Page):
        there, order, limit = question
        shown: list[Row] = [{"$sort": dict(order)}, {"$limit": limit}, {"$project": COLUMNS}]
        return [{"$match": there}, *shown]
    return [{"$match": question}, {"$group": {"_id": place, "count": {"$sum": 1}}}]
