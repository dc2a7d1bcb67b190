"""Texts as an admin changes them through GraphQL, and what customers then get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from services.notifications.samples import SAMPLES
from services.notifications.templates import Text, order_text, shipped
from services.notifications.wording import Texts, Wish
from services.shared.errors import BadInput
from services.shared.events import OrderStatusChanged
from services.shared.vocabulary import Role
from services.users.models import User
from tests.kit import GraphQLFailed, House, Somebody, open_house, quick_settings
from tests.notices import Asker, Wire, create, nodes, refused, wired
from tests.servers import PrivateMongod, until

FIELDS = "name locale title body overridden version changedAt sample"
LIST = f"{{ textTemplates {{ {FIELDS} }} }}"
SAVE = f"""mutation($input: SaveTextTemplateInput!) {{
    saveTextTemplate(input: $input) {{ {FIELDS} }} }}"""
PREVIEW = """query($input: TextTemplateInput!) {
    previewTextTemplate(input: $input) { title body } }"""
RESET = (
    "mutation($name: String!, $locale: String!) { resetTextTemplate(name: $name, locale: $locale) }"
)
ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
SCHEDULE = """mutation($input: ScheduleNotificationInput!) {
    scheduleNotification(input: $input) { outcome } }"""
PROMOTE = "mutation($input: PromotionInput!) { publishPromotion(input: $input) { eventId } }"
DETAILS = {"total": "1249.90", "currency": "EUR", "expectedAt": "2026-03-28T23:30:00Z"}
AT = Text("{{ order.details.expectedAt | time }}", "")
SHIPPED_DE = ("Bestellung A-1 ist unterwegs", "Ihr Paket hat unser Lager verlassen.")
SHIPPED_EN = ("Order A-1 is on its way", "Your parcel has left our warehouse.")


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, text_cache_seconds=0.1)) as open_:
        yield open_


@pytest.fixture
async def admin(house: House) -> AsyncIterator[Wire]:
    """An admin who leaves the texts as they are shipped."""
    async with wired(await house.somebody(Role.ADMIN)) as admin:
        yield admin
        for one in (await admin.ask(LIST))["textTemplates"]:
            if one["overridden"]:
                await admin.ask(RESET, name=one["name"], locale=one["locale"])


async def save(admin: Asker, title: str, body: str = "", **fields: Any) -> Any:
    wish = {"name": "order.shipped", "locale": "de", "title": title, "body": body} | fields
    return (await admin.ask(SAVE, input=wish))["saveTextTemplate"]


async def told(house: House, backend: Wire, locale: str, details: Any = DETAILS) -> tuple[str, str]:
    """Title and body of the shipping of an order, for a new customer in Vienna."""
    reader = await house.somebody(locale=locale, timezone="Europe/Vienna")
    order = {"orderId": "A-1", "userId": reader.id, "status": "shipped", "details": details}
    await backend.ask(ORDER, input=order)
    found = await of_type(reader, "ORDER_UPDATE")
    return found["title"], found["body"]


async def of_type(reader: Somebody, type_: str) -> Any:
    """The newest notification of the type, as soon as there is one."""

    async def arrived() -> list[Any]:
        return [node for node in await nodes(reader.api) if node["type"] == type_]

    return (await until(arrived))[0]


async def entry(admin: Wire, name: str, locale: str) -> Any:
    """How the list shows it, or None."""
    listed = (await admin.ask(LIST))["textTemplates"]
    found = [one for one in listed if (one["name"], one["locale"]) == (name, locale)]
    return found[0] if found else None


async def test_everybody_is_told_in_their_language(house: House, backend: Wire) -> None:
    assert await told(house, backend, "de-AT") == SHIPPED_DE
    assert await told(house, backend, "en-GB") == SHIPPED_EN
    assert await told(house, backend, "tlh") == SHIPPED_EN


async def test_a_newcomer_and_those_of_an_offer_are_addressed_in_their_language(
    house: House, backend: Wire
) -> None:
    for locale, welcome in (("de-CH", "Willkommen, Some Body!"), ("en", "Welcome, Some Body!")):
        reader = await house.somebody(locale=locale)
        node = await of_type(reader, "PROMOTION")
        assert node["title"] == node["content"]["title"] == welcome
        made = await create(backend, reader.id, {}, type="RECOMMENDATION")
        title = shipped()["created.recommendation", locale[:2]].title
        assert made["notification"]["title"] == title


async def test_a_saved_text_is_said_with_amounts_and_times_of_the_readers_own(
    house: House, backend: Wire, admin: Wire
) -> None:
    saved = await save(
        admin,
        " {{ order.id }} kostet {{ order.details.total | money: order.details.currency }} ",
        "Da am {{ order.details.expectedAt | date }} um {{ order.details.expectedAt | time }}.",
    )
    assert saved["title"].startswith("{{ order.id }} kostet")
    assert (saved["overridden"], saved["locale"]) == (True, "de")
    assert await told(house, backend, "de-AT") == (
        "A-1 kostet €\xa01.249,90",
        "Da am 29.03.2026 um 00:30.",
    )
    assert (await told(house, backend, "de-DE"))[0] == "A-1 kostet 1.249,90\xa0€"
    assert await told(house, backend, "en") == SHIPPED_EN


async def test_who_has_named_no_zone_reads_the_times_of_the_shops(house: House) -> None:
    order = OrderStatusChanged(order_id="1", user_id="u", status="paid", details=DETAILS)
    for own, hour in ((None, "08:30"), ("Europe/Vienna", "00:30")):
        reader = await User.by_id((await house.somebody(locale="de", timezone=own)).id)
        assert reader
        with another_process(house, shop_timezone="Asia/Tokyo") as texts:
            await texts.save(Wish("order.paid", "de", AT), None)
            assert order_text(order, texts.words(reader)).title == hour
            await texts.reset("order.paid", "de")


async def test_a_text_for_a_region_or_another_language_counts_there(
    house: House, backend: Wire, admin: Wire
) -> None:
    await save(admin, "Servus, {{ user.name }}", locale="de-at")
    await save(admin, "Coucou, {{ user.name }}", locale="fr")
    assert (await told(house, backend, "de-AT"))[0] == "Servus, Some Body"
    assert await told(house, backend, "de") == SHIPPED_DE
    assert (await told(house, backend, "fr-CA"))[0] == "Coucou, Some Body"


async def test_a_promotion_is_worded_for_each_of_its_readers(
    house: House, backend: Wire, admin: Wire
) -> None:
    await save(admin, "Für {{ user.name }}: {{ promotion.title }}", name="promotion")
    readers = {locale: await house.somebody(locale=locale) for locale in ("de", "en")}
    for reader in readers.values():
        await of_type(reader, "PROMOTION")  # the welcome
    offer = {"title": "Sale", "body": "Now", "userIds": [one.id for one in readers.values()]}
    await backend.ask(PROMOTE, input=offer)

    async def offers(reader: Somebody) -> list[str]:
        found = [node["title"] for node in await nodes(reader.api)]
        return [title for title in found if "Sale" in title]

    assert await until(lambda: offers(readers["de"])) == ["Für Some Body: Sale"]
    assert await until(lambda: offers(readers["en"])) == ["Sale"]


async def test_a_preview_says_the_sample_and_changes_nothing(admin: Wire) -> None:
    wish = {
        "name": "order.shipped",
        "locale": "de-AT",
        "title": "{{ order.id }}: {{ order.details.total | money: order.details.currency }}",
        "body": "{% for item in order.details.items %}{{ item.name }}; {% endfor %}",
    }
    preview = (await admin.ask(PREVIEW, input=wish))["previewTextTemplate"]
    assert preview == {"title": "A-1042: €\xa01.249,90", "body": "Tent; Sleeping bag; "}
    assert await entry(admin, "order.shipped", "de-AT") is None


@pytest.mark.parametrize("document", [PREVIEW, SAVE])
@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"name": "order.lost"}, "input.name", "order.shipped"),
        ({"locale": "german"}, "input.locale", "de-AT"),
        ({"locale": ""}, "input.locale", "de-AT"),
        ({"title": " "}, "input.title", "empty"),
        ({"title": "{{ order.details.nope }}"}, "input.title", "empty"),
        ({"title": "a\n{{ order.nope }}"}, "input.title", "Line 2: there is no order.nope"),
        ({"body": "\n\n{% if order.id %}"}, "input.body", "endif"),
        ({"body": "{{ order.id | nope }}"}, "input.body", "Line 1: there is no filter"),
        ({"body": "{% for i in (1..9) %}{% endfor %}"}, "input.body", "Line 1: a loop runs"),
        ({"body": "x" * 8193}, "input.body", "TEXT_SOURCE_BYTES"),
        ({"body": "x" * 5001}, "input.body", "5000 is the most"),
        ({"title": "x" * 501}, "input.title", "500 is the most"),
        ({"title": "a\x00b"}, "input.title", "NUL"),
    ],
)
async def test_what_is_wrong_is_refused_before_it_is_saved(
    admin: Wire, document: str, fields: dict[str, str], field: str, said: str
) -> None:
    wish = {"name": "order.shipped", "locale": "de", "title": "Title", "body": "Body"} | fields
    error = await refused(admin.ask(document, input=wish))
    assert (error.code, error.field) == ("BAD_USER_INPUT", field)
    assert said in error.message
    assert not [one for one in (await admin.ask(LIST))["textTemplates"] if one["overridden"]]


async def test_the_list_shows_what_is_said_and_what_may_be_named(admin: Wire) -> None:
    before = (await admin.ask(LIST))["textTemplates"]
    assert {(one["name"], one["locale"]) for one in before} == set(shipped())
    assert all(one["sample"] == SAMPLES[one["name"]] for one in before)
    saved = await save(admin, "Hallo", name="welcome", locale="de")
    assert await entry(admin, "welcome", "de") == saved
    assert (await entry(admin, "welcome", "en"))["title"] == "Welcome, {{ user.name }}!"
    await save(admin, "Bonjour", name="welcome", locale="fr")
    assert (await entry(admin, "welcome", "fr"))["overridden"] is True


async def test_what_is_reset_is_said_as_it_is_shipped(
    house: House, backend: Wire, admin: Wire
) -> None:
    await save(admin, "Anders")
    assert (await told(house, backend, "de"))[0] == "Anders"
    key = {"name": "order.shipped", "locale": "DE"}
    assert (await admin.ask(RESET, **key))["resetTextTemplate"] is True
    assert await told(house, backend, "de") == SHIPPED_DE
    assert (await admin.ask(RESET, **key))["resetTextTemplate"] is False
    error = await refused(admin.ask(RESET, name="nope", locale="de"))
    assert (error.code, error.field) == ("BAD_USER_INPUT", "name")


async def test_who_saves_what_another_has_changed_is_told_so(admin: Wire) -> None:
    before = (await entry(admin, "order.paid", "de"))["version"]
    first = await save(admin, "Erste", name="order.paid", version=before)
    assert first["version"] == before + 1
    for version in (before, before + 2):
        error = await refused(save(admin, "Andere", name="order.paid", version=version))
        assert error.code == "CONFLICT"
    await admin.ask(RESET, name="order.paid", locale="de")
    error = await refused(save(admin, "Alte", name="order.paid", version=first["version"]))
    assert error.code == "CONFLICT"
    assert not (await entry(admin, "order.paid", "de"))["overridden"]
    assert (await save(admin, "Ohne", name="order.paid"))["title"] == "Ohne"


async def test_of_many_who_save_at_once_with_one_version_one_succeeds(
    house: House, admin: Wire
) -> None:
    chief = await house.somebody(Role.ADMIN)
    for name in ("order.packed", "order.packed", "welcome"):  # the first time there is none yet
        version = (await entry(admin, name, "de"))["version"]
        wishes = [save(chief.api, f"{n}", name=name, version=version) for n in range(8)]
        answers = await asyncio.gather(*wishes, return_exceptions=True)
        refusals = [one.code for one in answers if isinstance(one, GraphQLFailed)]
        [saved] = [one for one in answers if isinstance(one, dict)]
        assert refusals == ["CONFLICT"] * 7
        assert await entry(admin, name, "de") == saved


@contextmanager
def another_process(house: House, **changes: Any) -> Iterator[Texts]:
    """The texts as another process of the same shop knows them."""
    runtime = house.runtime
    texts = Texts(runtime.clock, runtime.settings.model_copy(update=changes))
    reading = asyncio.create_task(texts.keep_reading())
    try:
        yield texts
    finally:
        reading.cancel()


async def test_another_process_says_what_was_saved_within_the_caches_time(
    house: House, admin: Wire
) -> None:
    reader = await User.by_id((await house.somebody(locale="de")).id)
    assert reader

    with another_process(house) as texts:

        async def says(title: str) -> bool:
            return texts.words(reader).say("welcome", {}).title == title

        assert await says("Willkommen, Some Body!")
        for title in ("Hallo", "Servus"):
            await save(admin, title, name="welcome")
            await until(partial(says, title))
        await admin.ask(RESET, name="welcome", locale="de")
        await until(lambda: says("Willkommen, Some Body!"))


async def test_a_text_that_fails_loses_no_notification_and_is_logged_once(
    house: House, backend: Wire, admin: Wire
) -> None:
    await save(admin, "{{ order.details.total | money: order.details.currency }}")
    with capture_logs() as logs:
        for _ in range(2):
            assert await told(house, backend, "de", {"total": "secret"}) == SHIPPED_DE
    failed = [one for one in logs if one["event"] == "text_failed"]
    assert [(one["text"], one["line"]) for one in failed] == [("order.shipped/de", 1)]
    assert "secret" not in str(failed)


async def test_a_dedup_key_answers_with_the_original_whatever_the_texts_say_now(
    house: House, backend: Wire, admin: Wire
) -> None:
    reader, key = await house.somebody(), uuid4().hex
    first = await create(backend, reader.id, {"n": 1}, dedupKey=key)
    assert first["notification"]["title"] == "News of your order"
    await save(admin, "Other news", name="created.order_update", locale="en")
    again = await create(backend, reader.id, {"n": 1}, dedupKey=key)
    assert again["decision"]["outcome"] == "DUPLICATE"
    assert again["notification"] == first["notification"]
    for other in ({"title": "News of your order"}, {"title": "Mine"}):
        error = await refused(create(backend, reader.id, {"n": 1}, dedupKey=key, **other))
        assert error.code == "CONFLICT"


async def test_what_is_scheduled_is_worded_for_its_reader_when_it_goes_out(
    house: House, backend: Wire, admin: Wire
) -> None:
    reader = await house.somebody(locale="de-AT")
    at = house.runtime.clock.now() + timedelta(seconds=4)
    wish = {"userId": reader.id, "type": "ORDER_UPDATE", "content": {}, "at": at.isoformat()}
    await backend.ask(SCHEDULE, input=wish)
    await save(admin, "Neues für {{ user.name }}", name="created.order_update")
    assert (await of_type(reader, "ORDER_UPDATE"))["title"] == "Neues für Some Body"


async def test_a_row_that_can_not_be_read_holds_up_no_other(house: House, admin: Wire) -> None:
    rows = house.runtime.store.database["text_overrides"]
    await rows.insert_one({"_id": "order.paid/fr", "title": "Of a later version", "version": 7})
    try:
        await save(admin, "Trotzdem", name="order.packed")
        with another_process(house) as texts:
            await texts.read()
            reader = await house.somebody(locale="de")
            user = await User.by_id(reader.id)
            assert user is not None
            assert texts.words(user).say("order.packed", {}).title == "Trotzdem"
    finally:
        await rows.delete_one({"_id": "order.paid/fr"})


async def test_only_so_many_texts_are_overridden(house: House, admin: Wire) -> None:
    await save(admin, "Eins")
    with another_process(house, max_text_overrides=1) as texts:
        wish = Wish("welcome", "de", Text("Zwei", ""))
        with pytest.raises(BadInput, match="MAX_TEXT_OVERRIDES"):
            await texts.save(wish, None)
        await texts.save(Wish("order.shipped", "de", Text("Auch eins", "")), None)
        await texts.reset("order.shipped", "de")
        assert (await texts.save(wish, None)).text.title == "Zwei"
