"""Audiences: whom conditions mean, that finding them costs little, and what is refused."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from pymongo.errors import ExecutionTimeout

from services.host import Runtime
from services.notifications.audience import Audience, read
from services.notifications.broadcasting import Broadcasting
from services.notifications.catalogue import Product
from services.notifications.membership import Search, members
from services.shared.errors import BadInput
from services.shared.vocabulary import ActivityKind, Channel, NotificationType, Role
from services.users.consent import Consent
from services.users.models import Activity, User
from services.users.preferences import ChannelChange, TypeChange, merge
from tests.crowds import crowd, did, emptied, person, resting
from tests.kit import ShiftedClock
from tests.servers import PrivateMongod

T = TypeVar("T")
SEED = 5
PEOPLE, DEEDS, EXAMPLES = 120, 400, 100
SHOP_TIMEZONE = "Europe/Vienna"
LOCALES = ("de", "de-AT", "DE-ch", "den", "en", "en-GB", "fr")
ZONES = (None, None, "Europe/Vienna", "Europe/Berlin", "UTC")
TAGS = ("vip", "newsletter", "été")
SHELVES = {"boots": "Hiking", "poles": "Hiking", "socks": "Running", "tent": "Camping"}
CATEGORIES = ("Hiking", "Running", "Camping", "Climbing")
A_DAY = timedelta(days=1)

Deed = Mapping[str, Any]


@pytest.fixture(scope="module")
async def at_rest(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[Runtime]:
    async with resting(mongod.url, clock, fan_out_size=16, shop_timezone=SHOP_TIMEZONE) as runtime:
        yield runtime


@pytest.fixture
async def shop(at_rest: Runtime) -> Runtime:
    """One in which nothing happens by itself, and in which nobody is."""
    return await emptied(at_rest)


@pytest.fixture
async def people(shop: Runtime, clock: ShiftedClock) -> Sequence[User]:
    """All kinds of users, with all kinds of pasts."""
    chance = random.Random(SEED)
    users = [somebody(chance, clock) for _ in range(PEOPLE)]
    await User.insert_many(users)
    for id, category in SHELVES.items():
        await stock(category, id)
    await insert(
        [
            (
                str(chance.choice(users).id),
                chance.choice(list(ActivityKind)).value,
                chance.choice([*SHELVES, "unknown"]),
                clock.now() + chance.choice([-40, -12, -7, -3, -1, 1]) * A_DAY,
            )
            for _ in range(DEEDS)
        ]
    )
    return users


def somebody(chance: random.Random, clock: ShiftedClock) -> User:
    promotion, mail = NotificationType.PROMOTION, Channel.EMAIL
    changes = [
        TypeChange(promotion, chance.choice([None, True, False]), ()),
        TypeChange(
            promotion,
            None,
            tuple(
                ChannelChange(channel, chance.random() < 0.5)
                for channel in chance.sample((Channel.IN_APP, mail), chance.randrange(3))
            ),
        ),
    ]
    consent = Consent(given=chance.random() < 0.7, at=clock.now(), source="a form")
    return person(
        clock,
        role=chance.choices(list(Role), (90, 5, 5))[0],
        locale=chance.choice(LOCALES),
        timezone=chance.choice(ZONES),
        tags=chance.sample(TAGS, chance.randrange(3)),
        created_at=clock.now() + chance.choice([-60, -20, -5, 0, 1]) * A_DAY,
        disabled_at=clock.now() if chance.random() < 0.05 else None,
        choices=merge({}, changes, "") if chance.random() < 0.8 else {},
        consents={promotion: {mail: consent}} if chance.random() < 0.8 else {},
    )


def some_audience(chance: random.Random, now: datetime) -> dict[str, Any]:
    """A few conditions, as JSON."""
    deeds = {
        "withinDays": chance.choice([2, 7, 12, 30, 60]),
        "categories": chance.sample(CATEGORIES, 2),
    }
    if chance.random() < 0.3:
        del deeds["categories"]
    days = sorted(chance.sample((-60, -20, -5, 0), 2))
    since, before = ((now + day * A_DAY).isoformat() for day in days)
    conditions: dict[str, Any] = {
        "locales": chance.sample(("de", "en", "fr", "de-CH"), 2),
        "timezones": chance.sample(("Europe/Vienna", "Europe/Berlin", "UTC"), 2),
        "tags": chance.sample(TAGS, 2),
        "createdFrom": since,
        "createdBefore": before,
        "accepts": {
            "type": "promotion",
            **chance.choice([{}, {"channel": "in_app"}, {"channel": "email"}]),
        },
        "bought": deeds,
        "viewed": deeds,
        "neverBought": True,
        "inactiveDays": chance.choice([2, 7, 30]),
    }
    return {name: conditions[name] for name in chance.sample([*conditions], chance.randrange(4))}


def holds(name: str, value: Any, user: User, deeds: Sequence[Deed], now: datetime) -> bool:
    """What a condition means, slowly and plainly. `deeds`: the user's, up to now."""

    def within(days: int) -> list[Deed]:
        return [deed for deed in deeds if deed["at"] >= now - timedelta(days=days)]

    match name:
        case "locales":
            have = user.locale.lower() + "-"
            return any(have.startswith(wanted.lower() + "-") for wanted in value)
        case "timezones":
            return (user.timezone or SHOP_TIMEZONE) in value
        case "tags":
            return bool(set(user.tags) & set(value))
        case "createdFrom":
            return user.created_at >= datetime.fromisoformat(value)
        case "createdBefore":
            return user.created_at < datetime.fromisoformat(value)
        case "accepts":
            wanted = user.preferences.of(NotificationType(value["type"]))
            on = {
                one.channel.value
                for one in wanted.channels
                if one.enabled and not one.lacks_consent
            }
            return wanted.enabled and value.get("channel") in (None, *on)
        case "bought" | "viewed":
            kind = "purchase" if name == "bought" else "view"
            categories = value.get("categories")
            return any(
                deed["kind"] == kind
                and (categories is None or SHELVES.get(deed["product_id"]) in categories)
                for deed in within(value["withinDays"])
            )
        case "neverBought":
            return not any(deed["kind"] == "purchase" for deed in deeds)
        case "inactiveDays":
            return not within(value)
    raise AssertionError(name)


