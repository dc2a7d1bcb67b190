"""Quiet hours and time zones over GraphQL: kept, shown, merged, and refused with their place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.shared.errors import CannotStart
from services.shared.settings import load_settings
from tests.entry import refused
from tests.kit import (
    PASSWORD,
    GraphQLFailed,
    House,
    ShiftedClock,
    Somebody,
    open_house,
    quick_settings,
)
from tests.servers import PrivateMongod

FIELDS = "quietHours { channel action windows { days start end } } timezone version"
UPDATE = (
    f"mutation ($input: PreferencesInput!) {{ updatePreferences(input: $input) {{ {FIELDS} }} }}"
)
REGISTER = f"""mutation ($input: RegisterInput!) {{
  register(input: $input) {{ user {{ timezone preferences {{ {FIELDS} }} }} }}
}}"""
WEEK = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]
NIGHT = {"start": "22:00", "end": "07:00"}
LUNCH = {"days": ["FRIDAY", "MONDAY"], "start": "12:00", "end": "13:00"}
NIGHT_KEPT = {"days": WEEK, "start": "22:00", "end": "07:00"}
LUNCH_KEPT = {"days": ["MONDAY", "FRIDAY"], "start": "12:00", "end": "13:00"}
SHOP = "America/St_Johns"


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, shop_timezone=SHOP, max_quiet_windows=3)
    async with open_house(settings, clock) as open_:
        yield open_


async def update(somebody: Somebody, *quiet: dict[str, Any], **input: Any) -> Any:
    if quiet:
        input["quietHours"] = list(quiet)
    return (await somebody.api.ask(UPDATE, input=input))["updatePreferences"]


async def preferences(somebody: Somebody) -> Any:
    return (await somebody.api.ask(f"{{ preferences {{ {FIELDS} }} }}"))["preferences"]


def quiet(channel: str, *windows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"channel": channel, "windows": list(windows)} | more


async def register(house: House, **input: Any) -> Any:
    input = {"name": "Ada", "email": f"{uuid4().hex}@shop.example", "password": PASSWORD} | input
    return (await house.api.ask(REGISTER, input=input))["register"]["user"]


# Quiet hours


async def test_nobody_has_quiet_hours_at_first(house: House) -> None:
    assert (await preferences(await house.somebody()))["quietHours"] == []


async def test_quiet_hours_are_kept_and_shown_in_the_channels_order(house: House) -> None:
    somebody = await house.somebody()
    answer = await update(
        somebody, quiet("WEB_PUSH", NIGHT, LUNCH, action="DROP"), quiet("EMAIL", NIGHT)
    )
    assert answer["quietHours"] == [
        {"channel": "EMAIL", "action": "DEFER", "windows": [NIGHT_KEPT]},
        {"channel": "WEB_PUSH", "action": "DROP", "windows": [NIGHT_KEPT, LUNCH_KEPT]},
    ]
    assert await preferences(somebody) == answer


async def test_a_channel_that_is_named_gets_these_windows_and_the_others_keep_theirs(
    house: House,
) -> None:
    somebody = await house.somebody()
    await update(somebody, quiet("EMAIL", NIGHT, action="DROP"), quiet("WEBHOOK", NIGHT))
    answer = await update(somebody, quiet("EMAIL", LUNCH))
    assert answer["quietHours"] == [
        {"channel": "EMAIL", "action": "DEFER", "windows": [LUNCH_KEPT]},
        {"channel": "WEBHOOK", "action": "DEFER", "windows": [NIGHT_KEPT]},
    ]
    answer = await update(somebody, types=[{"type": "PROMOTION", "enabled": False}])
    assert [one["channel"] for one in answer["quietHours"]] == ["EMAIL", "WEBHOOK"]


async def test_no_windows_take_a_channels_quiet_hours_away(house: House) -> None:
    somebody = await house.somebody()
    await update(somebody, quiet("EMAIL", NIGHT), quiet("WEB_PUSH", NIGHT))
    answer = await update(somebody, quiet("EMAIL"))
    assert [one["channel"] for one in answer["quietHours"]] == ["WEB_PUSH"]
    assert await preferences(somebody) == answer


async def test_quiet_hours_count_in_the_version_of_the_preferences(house: House) -> None:
    somebody = await house.somebody()
    first = await update(somebody, quiet("EMAIL", NIGHT), version=0)
    assert first["version"] == 1
    with refused("CONFLICT"):
        await update(somebody, quiet("EMAIL"), version=0)
    assert await preferences(somebody) == first


async def test_one_may_register_with_quiet_hours(house: House) -> None:
    user = await register(house, preferences={"quietHours": [quiet("EMAIL", NIGHT)]})
    kept = [{"channel": "EMAIL", "action": "DEFER", "windows": [NIGHT_KEPT]}]
    assert user["preferences"]["quietHours"] == kept
    with refused("BAD_USER_INPUT", "input.preferences.quietHours[0].channel"):
        await register(house, preferences={"quietHours": [quiet("IN_APP", NIGHT)]})


@pytest.mark.parametrize(
    ("wishes", "place"),
    [
        ([quiet("IN_APP", NIGHT)], "[0].channel"),
        ([quiet("IN_APP")], "[0].channel"),
        ([quiet("EMAIL", NIGHT), quiet("EMAIL", LUNCH)], "[1].channel"),
        ([quiet("EMAIL", LUNCH, NIGHT | {"start": "25:00"})], "[0].windows[1].start"),
        ([quiet("WEBHOOK", NIGHT), quiet("EMAIL", NIGHT | {"end": "7"})], "[1].windows[0].end"),
        ([quiet("EMAIL", NIGHT | {"days": []})], "[0].windows[0].days"),
        ([quiet("EMAIL", *[NIGHT] * 4)], "[0].windows"),
        ([quiet("EMAIL", NIGHT, {"start": "07:00", "end": "22:00"})], "[0].windows"),
    ],
)
async def test_what_is_no_quiet_time_is_refused_with_its_place_and_changes_nothing(
    house: House, wishes: list[dict[str, Any]], place: str
) -> None:
    somebody = await house.somebody()
    before = await update(somebody, quiet("EMAIL", LUNCH))
    with refused("BAD_USER_INPUT", f"input.quietHours{place}"):
        await update(somebody, *wishes, timezone="Europe/Vienna")
    assert await preferences(somebody) == before


async def test_a_day_that_does_not_exist_is_refused_with_its_place(house: House) -> None:
    somebody = await house.somebody()
    with pytest.raises(GraphQLFailed) as failure:
        await update(somebody, quiet("EMAIL", NIGHT | {"days": ["MONDAY", "FUNDAY"]}))
    assert failure.value.code == "BAD_USER_INPUT"
    assert "'$input'" in failure.value.message
    assert ".quietHours[0].windows[0].days[1]: Value 'FUNDAY'" in failure.value.message


# Time zones


async def test_the_time_zone_is_the_users_or_else_the_shops(house: House) -> None:
    somebody = await house.somebody()
    whose = "{ me { timezone preferences { timezone } } }"
    assert await somebody.api.ask(whose) == zone_everywhere(SHOP)
    answer = await update(somebody, timezone="Asia/Kolkata")
    assert (answer["timezone"], answer["version"]) == ("Asia/Kolkata", 1)
    assert await somebody.api.ask(whose) == zone_everywhere("Asia/Kolkata")
    await update(somebody, quiet("EMAIL", NIGHT))
    assert await somebody.api.ask(whose) == zone_everywhere("Asia/Kolkata")


def zone_everywhere(zone: str) -> Any:
    return {"me": {"timezone": zone, "preferences": {"timezone": zone}}}


@pytest.mark.parametrize("zone", ["", "Mars/Olympus_Mons", "europe/vienna", "localtime", "+02:00"])
async def test_a_time_zone_that_iana_does_not_know_is_refused(house: House, zone: str) -> None:
    somebody = await house.somebody()
    with refused("BAD_USER_INPUT", "input.timezone"):
        await update(somebody, quiet("EMAIL", NIGHT), timezone=zone)
    assert (await preferences(somebody))["quietHours"] == []


async def test_who_registers_names_a_time_zone_in_one_place(house: House) -> None:
    for input in ({"timezone": "Asia/Tokyo"}, {"preferences": {"timezone": "Asia/Tokyo"}}):
        assert (await register(house, **input))["timezone"] == "Asia/Tokyo"
    with refused("BAD_USER_INPUT", "input.preferences.timezone"):
        await register(house, timezone="Asia/Tokyo", preferences={"timezone": "Asia/Tokyo"})


def test_a_shop_in_no_time_zone_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_TIMEZONE", "Mars/Olympus_Mons")
    with pytest.raises(CannotStart, match=r"SHOP_TIMEZONE.*Europe/Berlin"):
        load_settings()
