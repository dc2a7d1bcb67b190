"""Consent to marketing outside the app: given, withdrawn, recorded, and asked for in decisions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.shared.errors import Unavailable
from services.shared.events import Event, PreferencesChanged
from services.shared.outbox import Outbox
from services.shared.store import Session
from services.shared.vocabulary import Channel, NotificationType, Role
from services.users.choosing import Choosing
from services.users.consent import Consent
from services.users.models import object_id
from services.users.preferences import Wishes
from tests.entry import refused
from tests.kit import PASSWORD, House, ShiftedClock, Somebody, open_house, quick_settings
from tests.servers import PrivateMongod

MOST_RECORDS = 3
FIELDS = "version types { type enabled channels { channel enabled consent { at source } } }"
REGISTER = f"""mutation ($input: RegisterInput!) {{
  register(input: $input) {{ user {{ id preferences {{ {FIELDS} }} }} }} }}"""
UPDATE = (
    f"mutation ($input: PreferencesInput!) {{ updatePreferences(input: $input) {{ {FIELDS} }} }}"
)
RECORD = f"mutation ($input: RecordConsentInput!) {{ recordConsent(input: $input) {{ {FIELDS} }} }}"
RECORDS = """query ($user: ID) {
  consents(userId: $user) { type channel given at source recordedAt recordedBy } }"""
DRY_RUN = """query ($user: ID!, $type: NotificationType!, $channel: Channel!) {
  decideDryRun(userId: $user, type: $type, channel: $channel) {
    outcome reason steps { rule spoke words } } }"""
PROMOTION, EMAIL = NotificationType.PROMOTION, Channel.EMAIL


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, max_consent_records=MOST_RECORDS)
    async with open_house(settings, clock) as open_:
        yield open_


@pytest.fixture(scope="module")
async def shop(house: House) -> Somebody:
    return await house.somebody(Role.SERVICE)


@pytest.fixture(scope="module")
async def admin(house: House) -> Somebody:
    return await house.somebody(Role.ADMIN)


@pytest.fixture
async def ada(house: House) -> Somebody:
    return await house.somebody()


async def switch(somebody: Somebody, *places: tuple[str, str], on: bool) -> Any:
    types = [
        {"type": type_, "channels": [{"channel": channel, "enabled": on}]}
        for type_, channel in places
    ]
    return (await somebody.api.ask(UPDATE, input={"types": types}))["updatePreferences"]


async def preferences(somebody: Somebody) -> Any:
    return (await somebody.api.ask(f"{{ preferences {{ {FIELDS} }} }}"))["preferences"]


async def record(shop: Somebody, user_id: str, said_at: datetime, **changes: Any) -> Any:
    input = {
        "userId": user_id,
        "channel": "EMAIL",
        "types": ["PROMOTION"],
        "at": said_at.isoformat(),
        "source": "checkout 2026-11",
    } | changes
    return (await shop.api.ask(RECORD, input=input))["recordConsent"]


async def records(somebody: Somebody, user_id: str | None = None) -> Any:
    return (await somebody.api.ask(RECORDS, user=user_id))["consents"]


async def decided(admin: Somebody, user_id: str, type_: str, channel: str) -> Any:
    asked = {"user": user_id, "type": type_, "channel": channel}
    return (await admin.api.ask(DRY_RUN, **asked))["decideDryRun"]


def entry(preferences: Any, type_: str = "PROMOTION", channel: str = "EMAIL") -> Any:
    [of_type] = [one for one in preferences["types"] if one["type"] == type_]
    [found] = [one for one in of_type["channels"] if one["channel"] == channel]
    return found


def consents(preferences: Any) -> dict[tuple[str, str], str]:
    """The source of each that is given."""
    return {
        (of_type["type"], one["channel"]): one["consent"]["source"]
        for of_type in preferences["types"]
        for one in of_type["channels"]
        if one["consent"]
    }


def acts(records: Any) -> list[tuple[bool, str]]:
    return [(one["given"], one["source"]) for one in records]


# By users themselves


async def test_to_switch_marketing_on_outside_the_app_is_to_give_consent_to_it(
    house: House, ada: Somebody, admin: Somebody, clock: ShiftedClock
) -> None:
    with clock.stopped():
        answer = await switch(ada, ("PROMOTION", "EMAIL"), on=True)
        now = clock.now().isoformat()
    assert entry(answer)["consent"] == {"at": now, "source": "preferences"}
    assert consents(await preferences(ada)) == {("PROMOTION", "EMAIL"): "preferences"}
    assert await records(ada) == [
        {
            "type": "PROMOTION",
            "channel": "EMAIL",
            "given": True,
            "at": now,
            "source": "preferences",
            "recordedAt": now,
            "recordedBy": ada.id,
        }
    ]
    assert (await decided(admin, ada.id, "PROMOTION", "EMAIL"))["outcome"] == "SENT"
    assert await records(await house.somebody()) == []


async def test_who_registers_may_give_consent_at_once(house: House) -> None:
    push = [{"channel": "WEB_PUSH", "enabled": True}]
    wishes = {"types": [{"type": "RECOMMENDATION", "channels": push}]}
    input = {"name": "Ada", "email": f"{uuid4().hex}@shop.example", "password": PASSWORD}
    answer = await house.api.ask(REGISTER, input={**input, "preferences": wishes})
    user = answer["register"]["user"]
    assert consents(user["preferences"]) == {("RECOMMENDATION", "WEB_PUSH"): "registration"}
    [one] = await records(await house.somebody(Role.ADMIN), user["id"])
    assert (one["source"], one["recordedBy"]) == ("registration", user["id"])


async def test_to_switch_it_off_is_to_withdraw_it(
    ada: Somebody, admin: Somebody, clock: ShiftedClock
) -> None:
    await switch(ada, ("PROMOTION", "EMAIL"), ("PROMOTION", "WEB_PUSH"), on=True)
    with clock.moved(timedelta(seconds=1)):
        answer = await switch(ada, ("PROMOTION", "EMAIL"), on=False)
    assert consents(answer) == {("PROMOTION", "WEB_PUSH"): "preferences"}
    about_mail = [one for one in await records(ada) if one["channel"] == "EMAIL"]
    assert acts(about_mail) == [(False, "preferences"), (True, "preferences")]
    assert (await decided(admin, ada.id, "PROMOTION", "EMAIL"))["reason"] == "CHANNEL_OFF"


async def test_what_stands_is_not_said_again(ada: Somebody, clock: ShiftedClock) -> None:
    first = await switch(ada, ("PROMOTION", "EMAIL"), on=True)
    with clock.moved(timedelta(minutes=1)):
        again = await switch(ada, ("PROMOTION", "EMAIL"), on=True)
    assert entry(again) == entry(first)
    assert len(await records(ada)) == 1


async def test_of_several_wishes_about_one_channel_the_last_one_counts(ada: Somebody) -> None:
    both = [{"channel": "EMAIL", "enabled": enabled} for enabled in (True, False)]
    types = [{"type": "PROMOTION", "channels": both}]
    answer = (await ada.api.ask(UPDATE, input={"types": types}))["updatePreferences"]
    assert (entry(answer)["enabled"], consents(answer)) == (False, {})
    assert acts(await records(ada)) == [(False, "preferences")]


async def test_what_is_no_marketing_and_the_app_need_no_consent(
    ada: Somebody, admin: Somebody
) -> None:
    places = [("ORDER_UPDATE", "WEBHOOK"), ("PROMOTION", "IN_APP")]
    answer = await switch(ada, *places, on=True)
    assert consents(answer) == {}
    assert await records(ada) == []
    for type_, channel in places:
        found = await decided(admin, ada.id, type_, channel)
        assert (found["outcome"], found["reason"]) == ("SENT", "ACCEPTED")
        assert {"rule": "CONSENT", "spoke": False, "words": "It needs no consent of yours."} in (
            found["steps"]
        )


async def test_a_wish_that_is_refused_is_no_consent(ada: Somebody) -> None:
    mail = {"type": "PROMOTION", "channels": [{"channel": "EMAIL", "enabled": True}]}
    locked = {"type": "ORDER_UPDATE", "enabled": False}
    with refused("BAD_USER_INPUT", "input.types[1].enabled"):
        await ada.api.ask(UPDATE, input={"types": [mail, locked]})
    with refused("CONFLICT"):
        await ada.api.ask(UPDATE, input={"types": [mail], "version": 7})
    assert await records(ada) == []
    assert consents(await preferences(ada)) == {}


async def test_wishes_at_once_lose_no_consent(ada: Somebody) -> None:
    places = [
        (type_, channel)
        for type_ in ("PROMOTION", "RECOMMENDATION")
        for channel in ("EMAIL", "WEB_PUSH", "WEBHOOK")
    ]
    await asyncio.gather(*(switch(ada, place, on=True) for place in places))
    assert set(consents(await preferences(ada))) == set(places)
    assert len(await records(ada)) == len(places)


async def test_switching_a_type_off_and_on_leaves_its_channels_as_they_are(ada: Somebody) -> None:
    await switch(ada, ("PROMOTION", "EMAIL"), on=True)
    for enabled in (False, True):
        types = [{"type": "PROMOTION", "enabled": enabled}]
        answer = (await ada.api.ask(UPDATE, input={"types": types}))["updatePreferences"]
        assert consents(answer) == {("PROMOTION", "EMAIL"): "preferences"}
    assert len(await records(ada)) == 1


# Stored before there was consent


async def stored_before(house: House, somebody: Somebody, enabled: bool) -> None:
    """As by a version that knew of no consent."""
    choices = {"promotion": {"enabled": None, "channels": {"email": enabled}}}
    update = {"$set": {"choices": choices}, "$unset": {"consents": ""}}
    users = house.runtime.store.database["users"]
    await users.update_one({"_id": object_id(somebody.id)}, update)


async def test_a_channel_that_was_on_before_is_no_consent(
    house: House, ada: Somebody, admin: Somebody
) -> None:
    await stored_before(house, ada, enabled=True)
    assert entry(await preferences(ada)) == {"channel": "EMAIL", "enabled": True, "consent": None}
    found = await decided(admin, ada.id, "PROMOTION", "EMAIL")
    assert (found["outcome"], found["reason"]) == ("SUPPRESSED", "NO_CONSENT")
    words = "You have not agreed to get promotions by email."
    assert found["steps"][-1] == {"rule": "CONSENT", "spoke": True, "words": words}
    await switch(ada, ("PROMOTION", "EMAIL"), on=True)
    found = await decided(admin, ada.id, "PROMOTION", "EMAIL")
    assert found["outcome"] == "SENT"
    words = "You agreed to get promotions by email."
    assert {"rule": "CONSENT", "spoke": False, "words": words} in found["steps"]


async def test_a_channel_that_was_off_before_is_switched_on_by_nobody_else(
    house: House, shop: Somebody, ada: Somebody, clock: ShiftedClock
) -> None:
    await stored_before(house, ada, enabled=False)
    with refused("CONFLICT"):
        await record(shop, ada.id, clock.now())
    await record(shop, ada.id, clock.now(), given=False)
    await switch(ada, ("PROMOTION", "EMAIL"), on=True)
    assert consents(await preferences(ada)) == {("PROMOTION", "EMAIL"): "preferences"}


# By a backend


async def test_a_backend_records_what_was_said_elsewhere_and_when(
    shop: Somebody, ada: Somebody, admin: Somebody, clock: ShiftedClock
) -> None:
    said_at = clock.now() - timedelta(days=3)
    with clock.stopped():
        answer = await record(shop, ada.id, said_at, types=["PROMOTION", "RECOMMENDATION"])
        now = clock.now().isoformat()
    assert answer["version"] == 1
    for type_ in ("PROMOTION", "RECOMMENDATION"):
        assert entry(answer, type_) == {
            "channel": "EMAIL",
            "enabled": True,
            "consent": {"at": said_at.isoformat(), "source": "checkout 2026-11"},
        }
        assert (await decided(admin, ada.id, type_, "EMAIL"))["outcome"] == "SENT"
        assert (await decided(admin, ada.id, type_, "WEB_PUSH"))["outcome"] == "SUPPRESSED"
    for one in await records(shop, ada.id):
        assert (one["at"], one["recordedAt"]) == (said_at.isoformat(), now)
        assert (one["given"], one["recordedBy"]) == (True, shop.id)


async def test_a_record_that_comes_again_changes_nothing_and_a_later_one_renews_it(
    shop: Somebody, ada: Somebody, clock: ShiftedClock
) -> None:
    said_at = clock.now() - timedelta(days=3)
    first = await record(shop, ada.id, said_at)
    for at in (said_at, said_at - timedelta(days=1)):
        assert await record(shop, ada.id, at, source="anything") == first
    assert len(await records(ada)) == 1
    later = said_at + timedelta(days=1)
    renewed = await record(shop, ada.id, later, source="checkout 2026-12")
    assert entry(renewed)["consent"] == {"at": later.isoformat(), "source": "checkout 2026-12"}
    assert len(await records(ada)) == 2


async def test_a_backend_records_that_consent_was_withdrawn(
    shop: Somebody, ada: Somebody, clock: ShiftedClock
) -> None:
    await switch(ada, ("PROMOTION", "EMAIL"), on=True)
    for _ in "12":
        answer = await record(shop, ada.id, clock.now(), given=False, source="phone call")
        assert (entry(answer)["enabled"], consents(answer), answer["version"]) == (False, {}, 2)
    assert acts(await records(ada)) == [(False, "phone call"), (True, "preferences")]


@pytest.mark.parametrize("given", [True, False])
async def test_the_users_later_word_counts(
    shop: Somebody, ada: Somebody, clock: ShiftedClock, given: bool
) -> None:
    before = clock.now() - timedelta(minutes=1)
    await switch(ada, ("PROMOTION", "EMAIL"), on=not given)
    standing = await preferences(ada)
    with refused("CONFLICT"):
        await record(shop, ada.id, before, given=given, types=["RECOMMENDATION", "PROMOTION"])
    assert await preferences(ada) == standing
    assert len(await records(ada)) == 1
    assert entry(await record(shop, ada.id, clock.now(), given=given))["enabled"] is given


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"channel": "IN_APP"}, "input.channel"),
        ({"types": []}, "input.types"),
        ({"types": ["PROMOTION", "ORDER_UPDATE"]}, "input.types[1]"),
        ({"at": "2026-01-01T00:00:00"}, "input.at"),
        ({"at": "2126-01-01T00:00:00Z"}, "input.at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "input.at"),
        ({"source": "  "}, "input.source"),
        ({"source": "s" * 101}, "input.source"),
        ({"source": "a\0b"}, "input.source"),
        ({"source": "Preferences "}, "input.source"),
        ({"source": "one-click"}, "input.source"),
    ],
)
async def test_what_is_no_record_of_consent_is_refused_with_its_place(
    shop: Somebody, ada: Somebody, clock: ShiftedClock, changes: dict[str, Any], field: str
) -> None:
    with refused("BAD_USER_INPUT", field):
        await record(shop, ada.id, clock.now(), **changes)
    assert (await preferences(ada))["version"] == 0


async def test_nobody_consents_who_is_not_there(shop: Somebody, clock: ShiftedClock) -> None:
    for nobody in ("000000000000000000000000", "x"):
        with refused("NOT_FOUND"):
            await record(shop, nobody, clock.now())
        assert await records(shop, nobody) == []


async def test_a_backends_clock_may_be_a_little_fast(
    shop: Somebody, ada: Somebody, clock: ShiftedClock
) -> None:
    with clock.stopped():
        answer = await record(shop, ada.id, clock.now() + timedelta(seconds=30))
        assert entry(answer)["consent"]["at"] == clock.now().isoformat()


@pytest.mark.parametrize("seconds", [5, 55, 65])
async def test_a_call_that_is_repeated_by_a_backend_with_a_fast_clock_renews_nothing(
    shop: Somebody, ada: Somebody, clock: ShiftedClock, seconds: int
) -> None:
    said_at = clock.now() + timedelta(seconds=50)
    first = await record(shop, ada.id, said_at)
    with clock.moved(timedelta(seconds=seconds)):
        assert await record(shop, ada.id, said_at) == first
    assert len(await records(ada)) == 1


async def test_a_type_that_is_named_twice_is_recorded_once(
    shop: Somebody, ada: Somebody, clock: ShiftedClock
) -> None:
    await record(shop, ada.id, clock.now(), types=["PROMOTION", "PROMOTION"])
    assert len(await records(ada)) == 1


# The record


async def test_the_oldest_records_about_a_channel_are_forgotten_and_others_stay(
    ada: Somebody,
) -> None:
    await switch(ada, ("PROMOTION", "WEB_PUSH"), on=True)
    for number in range(MOST_RECORDS + 2):
        await switch(ada, ("PROMOTION", "EMAIL"), on=number % 2 == 0)
    kept = await records(ada)
    assert [one["channel"] for one in kept] == ["EMAIL"] * MOST_RECORDS + ["WEB_PUSH"]
    assert [one["given"] for one in kept] == [True, False, True, True]


class Heard(Outbox):
    """An outbox that remembers what was put into it."""

    events: Sequence[Event] = ()

    async def put(self, events: Sequence[Event], session: Session, **more: Any) -> None:
        self.events = [*self.events, *events]
        await super().put(events, session, **more)


async def test_whoever_changes_consent_tells_of_changed_preferences(
    house: House, ada: Somebody, clock: ShiftedClock
) -> None:
    runtime = house.runtime
    heard = Heard(runtime.bus, clock, runtime.settings)
    choosing = Choosing(runtime.store, heard, clock, runtime.settings)
    said = Consent(given=True, at=clock.now() - timedelta(days=1), source="a form")
    for _ in "12":
        await choosing.record_consent(ada.id, EMAIL, [PROMOTION], said, "somebody")
    for _ in "12":
        await choosing.unsubscribe(ada.id, EMAIL, [PROMOTION])
    told = [event.read(PreferencesChanged) for event in heard.events]
    assert told == [PreferencesChanged(user_id=ada.id, version=version) for version in (1, 2)]


async def test_to_withdraw_consent_waits_for_no_broker(
    house: House, ada: Somebody, clock: ShiftedClock
) -> None:
    runtime = house.runtime
    full = Outbox(runtime.bus, clock, runtime.settings.model_copy(update={"outbox_limit": 0}))
    choosing = Choosing(runtime.store, full, clock, runtime.settings)
    await switch(ada, ("PROMOTION", "EMAIL"), on=True)
    with pytest.raises(Unavailable):
        await choosing.update_preferences(ada.id, Wishes(), None)
    await choosing.unsubscribe(ada.id, EMAIL, [PROMOTION])
    assert entry(await preferences(ada))["enabled"] is False