def meant(
    audience: Mapping[str, Any], people: Sequence[User], deeds: Sequence[Deed], now: datetime
) -> list[str]:
    return [
        str(user.id)
        for user in people
        if user.role is not Role.SERVICE and user.disabled_at is None and user.created_at <= now
        if all(
            holds(name, value, user, past(deeds, user, now), now)
            for name, value in audience.items()
        )
    ]


def past(deeds: Sequence[Deed], user: User, now: datetime) -> list[Deed]:
    return [deed for deed in deeds if deed["user_id"] == str(user.id) and deed["at"] <= now]


async def search_of(shop: Runtime, audience: Audience, at: datetime) -> Search:
    return await Search.of(audience, at, shop.settings, "input")


async def walk(shop: Runtime, audience: Audience, size: int, now: datetime) -> list[str]:
    """All members, in parts."""
    search = await search_of(shop, audience, now)
    ids: list[str] = []
    after: str | None = None
    while True:
        some, after = await members(search, after, size)
        ids += some
        if after is None:
            return ids


async def test_an_audience_is_those_for_whom_every_condition_holds(
    shop: Runtime, people: Sequence[User], clock: ShiftedClock
) -> None:
    deeds = await Activity.get_pymongo_collection().find().to_list()
    chance = random.Random(SEED)
    told: dict[str, set[bool]] = {}
    with clock.stopped():
        now = clock.now()
        for _ in range(EXAMPLES):
            wanted = some_audience(chance, now)
            found = await walk(shop, read(wanted, "audience"), chance.choice([11, 50, 1000]), now)
            assert found == meant(wanted, people, deeds, now), wanted
            for name in wanted:
                told.setdefault(name, set()).add(bool(found))
    assert len(told) == 10
    assert all(True in answers for answers in told.values()), told


