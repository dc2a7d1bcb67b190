"""Users over GraphQL: who they are, their sessions, what they want to hear, and who may do what."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.shared.vocabulary import Role
from tests.entry import refused
from tests.kit import (
    PASSWORD,
    Api,
    GraphQLFailed,
    House,
    ShiftedClock,
    Somebody,
)
from tests.servers import until

PREFERENCES = "types { type enabled channels { channel enabled locked } } version"
SESSION = "accessToken refreshToken expiresAt user { id name email role locale timezone createdAt }"
REGISTER = f"mutation ($input: RegisterInput!) {{ register(input: $input) {{ {SESSION} }} }}"
LOGIN = f"mutation ($input: LoginInput!) {{ login(input: $input) {{ {SESSION} }} }}"
REFRESH = f"mutation ($token: String!) {{ refreshSession(refreshToken: $token) {{ {SESSION} }} }}"
ME = f"{{ me {{ id name email role locale timezone preferences {{ {PREFERENCES} }} }} }}"
UPDATE = f"""mutation ($input: PreferencesInput!) {{
  updatePreferences(input: $input) {{ {PREFERENCES} }}
}}"""
TRACK = "mutation ($input: ActivityInput!) { trackActivity(input: $input) }"
INBOX = "{ notifications { edges { node { type title } } } }"
PROMOTIONS_OFF = {"types": [{"type": "PROMOTION", "enabled": False}]}
CHANNELS = ["IN_APP", "EMAIL", "WEB_PUSH", "WEBHOOK"]
TYPES = ["ORDER_UPDATE", "PROMOTION", "RECOMMENDATION"]
ON_BY_DEFAULT = {
    "ORDER_UPDATE": ["IN_APP", "EMAIL", "WEB_PUSH"],
    "PROMOTION": ["IN_APP"],
    "RECOMMENDATION": ["IN_APP"],
}


def new_email() -> str:
    return f"{uuid4().hex}@shop.example"


async def register(house: House, **changes: Any) -> Any:
    input = {"name": "Ada", "email": new_email(), "password": PASSWORD} | changes
    return (await house.api.ask(REGISTER, input=input))["register"]


async def log_in(house: House, email: str, password: str = PASSWORD) -> Any:
    input = {"email": email, "password": password}
    return (await house.api.ask(LOGIN, input=input))["login"]


async def refresh(house: House, token: str) -> Any:
    return (await house.api.ask(REFRESH, token=token))["refreshSession"]


async def update(somebody: Somebody, *types: dict[str, Any], version: int | None = None) -> Any:
    input: dict[str, Any] = {"types": list(types)}
    if version is not None:
        input["version"] = version
    return (await somebody.api.ask(UPDATE, input=input))["updatePreferences"]


async def preferences(somebody: Somebody) -> Any:
    return (await somebody.api.ask(f"{{ preferences {{ {PREFERENCES} }} }}"))["preferences"]


def channel(type_: str, channel: str, enabled: bool) -> dict[str, Any]:
    return {"type": type_, "channels": [{"channel": channel, "enabled": enabled}]}


def chosen(preferences: Any) -> set[tuple[str, str]]:
    """Every (type, channel) that is on."""
    return {
        (entry["type"], one["channel"])
        for entry in preferences["types"]
        for one in entry["channels"]
        if one["enabled"]
    }


async def titles(api: Api) -> list[str]:
    page = (await api.ask(INBOX))["notifications"]
    return [edge["node"]["title"] for edge in page["edges"]]


# Registering


async def test_whoever_registers_is_a_user_and_logged_in(house: House, clock: ShiftedClock) -> None:
    before = clock.now()
    session = await register(house, name="  Ada Lovelace ")
    user = session["user"]
    assert user["name"] == "Ada Lovelace"
    assert (user["role"], user["locale"], user["timezone"]) == ("USER", "en", "UTC")
    created = datetime.fromisoformat(user["createdAt"])
    assert abs(created - before) < timedelta(minutes=1)
    life = datetime.fromisoformat(session["expiresAt"]) - before
    assert timedelta(minutes=14) < life < timedelta(minutes=16)
    me = (await house.api.as_(session["accessToken"]).ask(ME))["me"]
    assert me["id"] == user["id"]
    assert me["email"] == user["email"]


async def test_locale_and_timezone_are_kept(house: House) -> None:
    session = await register(house, locale="de-AT", timezone="Europe/Vienna")
    me = (await house.api.as_(session["accessToken"]).ask(ME))["me"]
    assert (me["locale"], me["timezone"]) == ("de-AT", "Europe/Vienna")


async def test_one_may_register_with_preferences(house: House) -> None:
    wishes = {
        "types": [channel("PROMOTION", "EMAIL", True), channel("ORDER_UPDATE", "WEB_PUSH", False)]
    }
    session = await register(house, preferences=wishes)
    me = (await house.api.as_(session["accessToken"]).ask(ME))["me"]
    assert chosen(me["preferences"]) == {
        ("ORDER_UPDATE", "IN_APP"),
        ("ORDER_UPDATE", "EMAIL"),
        ("PROMOTION", "IN_APP"),
        ("PROMOTION", "EMAIL"),
        ("RECOMMENDATION", "IN_APP"),
    }


async def test_nobody_registers_with_a_locked_channel_off(house: House) -> None:
    email = new_email()
    with refused("BAD_USER_INPUT", "input.preferences.types[0].channels[0].enabled"):
        wishes = {"types": [channel("ORDER_UPDATE", "IN_APP", False)]}
        await register(house, email=email, preferences=wishes)
    await register(house, email=email)


async def test_an_email_is_normalised_and_its_case_does_not_matter(house: House) -> None:
    name = uuid4().hex
    session = await register(house, email=f"  {name}.Ada@Shop.EXAMPLE ")
    assert session["user"]["email"] == f"{name}.Ada@shop.example"
    for spelling in (f"{name}.ada@shop.example", f" {name.upper()}.ADA@SHOP.example "):
        assert (await log_in(house, spelling))["user"]["id"] == session["user"]["id"]
        with refused("CONFLICT"):
            await register(house, email=spelling)


async def test_an_international_address_logs_in_in_both_its_spellings(house: House) -> None:
    name = uuid4().hex
    session = await register(house, email=f"{name}@xn--bcher-kva.example")
    assert session["user"]["email"] == f"{name}@bücher.example"
    for spelling in (f"{name}@bücher.example", f"{name}@XN--bcher-kva.example"):
        assert (await log_in(house, spelling))["user"]["id"] == session["user"]["id"]


async def test_of_many_who_register_one_email_at_once_one_gets_it(house: House) -> None:
    email = new_email()
    attempts = await asyncio.gather(
        *(register(house, email=email) for _ in range(5)), return_exceptions=True
    )
    failures = [one for one in attempts if isinstance(one, GraphQLFailed)]
    assert [failure.code for failure in failures] == ["CONFLICT"] * 4


async def test_a_newcomer_is_welcomed(house: House) -> None:
    session = await register(house, name="Grace")
    api = house.api.as_(session["accessToken"])
    await until(lambda: titles(api))
    assert await titles(api) == ["Welcome, Grace!"]


async def test_who_registers_with_promotions_off_is_not_welcomed(house: House) -> None:
    silent = await register(house, preferences=PROMOTIONS_OFF)
    api = house.api.as_(silent["accessToken"])
    later = await house.somebody()
    await until(lambda: titles(later.api))  # a welcome that is behind in the same queue
    service = await house.somebody(Role.SERVICE)
    await publish_order_status(service, silent["user"]["id"], "shipped")
    await until(lambda: titles(api))
    assert await titles(api) == ["Order 7 is on its way"]


async def publish_order_status(service: Somebody, user_id: str, status: str) -> None:
    await service.api.ask(
        "mutation ($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }",
        input={"orderId": "7", "userId": user_id, "status": status},
    )


# Sessions


async def test_a_login_opens_a_session_of_its_own(house: House) -> None:
    somebody = await house.somebody()
    first, second = await log_in(house, somebody.email), await log_in(house, somebody.email)
    assert first["accessToken"] != second["accessToken"]
    assert first["refreshToken"] != second["refreshToken"]
    for session in (first, second):
        assert (await house.api.as_(session["accessToken"]).ask(ME))["me"]["id"] == somebody.id


async def test_a_wrong_password_opens_nothing(house: House) -> None:
    somebody = await house.somebody()
    for wrong in (PASSWORD.upper(), PASSWORD + " ", PASSWORD[:-1], ""):
        with refused("UNAUTHENTICATED"):
            await log_in(house, somebody.email, wrong)


async def test_all_of_a_long_password_counts(house: House) -> None:
    email, long = new_email(), "ü" * 255
    await register(house, email=email, password=long + "a")
    with refused("UNAUTHENTICATED"):
        await log_in(house, email, long + "b")
    await log_in(house, email, long + "a")


async def test_a_refresh_token_buys_new_tokens_for_the_same_user(house: House) -> None:
    somebody = await house.somebody()
    session = await refresh(house, somebody.tokens["refreshToken"])
    assert session["user"]["id"] == somebody.id
    assert session["refreshToken"] != somebody.tokens["refreshToken"]
    assert (await house.api.as_(session["accessToken"]).ask(ME))["me"]["id"] == somebody.id
    again = await refresh(house, session["refreshToken"])
    assert again["user"]["id"] == somebody.id


async def test_a_refresh_token_that_is_used_twice_ends_the_session(house: House) -> None:
    somebody = await house.somebody()
    session = await refresh(house, somebody.tokens["refreshToken"])
    with refused("UNAUTHENTICATED"):
        await refresh(house, somebody.tokens["refreshToken"])
    with refused("UNAUTHENTICATED"):
        await refresh(house, session["refreshToken"])
    for token in (somebody.tokens["accessToken"], session["accessToken"]):
        with refused("UNAUTHENTICATED"):
            await house.api.as_(token).ask(ME)
    await log_in(house, somebody.email)


async def test_guessing_at_somebody_elses_session_does_not_end_it(house: House) -> None:
    somebody = await house.somebody()
    session_id = somebody.tokens["refreshToken"].split(".")[0]
    for guess in ("", "a guess"):
        with refused("UNAUTHENTICATED"):
            await refresh(house, f"{session_id}.{guess}")
    assert (await somebody.api.ask(ME))["me"]["id"] == somebody.id
    await refresh(house, somebody.tokens["refreshToken"])


async def test_a_refresh_token_works_once_however_many_use_it_at_once(house: House) -> None:
    somebody = await house.somebody()
    attempts = await asyncio.gather(
        *(refresh(house, somebody.tokens["refreshToken"]) for _ in range(6)), return_exceptions=True
    )
    failures = [one for one in attempts if isinstance(one, GraphQLFailed)]
    assert [failure.code for failure in failures] == ["UNAUTHENTICATED"] * 5


async def test_logout_ends_this_session_and_no_other(house: House) -> None:
    somebody = await house.somebody()
    other = await log_in(house, somebody.email)
    assert (await somebody.api.ask("mutation { logout }"))["logout"] is True
    with refused("UNAUTHENTICATED"):
        await somebody.api.ask(ME)
    with refused("UNAUTHENTICATED"):
        await refresh(house, somebody.tokens["refreshToken"])
    assert (await house.api.as_(other["accessToken"]).ask(ME))["me"]["id"] == somebody.id


async def test_each_refresh_lengthens_the_session(house: House, clock: ShiftedClock) -> None:
    somebody = await house.somebody()
    token = somebody.tokens["refreshToken"]
    for days in (29, 58, 87):
        with clock.moved(timedelta(days=days)):
            session = await refresh(house, token)
            assert (await house.api.as_(session["accessToken"]).ask(ME))["me"]["id"] == somebody.id
            token = session["refreshToken"]
    with clock.moved(timedelta(days=87 + 31)), refused("UNAUTHENTICATED"):
        await refresh(house, token)


# Preferences


async def test_preferences_show_every_type_and_channel_in_order_with_their_defaults(
    house: House,
) -> None:
    assert await preferences(await house.somebody()) == {
        "types": [
            {
                "type": type_,
                "enabled": True,
                "channels": [
                    {
                        "channel": channel,
                        "enabled": channel in ON_BY_DEFAULT[type_],
                        "locked": (type_, channel) == ("ORDER_UPDATE", "IN_APP"),
                    }
                    for channel in CHANNELS
                ],
            }
            for type_ in TYPES
        ],
        "version": 0,
    }


async def test_an_update_leaves_alone_what_it_does_not_name(house: House) -> None:
    somebody = await house.somebody()
    before = chosen(await preferences(somebody))
    await update(somebody, channel("PROMOTION", "EMAIL", True))
    await update(somebody, {"type": "PROMOTION", "enabled": False})
    await update(somebody, channel("RECOMMENDATION", "WEBHOOK", True), {"type": "ORDER_UPDATE"})
    await update(somebody)
    after = await preferences(somebody)
    assert chosen(after) == before | {("PROMOTION", "EMAIL"), ("RECOMMENDATION", "WEBHOOK")}
    assert [entry["enabled"] for entry in after["types"]] == [True, False, True]


async def test_what_was_switched_off_can_be_switched_on_again(house: House) -> None:
    somebody = await house.somebody()
    before = await preferences(somebody)
    await update(somebody, {"type": "PROMOTION", "enabled": False})
    await update(somebody, channel("RECOMMENDATION", "IN_APP", False))
    await update(somebody, {"type": "PROMOTION", "enabled": True})
    answer = await update(somebody, channel("RECOMMENDATION", "IN_APP", True))
    assert answer["types"] == before["types"]
    assert answer == await preferences(somebody)


async def test_the_version_rises_with_every_update(house: House) -> None:
    somebody = await house.somebody()
    versions = [
        (await update(somebody, channel("PROMOTION", "EMAIL", True)))["version"] for _ in "12"
    ]
    assert versions == [1, 2]


async def test_an_update_of_an_old_version_is_a_conflict_and_changes_nothing(house: House) -> None:
    somebody = await house.somebody()
    first = await update(somebody, channel("PROMOTION", "EMAIL", True), version=0)
    with refused("CONFLICT"):
        await update(somebody, channel("PROMOTION", "WEBHOOK", True), version=0)
    assert await preferences(somebody) == first
    await update(somebody, channel("PROMOTION", "WEBHOOK", True), version=first["version"])


async def test_of_updates_of_one_version_at_once_one_wins(house: House) -> None:
    somebody = await house.somebody()
    attempts = await asyncio.gather(
        *(update(somebody, channel("PROMOTION", name, True), version=0) for name in CHANNELS),
        return_exceptions=True,
    )
    failures = [one for one in attempts if isinstance(one, GraphQLFailed)]
    assert [failure.code for failure in failures] == ["CONFLICT"] * 3
    assert (await preferences(somebody))["version"] == 1


async def test_updates_at_once_lose_nothing(house: House) -> None:
    somebody = await house.somebody()
    everything = [(type_, name) for type_ in TYPES for name in CHANNELS]
    await asyncio.gather(*(update(somebody, channel(*place, True)) for place in everything))
    after = await preferences(somebody)
    assert chosen(after) == set(everything)
    assert after["version"] == len(everything)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (channel("ORDER_UPDATE", "IN_APP", False), "input.types[1].channels[0].enabled"),
        ({"type": "ORDER_UPDATE", "enabled": False}, "input.types[1].enabled"),
    ],
    ids=["the channel", "the whole type"],
)
async def test_what_is_locked_stays_on(house: House, change: dict[str, Any], field: str) -> None:
    somebody = await house.somebody()
    before = await preferences(somebody)
    with refused("BAD_USER_INPUT", field):
        await update(somebody, channel("PROMOTION", "EMAIL", True), change)
    assert await preferences(somebody) == before


# Activity


async def test_activity_is_kept_for_whom_it_is_told_of(house: House) -> None:
    """A product that somebody bought is not recommended to them any more, and still to others."""
    service, shopper = await house.somebody(Role.SERVICE), await house.somebody()
    customers = [await house.somebody() for _ in range(3)]
    product = await popular_product(service, shopper)
    for customer in customers:
        await until(lambda one=customer: _is_recommended(one, product))  # type: ignore[misc]
    own, told, neither = customers
    bought = {"kind": "PURCHASE", "productId": product}
    assert (await own.api.ask(TRACK, input=bought))["trackActivity"] is True
    assert (await service.api.ask(TRACK, input=bought | {"userId": told.id}))["trackActivity"]
    assert not await _is_recommended(own, product)
    assert not await _is_recommended(told, product)
    assert await _is_recommended(neither, product)


async def popular_product(service: Somebody, shopper: Somebody) -> str:
    product = uuid4().hex
    await service.api.ask(
        "mutation ($input: ProductInput!) { publishProduct(input: $input) { eventId } }",
        input={"productId": product, "name": "Trail Shoes", "category": product},
    )
    await shopper.api.ask(TRACK, input={"kind": "PURCHASE", "productId": product})
    return product


async def _is_recommended(somebody: Somebody, product: str) -> bool:
    answer = await somebody.api.ask("{ recommendations(first: 20) { productId } }")
    return product in [one["productId"] for one in answer["recommendations"]]


async def test_activity_of_nobody_is_not_found(house: House) -> None:
    admin = await house.somebody(Role.ADMIN)
    with refused("NOT_FOUND"):
        input = {"kind": "VIEW", "productId": "1", "userId": "000000000000000000000000"}
        await admin.api.ask(TRACK, input=input)


# Backends


async def test_a_backend_sees_any_user_and_null_for_nobody(house: House) -> None:
    other = await house.somebody()
    document = "query ($id: ID!) { user(id: $id) { id email preferences { version } } }"
    for role in (Role.SERVICE, Role.ADMIN):
        api = (await house.somebody(role)).api
        found = (await api.ask(document, id=other.id))["user"]
        assert (found["id"], found["email"]) == (other.id, other.email)
        for nobody in ("000000000000000000000000", "x", ""):
            assert (await api.ask(document, id=nobody))["user"] is None
