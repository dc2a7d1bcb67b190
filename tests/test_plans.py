"""How the database answers: by an index, whatever is asked and however much there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from services.notifications.models import Notification
from services.shared.vocabulary import NotificationType
from tests import notices
from tests.kit import House
from tests.notices import Wire, ago, customer, page, row, store, unread_count, wired

MANY, ASKED, UNSEEN = 2000, 10, 8
TYPES = tuple(NotificationType)
Command = dict[str, Any]


@pytest.fixture(scope="module")
async def ann(house: House) -> AsyncIterator[Wire]:
    """Somebody with thousands of notifications, of which few are unread and few put away."""
    start = ago(MANY)
    async with wired(await customer(house)) as ann:
        others = [(await customer(house)).id for _ in range(3)]
        for user_id in (ann.id, *others):
            await store(
                row(
                    user_id,
                    start + timedelta(seconds=n),
                    type=TYPES[n // 50 % 3 if n % 50 == 0 else 0].value,
                    read=n % 25 != 0,
                    archived=n % 250 == 7,
                    seen=n % (MANY // UNSEEN) != 3,
                    snoozed_until=ago(-3600) if n % 100 == 9 else None,
                )
                for n in range(MANY)
            )
        yield ann


@asynccontextmanager
async def watched(house: House) -> AsyncIterator[list[Command]]:
    """The questions about notifications that the database was asked in the block."""
    database = house.runtime.store.database
    asked: list[Command] = []
    await database.command("profile", 2)
    try:
        yield asked
    finally:
        await database.command("profile", 0)
        namespace = f"{database.name}.{Notification.get_collection_name()}"
        profile = database["system.profile"].find({"ns": namespace})
        asked += [one async for one in profile]
        await database["system.profile"].drop()


def stages(plan: Any) -> set[str]:
    """The names of all stages that a question went through."""
    if isinstance(plan, dict):
        own = {plan["stage"]} if isinstance(plan.get("stage"), str) else set()
        return own.union(*map(stages, plan.values()))
    return set().union(*map(stages, plan)) if isinstance(plan, list) else set()


def assert_cheap(asked: list[Command], most: int) -> None:
    """Each was answered from an index, in its order, by looking at so many rows at most."""
    assert asked
    for one in asked:
        assert one["planSummary"].startswith("IXSCAN"), one
        assert not one.get("hasSortStage"), one
        assert not stages(one.get("execStats")) & {"COLLSCAN", "SORT"}, one
        assert one["docsExamined"] <= most, one


FILTERS: list[dict[str, Any]] = [
    {},
    {"unreadOnly": True},
    {"archived": True},
    {"snoozed": True},
    {"types": ["PROMOTION"]},
    {"types": ["PROMOTION", "RECOMMENDATION"], "unreadOnly": True},
    {"types": ["PROMOTION"], "archived": True},
]


@pytest.mark.parametrize("direction", ["first", "last"])
@pytest.mark.parametrize("which", FILTERS, ids=str)
async def test_a_page_costs_what_is_on_it_and_not_what_there_is(
    house: House, ann: Wire, which: dict[str, Any], direction: str
) -> None:
    end, cursor = ("after", "endCursor") if direction == "first" else ("before", "startCursor")
    async with watched(house) as asked:
        start = await page(ann, **{direction: ASKED}, **which)
        further = {direction: ASKED, end: start["pageInfo"][cursor]}
        await page(ann, **further, **which)
    assert_cheap(asked, 3 * ASKED)


@pytest.mark.parametrize("types", [None, ["PROMOTION"]])
async def test_counting_the_unread_costs_what_is_unread(
    house: House, ann: Wire, types: list[str] | None
) -> None:
    async with watched(house) as asked:
        count = await unread_count(ann, types=types)
    assert count > 0
    assert_cheap(asked, 2 * count)


async def test_counting_the_unseen_costs_nothing_but_its_index(house: House, ann: Wire) -> None:
    async with watched(house) as asked:
        assert (await ann.ask("{ unseenCount }"))["unseenCount"] == UNSEEN
    assert_cheap(asked, 0)


PAGE_OF = "{ edges { node { id sentAt read } } pageInfo { hasNextPage hasPreviousPage } }"
BELL = {
    "page": f"page: notifications(SLICE) {PAGE_OF}",
    "some": f"some: notifications(SLICE, types: [PROMOTION]) {PAGE_OF}",
    "unread": "unread: unreadCount",
    "promotions": "promotions: unreadCount(types: [PROMOTION])",
    "unseen": "unseen: unseenCount",
    "none": "none: unreadCount(types: [])",
}


async def ask_at_once(ann: Wire, fields: Iterable[str], direction: str) -> dict[str, Any]:
    document = " ".join(BELL[one] for one in fields).replace("SLICE", f"{direction}: {ASKED}")
    answer: dict[str, Any] = await ann.ask(f"{{ {document} }}")
    return answer


async def test_what_a_bell_asks_at_once_is_one_command_that_costs_what_it_shows(
    house: House, ann: Wire
) -> None:
    async with watched(house) as asked:
        bell = await ask_at_once(ann, [one for one in BELL if one != "some"], "last")
    asked = [one for one in asked if ann.id in str(one["command"])]  # not what wakes the snoozed
    assert [next(iter(one["command"])) for one in asked] == ["aggregate"]
    assert_cheap(asked, ASKED + 1 + 2 * (bell["unread"] + bell["promotions"]))


@pytest.mark.parametrize("direction", ["first", "last"])
async def test_what_is_asked_at_once_is_answered_as_it_is_alone(ann: Wire, direction: str) -> None:
    alone = [await ask_at_once(ann, [one], direction) for one in BELL]
    bell = await ask_at_once(ann, BELL, direction)
    assert bell == {name: value for one in alone for name, value in one.items()}
    assert bell["unread"] > bell["promotions"] > bell["none"] == 0
    assert bell["page"] != bell["some"]


async def test_marking_all_up_to_a_cursor_costs_what_is_unread(house: House, ann: Wire) -> None:
    cursor = (await page(ann, last=ASKED, types=["PROMOTION"]))["pageInfo"]["startCursor"]
    unread = await unread_count(ann)
    async with watched(house) as asked:
        await ann.ask(notices.READ_ALL, upTo=cursor)
    for one in asked:
        assert "COLLSCAN" not in one["planSummary"], one
        assert one.get("docsExamined", 0) <= 2 * unread, one


async def test_a_subscription_reads_from_its_cursor_on(house: House, ann: Wire) -> None:
    cursor = (await page(ann, first=ASKED))["pageInfo"]["endCursor"]
    document = "subscription($after: String) { notificationAdded(after: $after) { cursor } }"
    following = ann.somebody.api.follow(document, after=cursor)
    async with watched(house) as asked, following as stream:
        for _ in range(ASKED - 1):
            await stream.next()
    assert_cheap(asked, 3 * ASKED)