@pytest.mark.parametrize("days", [7, 3650])
async def test_a_day_counts_from_its_very_beginning(
    shop: Runtime, clock: ShiftedClock, days: int
) -> None:
    within = read({"tags": [f"edge{days}"], "viewed": {"withinDays": days}}, "audience")
    with clock.stopped():
        now, edge = clock.now(), clock.now() - timedelta(days=days)
        on, before = await crowd(clock, 2, tags=[f"edge{days}"])
        await did(on, "view", "tent", edge)
        await did(before, "view", "tent", edge - timedelta(milliseconds=1))
        assert await walk(shop, within, 16, now) == [on]


async def test_a_dry_run_tells_how_many_and_shows_the_first(
    shop: Runtime, clock: ShiftedClock
) -> None:
    ids = await crowd(clock, 40, tags=["dry"])
    found = await shop.broadcasting.dry_run(read({"tags": ["dry"]}, "input"))
    assert (found.count, found.is_exact) == (40, True)
    assert [str(user.id) for user in found.sample] == ids[:10]


async def test_a_dry_run_that_has_no_time_left_says_that_it_is_not_exact(
    shop: Runtime, clock: ShiftedClock
) -> None:
    await crowd(clock, 40)
    hasty = Broadcasting(clock, shop.settings.model_copy(update={"operation_seconds": 1e-9}))
    found = await hasty.dry_run(read({}, "input"))
    assert not found.is_exact
    assert 0 < found.count <= shop.settings.fan_out_size


async def test_a_dry_run_asks_a_slow_database_for_less(shop: Runtime, clock: ShiftedClock) -> None:
    await crowd(clock, 40)

    async def slow(search: Search, after: str | None, size: int) -> Any:
        if size > 5:
            raise ExecutionTimeout("too much at once")
        return await members(search, after, size)

    found = await Broadcasting(clock, shop.settings, slow).dry_run(read({}, "input"))
    assert (found.count, found.is_exact) == (40, True)


async def test_a_part_of_a_large_shop_reads_no_more_than_its_part(
    shop: Runtime, clock: ShiftedClock
) -> None:
    """However many users and products there are; and no document of what they did."""
    part, views = 20, 10
    ids = await crowd(clock, 300, tags=["all"])
    lately = clock.now() - A_DAY
    await insert([(id, "view", "tent", lately) for id in ids for _ in range(views)])
    await insert([(id, "purchase", "tent", lately) for id in ids])
    await stock("Camping", "tent")
    await stock("Hiking", *map(str, range(300)))
    camping = {"withinDays": 7, "categories": ["Camping"]}
    wanted = {"tags": ["all"], "bought": camping, "viewed": camping}
    at, after = clock.now() + A_DAY, ids[149]
    idle = read(wanted | {"inactiveDays": 1}, "")
    search = await search_of(shop, idle, at)
    found, asked = await profiled(shop, members(search, after, part))
    assert found == (ids[150:170], ids[169])
    assert len(asked) >= 5
    assert max(one.get("docsExamined", 0) for one in asked) <= part
    assert max(one.get("keysExamined", 0) for one in asked) <= part * (views + 3)

    never = read({"tags": ["all"], "neverBought": True}, "")
    search = await search_of(shop, never, at)
    found, asked = await profiled(shop, members(search, after, part))
    assert found == ([], ids[169])
    assert max(one.get("keysExamined", 0) for one in asked) <= 3 * part


