"""Pages of notifications: every list, in both directions, held against a plain sorted list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notifications.models import Notification
from services.shared.vocabulary import NotificationType
from tests import notices
from tests.kit import House
from tests.notices import Wire, ago, customer, page, refused, row, store, wired

DEFAULT_SIZE, LONGEST = 20, 100
Row = dict[str, Any]


@pytest.fixture(scope="module")
async def ann(house: House) -> AsyncIterator[Wire]:
    """The inbox is emptied by each test, which is quicker than a new customer."""
    async with wired(await customer(house)) as ann:
        yield ann


async def empty(ann: Wire) -> None:
    await Notification.get_pymongo_collection().delete_many({"user_id": ann.id})


def place(one: Row) -> tuple[datetime, ObjectId]:
    return one["sent_at"], one["_id"]


def ids(rows: Sequence[Row]) -> list[str]:
    return [str(one["_id"]) for one in rows]


@dataclass(frozen=True)
class Kind:
    """What a new row is like. Stamps are few, so that many rows share one."""

    recent: bool
    stamp: int
    id: int
    type: NotificationType
    read: bool
    archived: bool

    def made(self, user_id: str, start: datetime) -> Row:
        begin = start if self.recent else start - timedelta(hours=1)
        return row(
            user_id,
            begin + timedelta(milliseconds=self.stamp),
            _id=ObjectId(bytes([self.id]) + uuid4().bytes[:11]),
            type=self.type.value,
            read=self.read,
            archived=self.archived,
        )


@dataclass(frozen=True)
class Question:
    """A page that is asked for. `after`, `before`: which of the cursors known by then."""

    first: int | None = None
    last: int | None = None
    after: int | None = None
    before: int | None = None
    types: tuple[NotificationType, ...] | None = None
    unread_only: bool = False
    archived: bool = False

    def matches(self, one: Row) -> bool:
        return (
            (self.types is None or one["type"] in self.types)
            and not (self.unread_only and one["read"])
            and one["archived"] is self.archived
        )


kinds = st.builds(
    Kind,
    recent=st.booleans(),
    stamp=st.integers(0, 3),
    id=st.integers(0, 255),
    type=st.sampled_from(NotificationType),
    read=st.booleans(),
    archived=st.booleans(),
)
sizes = st.integers(0, 7)
known_cursors = st.none() | st.integers(0, 50)
questions = st.builds(
    Question,
    after=known_cursors,
    before=known_cursors,
    types=st.none() | st.lists(st.sampled_from(NotificationType), max_size=2).map(tuple),
    unread_only=st.booleans(),
    archived=st.booleans(),
).flatmap(
    lambda q: st.one_of(
        sizes.map(lambda n: _with(q, first=n)), sizes.map(lambda n: _with(q, last=n)), st.just(q)
    )
)


def _with(question: Question, **changes: Any) -> Question:
    return Question(**(question.__dict__ | changes))


@dataclass
class Inbox:
    """A list of all rows, and the cursors that pages gave."""

    rows: list[Row] = field(default_factory=list)
    cursors: list[tuple[str, tuple[datetime, ObjectId]]] = field(default_factory=list)

    def known(self, number: int | None) -> tuple[str | None, tuple[datetime, ObjectId] | None]:
        if number is None or not self.cursors:
            return None, None
        return self.cursors[number % len(self.cursors)]

    def expected(self, question: Question) -> tuple[list[Row], bool, bool]:
        """The page, whether there is a next one, and whether there is a previous one."""
        after, before = self.known(question.after)[1], self.known(question.before)[1]
        matching = [one for one in self.rows if question.matches(one)]
        matching.sort(key=place, reverse=True)
        between = [
            one
            for one in matching
            if (after is None or place(one) < after) and (before is None or place(one) > before)
        ]
        if question.last is not None:
            cut = max(len(between) - question.last, 0)
            older = before is not None and any(place(one) <= before for one in matching)
            return between[cut:], older, cut > 0
        size = DEFAULT_SIZE if question.first is None else question.first
        newer = after is not None and any(place(one) >= after for one in matching)
        return between[:size], len(between) > size, newer

    async def check(self, ann: Wire, question: Question) -> None:
        """Ask, compare, and learn the page's cursors."""
        got = await page(
            ann,
            first=question.first,
            last=question.last,
            after=self.known(question.after)[0],
            before=self.known(question.before)[0],
            types=None if question.types is None else [one.name for one in question.types],
            unreadOnly=question.unread_only,
            archived=question.archived,
        )
        rows, has_next, has_previous = self.expected(question)
        assert [edge["node"]["id"] for edge in got["edges"]] == ids(rows)
        info, cursors = got["pageInfo"], [edge["cursor"] for edge in got["edges"]]
        assert (info["hasNextPage"], info["hasPreviousPage"]) == (has_next, has_previous)
        ends = (cursors[0], cursors[-1]) if cursors else (None, None)
        assert (info["startCursor"], info["endCursor"]) == ends
        self.cursors += zip(cursors, map(place, rows), strict=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(kinds, max_size=20), st.lists(st.lists(kinds, max_size=3) | questions, max_size=10))
async def test_every_page_is_the_cut_of_the_list_that_was_asked_for(
    ann: Wire, first: list[Kind], steps: list[list[Kind] | Question]
) -> None:
    await empty(ann)
    inbox, start = Inbox(), ago(1)
    for step in [first, Question(), *steps, Question(last=5)]:
        if isinstance(step, Question):
            await inbox.check(ann, step)
        elif step:
            rows = [kind.made(ann.id, start) for kind in step]
            await store(rows)
            inbox.rows += rows