async def profiled(shop: Runtime, asking: Awaitable[T]) -> tuple[T, list[dict[str, Any]]]:
    """The answer, and what the database tells of the questions."""
    database = shop.store.database
    await database.drop_collection("system.profile")
    await database.command("profile", 2)
    answer = await asking
    await database.command("profile", 0)
    told = database["system.profile"].find({"op": {"$in": ["query", "command"]}})
    return answer, [one async for one in told]


async def insert(deeds: Sequence[tuple[str, str, str, datetime]]) -> None:
    rows = [
        {"event": uuid4().hex, "user_id": user, "kind": kind, "product_id": product, "at": at}
        for user, kind, product, at in deeds
    ]
    await Activity.get_pymongo_collection().insert_many(rows)


async def stock(category: str, *ids: str) -> None:
    now = datetime.now(UTC)
    rows = [Product(id=id, name=id, category=category, changed_at=now) for id in ids]
    await Product.insert_many(rows)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (5, ""),
        (None, ""),
        ({"lokales": ["de"]}, ".lokales"),
        ({"locales": []}, ".locales"),
        ({"locales": "de"}, ".locales"),
        ({"locales": ["de", "de_AT"]}, ".locales[1]"),
        ({"locales": ["de", 5]}, ".locales[1]"),
        ({"timezones": ["UTC", "Mars/Olympus"]}, ".timezones[1]"),
        ({"tags": ["vip", ""]}, ".tags[1]"),
        ({"tags": ["vip", "a\x00"]}, ".tags[1]"),
        ({"tags": ["\ud800"]}, ".tags[0]"),
        ({"tags": ["vip", " "]}, ".tags[1]"),
        ({"tags": [str(n) for n in range(101)]}, ".tags"),
        ({"createdFrom": "2026-01-01T00:00:00"}, ".createdFrom"),
        ({"createdBefore": "yesterday"}, ".createdBefore"),
        ({"createdBefore": "0001-01-01T00:00:00+14:00"}, ".createdBefore"),
        ({"accepts": {"channel": "email"}}, ".accepts"),
        ({"accepts": {"type": "sms"}}, ".accepts.type"),
        ({"accepts": {"type": "promotion", "channel": "fax"}}, ".accepts.channel"),
        ({"bought": {"category": "Hiking", "withinDays": 7}}, ".bought.category"),
        ({"bought": {"categories": ["Hiking"]}}, ".bought"),
        ({"bought": {"categories": ["Hiking", ""], "withinDays": 7}}, ".bought.categories[1]"),
        ({"viewed": {"categories": ["Hiking", " "], "withinDays": 7}}, ".viewed.categories[1]"),
        (dict.fromkeys(("createdFrom", "createdBefore"), "2026-01-01T00:00:00Z"), ".createdFrom"),
        ({"viewed": {"withinDays": 0}}, ".viewed.withinDays"),
        ({"viewed": {"withinDays": 3651}}, ".viewed.withinDays"),
        ({"neverBought": "yes"}, ".neverBought"),
        ({"inactiveDays": 0}, ".inactiveDays"),
        ({"inactiveDays": 2.5}, ".inactiveDays"),
    ],
)
def test_what_is_no_audience_is_refused_with_its_place(wrong: Any, field: str) -> None:
    with pytest.raises(BadInput) as refusal:
        read(wrong, "input.audience")
    assert refusal.value.field == f"input.audience{field}"


def test_what_is_stored_is_read_as_it_was_meant() -> None:
    written = {
        "locales": ["de"],
        "createdFrom": "2026-01-31T13:00:00+01:00",
        "tags": [" e\u0301te\u0301"],
        "accepts": {"type": "promotion", "channel": "email"},
        "viewed": {"withinDays": 7, "categories": ["Cafe\u0301 "]},
        "inactiveDays": 30,
    }
    audience = read(written, "audience")
    assert read(audience.json, "audience") == audience
    assert audience.created_from == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert (audience.tags, audience.viewed and audience.viewed.categories) == (
        ("été",),
        ("Café",),
    )
    assert audience.json.keys() == written.keys()