LISTS = [
    Question(),
    Question(unread_only=True),
    Question(archived=True),
    Question(types=(NotificationType.PROMOTION, NotificationType.ORDER_UPDATE)),
]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(kinds, min_size=5, max_size=25),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(LISTS),
)
async def test_walking_through_all_pages_loses_nothing_and_repeats_nothing(
    ann: Wire, rows: list[Kind], sizes: list[int], forward: bool, which: Question
) -> None:
    await empty(ann)
    stored = [kind.made(ann.id, ago(1)) for kind in rows]
    await store(stored)
    matching = sorted(filter(which.matches, stored), key=place, reverse=True)
    found: list[str] = []
    cursor, more, turn = None, True, 0
    while more:
        size, turn = sizes[turn % len(sizes)], turn + 1
        part = await page(
            ann,
            **({"first": size, "after": cursor} if forward else {"last": size, "before": cursor}),
            types=None if which.types is None else [one.name for one in which.types],
            unreadOnly=which.unread_only,
            archived=which.archived,
        )
        got = [edge["node"]["id"] for edge in part["edges"]]
        found = found + got if forward else got + found
        more = part["pageInfo"]["hasNextPage" if forward else "hasPreviousPage"]
        cursor = part["pageInfo"]["endCursor" if forward else "startCursor"]
    assert found == ids(matching)


async def test_nothing_that_was_there_is_lost_while_new_ones_arrive(
    ann: Wire,
) -> None:
    await empty(ann)
    there = await store(row(ann.id, ago(100 - n // 3)) for n in range(20))
    found, cursor, more = [], None, True
    while more:
        part = await page(ann, first=3, after=cursor)
        found += [edge["node"]["id"] for edge in part["edges"]]
        more, cursor = part["pageInfo"]["hasNextPage"], part["pageInfo"]["endCursor"]
        await store(row(ann.id, ago(0)) for _ in range(3))
    assert sorted(found) == sorted(there)


async def test_a_cursor_works_when_its_notification_is_on_the_list_no_more(ann: Wire) -> None:
    await empty(ann)
    await store(row(ann.id, ago(100 - n)) for n in range(6))
    edges = (await page(ann, unreadOnly=True))["edges"]
    for edge in edges[2:4]:
        await ann.ask(notices.READ, id=edge["node"]["id"])
    rest = await page(ann, unreadOnly=True, after=edges[2]["cursor"])
    assert rest["edges"] == edges[4:]
    assert rest["pageInfo"]["hasPreviousPage"] is True
    newer = await page(ann, unreadOnly=True, last=10, before=edges[3]["cursor"])
    assert newer["edges"] == edges[:2]
    assert newer["pageInfo"]["hasNextPage"] is True


async def test_without_arguments_the_first_page_has_the_default_size(ann: Wire) -> None:
    await empty(ann)
    there = await store(row(ann.id, ago(200 - n)) for n in range(DEFAULT_SIZE + 1))
    got = await page(ann)
    assert [edge["node"]["id"] for edge in got["edges"]] == there[:0:-1]
    assert got["pageInfo"]["hasNextPage"] is True
    assert got["pageInfo"]["hasPreviousPage"] is False


@pytest.mark.parametrize("there", [0, 1])
async def test_a_page_of_nothing_says_whether_there_is_something(ann: Wire, there: int) -> None:
    await empty(ann)
    if there:
        await store([row(ann.id, ago(100))])
    for direction, more in (("first", "hasNextPage"), ("last", "hasPreviousPage")):
        got = await page(ann, **{direction: 0})
        assert got["edges"] == []
        nothing = {"hasNextPage": False, "hasPreviousPage": False}
        ends = {"startCursor": None, "endCursor": None}
        assert got["pageInfo"] == nothing | ends | {more: bool(there)}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"first": -1}, "first"),
        ({"first": LONGEST + 1}, "first"),
        ({"first": 10_000}, "first"),
        ({"last": -1}, "last"),
        ({"last": LONGEST + 1}, "last"),
        ({"first": 1, "last": 1}, "last"),
        ({"after": ""}, "after"),
        ({"after": "broken"}, "after"),
        ({"before": "not a cursor"}, "before"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(
    ann: Wire, arguments: dict[str, Any], field: str
) -> None:
    error = await refused(page(ann, **arguments))
    assert (error.code, error.field) == ("BAD_USER_INPUT", field)


async def test_the_longest_page_is_full(ann: Wire) -> None:
    await empty(ann)
    await store(row(ann.id, ago(500 - n)) for n in range(LONGEST + 1))
    assert len((await page(ann, first=LONGEST))["edges"]) == LONGEST


async def test_anothers_cursor_shows_nothing_of_theirs(house: House, ann: Wire) -> None:
    await empty(ann)
    await store(row(ann.id, ago(100 - n)) for n in range(3))
    cursor = (await page(ann))["pageInfo"]["startCursor"]
    async with wired(await customer(house)) as eve:
        await store([row(eve.id, ago(1000))])
        got = await page(eve, after=cursor)
    assert [edge["node"]["userId"] for edge in got["edges"]] == [eve.id]
    assert got["pageInfo"]["hasPreviousPage"] is False
