"""The words of notifications: by locale, with amounts and dates of there, and bounded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_currency
from hypothesis import given
from hypothesis import strategies as st

from services.notifications.drafts import Offer
from services.notifications.engine import Engine, Limits, TemplateFailed
from services.notifications.locales import LENGTHS, Length, Reader, canonical, fallback, is_known
from services.notifications.recommend import Recommendation, Why
from services.notifications.samples import SAMPLES
from services.notifications.scope import Known
from services.notifications.templates import (
    LONGEST_BODY,
    LONGEST_TITLE,
    Key,
    Text,
    Words,
    content_text,
    order_text,
    recommendation_text,
    shipped,
    welcome_text,
)
from services.shared.events import OrderStatusChanged, PromotionAnnounced, UserRegistered
from services.shared.settings import Settings
from services.shared.vocabulary import NotificationType

DEFAULTS = Settings(_env_file=None)
ENGINE = Engine(
    Limits(
        source_bytes=DEFAULTS.text_source_bytes,
        output_bytes=DEFAULTS.text_output_bytes,
        loops=DEFAULTS.text_loop_iterations,
        steps=DEFAULTS.text_steps,
    )
)
VIENNA = Reader("Ada", "de-AT", "Europe/Vienna")
READERS = [
    VIENNA,
    Reader("Ada", "de", "Europe/Berlin"),
    Reader("Ada", "en", "UTC"),
    Reader("Ada", "en-US", "America/Los_Angeles"),
    Reader("Ada", "fr-CH", "Europe/Zurich"),
    Reader("Ada", "ja", "Asia/Tokyo"),
    Reader("Ada", "ar-EG", "Africa/Cairo"),
    Reader("Ada", "hi", "Asia/Kolkata"),
]
INSTANT = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)  # the next day already in some zones


def written(source: str, reader: Reader = VIENNA, **variables: Any) -> str:
    return ENGINE.template(source).render(variables, reader)


def refusal(source: str, sample: Mapping[str, Any] = SAMPLES["order.shipped"]) -> str:
    """Why a template is refused for this sample."""
    try:
        template = ENGINE.template(source)
        template.check(sample)
        said = template.render(sample, VIENNA)
    except TemplateFailed as failed:
        return str(failed)
    raise AssertionError(f"this was not refused: {said}")


# What is shipped


@pytest.mark.parametrize("locale", ["en", "de"])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_text_is_shipped_in_both_languages_and_keeps_its_own_rules(
    name: str, locale: str
) -> None:
    text = shipped()[name, locale]
    for source in (text.title, text.body):
        ENGINE.template(source).check(SAMPLES[name])
    said = Words(Reader("Ada", locale)).say(name, SAMPLES[name])
    assert 1 <= len(said.title) <= LONGEST_TITLE
    assert "{" not in said.title + said.body
    assert bool(said.body) == (not name.startswith("created."))


def test_nothing_else_is_shipped() -> None:
    assert {name for name, _ in shipped()} == set(SAMPLES)


def test_german_readers_are_told_in_german() -> None:
    words = Words(VIENNA)
    order = OrderStatusChanged(order_id="A-1", user_id="u", status="Shipped")
    assert order_text(order, words) == Text(
        "Bestellung A-1 ist unterwegs", "Ihr Paket hat unser Lager verlassen."
    )
    own = OrderStatusChanged(order_id="A-1", user_id="u", status="im Zoll")
    assert order_text(own, words).body == "Der Status ist jetzt: im Zoll."
    welcome = welcome_text(UserRegistered(user_id="u", name="Ada"), words)
    assert welcome.title == "Willkommen, Ada!"
    assert content_text(NotificationType.PROMOTION, "Jetzt", None, words) == Text(
        "Ein Angebot für Sie", "Jetzt"
    )
    promotion = PromotionAnnounced(title="Sale", body="Half of all")
    assert Offer("", promotion).draft("", words).text == Text("Sale", "Half of all")


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (Why("bought together", "Boot"), "Zusammen mit „Boot“ gekauft."),
        (Why("chosen together", "Boot"), "Zusammen mit „Boot“ gewählt."),
        (Why("viewed together", "Boot"), "Zusammen mit „Boot“ angesehen."),
        (Why("liked", "Camping"), "Weil Sie Camping mögen."),
        (Why("popular"), "Gerade sehr beliebt."),
    ],
)
def test_a_recommendation_gives_its_reason_in_the_readers_language(why: Why, reason: str) -> None:
    found = [Recommendation(name, name, 0.5, why.sentence, why) for name in ("Zelt", "Matte")]
    assert recommendation_text(found, Words(VIENNA)).body == f"Zelt und Matte. {reason}"
    assert recommendation_text(found, Words()).body == f"Zelt and Matte. {why.sentence}."


# Whose words


@pytest.mark.parametrize(
    ("tag", "chain"),
    [
        ("en", ("en",)),
        ("de", ("de", "en")),
        ("de-AT", ("de-AT", "de", "en")),
        ("DE-at", ("de-AT", "de", "en")),
        ("en-GB", ("en-GB", "en")),
        ("zh-hant-tw", ("zh-Hant-TW", "zh-Hant", "zh", "en")),
        ("de-CH-1996", ("de-CH-1996", "de-CH", "de", "en")),
        ("es-419", ("es-419", "es", "en")),
        ("tlh", ("tlh", "en")),
    ],
)
def test_a_locale_falls_back_to_what_is_more_general_and_to_english(
    tag: str, chain: tuple[str, ...]
) -> None:
    assert fallback(tag) == chain


@given(st.from_regex(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}", fullmatch=True))
def test_whatever_tag_a_customer_has_they_are_written_to(tag: str) -> None:
    source = "{{ 7 | money: 'EUR' }} {{ '2026-03-28T23:30:00Z' | datetime }}"
    assert written(source, Reader("Ada", tag, "Europe/Vienna"))
    assert Words(Reader("Ada", tag)).say("welcome", {}).title in (
        "Welcome, Ada!",
        "Willkommen, Ada!",
    )


@pytest.mark.parametrize(
    ("overridden", "locale", "said"),
    [
        ((), "de-AT", "Willkommen, Ada!"),
        (("de",), "de-AT", "de"),
        (("de", "de-AT"), "de-AT", "de-AT"),
        (("de-AT",), "de", "Willkommen, Ada!"),
        (("en",), "de", "Willkommen, Ada!"),
        (("en",), "fr", "en"),
        (("fr",), "fr-CH", "fr"),
        ((), "fr", "Welcome, Ada!"),
    ],
)
def test_the_first_locale_that_has_the_text_is_spoken(
    overridden: tuple[str, ...], locale: str, said: str
) -> None:
    overrides = {("welcome", one): Text(one, "") for one in overridden}
    assert Words(Reader("Ada", locale), overrides).say("welcome", {}).title == said


@pytest.mark.parametrize(
    ("tag", "known"),
    [
        ("de", True),
        ("de-at", True),
        ("zh-Hant-TW", True),
        ("zh-TW", True),
        ("es-419", True),
        ("english", False),
        ("de-XX", False),
        ("xx", False),
        ("de_AT", False),
        ("de-CH-1996", False),
        ("de-abcdefgh", False),
        ("", False),
        ("en/..", False),
    ],
)
def test_a_text_is_for_a_locale_that_has_readers(tag: str, known: bool) -> None:
    assert is_known(canonical(tag)) is known


# Amounts and dates


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: str(reader.locale))
@pytest.mark.parametrize("value", [1249.9, "1249.90", -3, "0.5", 0, "1e3"])
def test_money_is_written_as_babel_writes_it_there(reader: Reader, value: Any) -> None:
    locale = reader.locale.replace("-", "_")
    for currency in ("EUR", "USD", "JPY"):
        expected = format_currency(Decimal(str(value)), currency, locale=locale)
        assert written(f"{{{{ value | money: '{currency}' }}}}", reader, value=value) == expected


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: str(reader.locale))
@pytest.mark.parametrize("length", LENGTHS)
def test_dates_and_times_are_written_as_babel_writes_them_there(
    reader: Reader, length: Length
) -> None:
    locale, zone = reader.locale.replace("-", "_"), ZoneInfo(reader.timezone)
    there = INSTANT.astimezone(zone)
    for value in ("2026-03-28T23:30:00Z", "2026-03-29T04:30:00+05:00"):
        assert written(f"{{{{ value | date: '{length}' }}}}", reader, value=value) == format_date(
            there, length, locale=locale
        )
        assert written(f"{{{{ value | time: '{length}' }}}}", reader, value=value) == format_time(
            INSTANT, length, tzinfo=zone, locale=locale
        )
        source = f"{{{{ value | datetime: '{length}' }}}}"
        assert written(source, reader, value=value) == format_datetime(
            INSTANT, length, tzinfo=zone, locale=locale
        )


def test_the_readers_zone_decides_which_day_it_is() -> None:
    source = "{{ '2026-03-28T23:30:00Z' | date }} {{ '2026-03-28T23:30:00Z' | time }}"
    assert written(source, VIENNA) == "29.03.2026 00:30"
    assert written(source, Reader("Ada", "de-AT", "UTC")) == "28.03.2026 23:30"


def test_a_day_is_the_same_in_every_zone() -> None:
    for reader in READERS:
        locale = reader.locale.replace("-", "_")
        expected = format_date(date(2026, 3, 28), "medium", locale=locale)
        assert written("{{ '2026-03-28' | date }}", reader) == expected


@pytest.mark.parametrize("name", ["money: 'EUR'", "date", "time", "datetime"])
def test_what_the_shop_did_not_send_is_written_as_nothing(name: str) -> None:
    order = Known(details={"address": "none", "list": []})
    for path in ("nope", "nope.nope", "address.city", "list[3].price", "list.first.price"):
        assert written(f"[{{{{ order.details.{path} | {name} }}}}]", order=order) == "[]"
    assert written("[{{ order.details.nope }}]", order=Known(details=None)) == "[]"


def test_a_variable_that_nothing_was_assigned_to_is_nothing() -> None:
    source = "{% if order.details.nope %}{% assign x = 1 %}{% endif %}[{{ x }}{{ x | default: 2 }}]"
    assert written(source, order=Known(details={})) == "[2]"


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("'a' | append: 'b' | prepend: 1", "1ab"),
        ("'straße' | upcase", "STRASSE"),
        ("'ÄB' | downcase", "äb"),
        ("'das Zelt' | capitalize", "Das Zelt"),
        ("'  a ' | strip", "a"),
        ("'abcdef' | truncate: 4", "abc…"),
        ("'abcd' | truncate: 4", "abcd"),
        ("'abcdef' | truncate: 5, '...'", "ab..."),
        ("'abc' | truncate: 0, ''", ""),
        ("nil | default: 'x'", "x"),
        ("'' | default: 'x'", "x"),
        ("0 | default: 'x'", "0"),
        ("names | first", "Tent"),
        ("names | last", "Mat"),
        ("nil | first", ""),
        ("names | size", "2"),
        ("nil | size", "0"),
        ("names | join", "Tent Mat"),
        ("names | join: ', '", "Tent, Mat"),
        ("names | list: 'and'", "Tent and Mat"),
        ("names | list", "Tent, Mat"),
        ("nil | list: 'and'", ""),
        ("items | map: 'name' | list: 'and'", "Tent, Mat and Stove"),
        ("items | map: 'nope' | join: '-'", "--"),
        ("1 | plus: '2.5'", "3.5"),
        ("3 | minus: 4", "-1"),
        ("'9.90' | times: 2", "19.80"),
    ],
)
def test_filters_do_what_they_are_called(expression: str, result: str) -> None:
    items = [{"name": name} for name in ("Tent", "Mat", "Stove")]
    said = written(f"{{{{ {expression} }}}}", names=["Tent", "Mat"], items=items)
    assert said == result


def test_a_text_is_plain_and_keeps_its_line_ends() -> None:
    source = "a\r\nb\rc {% capture x %}{{ user.name }}\r\n{% endcapture %}{{ x }}"
    assert written(source, user=Known(name="<b>&")) == "a\r\nb\rc <b>&\r\n"


# What is refused, and where

LOOP = "{% for item in order.details.items %}"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a\n{% if order.id %}b", "Line 2: expected tag endif"),
        ("a\n\n{{ order.id", "Line 3: {{ is not closed by }}."),
        ("{% if order.id", "Line 1: {% is not closed by %}."),
        ("a\n{{ order.id b }}", "Line 2: "),
        ("a\n{% nope %}", "Line 2: unexpected tag 'nope'."),
        ("{% include 'secrets' %}", "Line 1: unexpected tag 'include'."),
        ("{% render '/etc/passwd' %}", "Line 1: unexpected tag 'render'."),
        ("\n{{ order.id | nope }}", "Line 2: there is no filter 'nope'; known are append,"),
        ("{% if false %}\n{{ order.id | nope }}{% endif %}", "Line 2: there is no filter"),
        ("{{ order.id | append }}", "Line 1: append takes other values"),
        ("{{ order.id | append: 1, 2, 3 }}", "Line 1: append takes other values"),
        ("{{ order.id | join: ',' }}", "Line 1: this filter takes a list."),
        ("a\n{{ order.trackng }}", "Line 2: there is no order.trackng; known are order.id,"),
        ("{% if false %}{{ order.nope }}{% endif %}", "Line 1: there is no order.nope"),
        ("{{ nope }}", "Line 1: there is no nope; known are user, order."),
        ("{{ now }}", "Line 1: there is no now"),
        ("{{ order }}", "Line 1: an object is no text: name what is in it."),
        ("{{ order.id.length }}", "Line 1: order.id is a single value"),
        ("{{ order.details }}", "Line 1: an object is no text"),
        ("{{ order.details.items }}", "Line 1: a list is no text"),
        ("{{ forloop.index }}", "Line 1: there is no forloop"),
        (LOOP + "\n{{ forloop.nope }}{% endfor %}", "Line 2: there is no 'nope' here."),
        ("a\n{% break %}", "Line 2: break stands outside of a loop."),
        ("{{ 'x' | money: 'EUR' }}", "Line 1: an amount is a number"),
        ("{{ true | money: 'EUR' }}", "Line 1: an amount is a number"),
        ("{{ 1 | money: 'EURO' }}", "Line 1: a currency is a code of ISO 4217"),
        ("{{ 1 | money }}", "Line 1: a currency is a code of ISO 4217"),
        ("{{ '2026-03-28T23:30:00' | date }}", "Line 1: an instant is one of RFC 3339"),
        ("{{ '2026-03-28' | time }}", "Line 1: an instant is one of RFC 3339"),
        ("{{ '9999-12-31T23:59:59Z' | time }}", "Line 1: an instant is one of RFC 3339"),
        ("{{ '2026-03-28' | date: 'yyyy' }}", "Line 1: a length is one of short, medium,"),
    ],
)
def test_a_mistake_is_named_with_its_line(source: str, reason: str) -> None:
    assert refusal(source).startswith(reason)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ products.name }}", "Line 1: products is a list: loop over it"),
        ("{% for one in products %}\n{{ one.nmae }}{% endfor %}", "Line 2: there is no 'nmae'"),
        ("{{ products | map: 'nmae' }}", "Line 1: there is no 'nmae' here; known are name,"),
        ("{{ products }}", "Line 1: a list is no text"),
    ],
)
def test_a_mistake_in_a_list_is_named_too(source: str, reason: str) -> None:
    assert refusal(source, SAMPLES["recommendation"]).startswith(reason)


@pytest.mark.parametrize(
    "path",
    [
        "order.__class__",
        "order['__class__']",
        "order[user.name]",
        "order.keys",
        "order.id.__class__.__mro__",
        "order.id.format",
        "user.__init__.__globals__",
        "self",
        "config",
    ],
)
def test_nothing_of_python_can_be_named(path: str) -> None:
    assert "there is no" in (reason := refusal(f"{{{{ {path} }}}}")) or "is a single" in reason


@pytest.mark.parametrize("name", ["__class__", "keys", "items.append", "total.format", "first"])
def test_below_details_a_name_is_a_key_and_nothing_else(name: str) -> None:
    details = {"total": "1", "items": [1]}
    assert written(f"[{{{{ order.details.{name} }}}}]", order=Known(details=details)) == "[]"


ITEMS = "{% for a in order.details.items %}"
LARGE = {"items": [{"n": "x"}] * 100, "part": "x" * 20_000, "big": "x" * 60_000}
MANY = {"order": Known(id="A", details=LARGE)}
ATTACKS = {
    "a long range": ("{% for i in (1..1000000000) %}x{% endfor %}", "not over a range"),
    "a long range, reversed": ("{% for i in (1..9999999999) reversed %}{% endfor %}", "a range"),
    "a range kept": ("{% assign x = (1..9999999999) %}{{ x | last }}", "not over a range"),
    "nested loops": (f"{ITEMS}{ITEMS}{{% endfor %}}{{% endfor %}}", "TEXT_LOOP_ITERATIONS"),
    "much in a loop": (f"{ITEMS}{'{{a.n}}' * 1000}{{% endfor %}}", "TEXT_STEPS"),
    "filters in a loop": (f"{ITEMS}{'{{1|plus:1}}' * 600}{{% endfor %}}", "TEXT_STEPS"),
    "searches in a loop": (
        f"{ITEMS}{'{%if order.details.big contains order.details.big%}{%endif%}' * 100}"
        "{% endfor %}",
        "TEXT_STEPS",
    ),
    "variables in a loop": (
        "{% for a in order %}" * 6
        + "".join(f"{{% assign a{n} = 1 %}}" for n in range(100))
        + "{% endfor %}" * 6,
        "TEXT_STEPS",
    ),
    "filters that go through much": (
        "{{ order.details.items" + " | map: 'n'" * 700 + " }}",
        "TEXT_STEPS",
    ),
    "much output": (f"{ITEMS}{'x' * 8000}{{% endfor %}}", "TEXT_OUTPUT_BYTES"),
    "large data": ("{{ order.details.big }}", "TEXT_OUTPUT_BYTES"),
    "a variable that doubles": (
        "{% assign x = 'xx' %}" + "{% assign x = x | append: x %}" * 60,
        "TEXT_OUTPUT_BYTES",
    ),
    "a capture that doubles": (
        "{% capture x %}xx{% endcapture %}" + "{% capture x %}{{x}}{{x}}{% endcapture %}" * 60,
        "TEXT_OUTPUT_BYTES",
    ),
    "large variables": (
        "".join(f"{{% assign v{n} = order.details.part | upcase %}}" for n in range(100)),
        "the variables hold too much",
    ),
    "a join with much": (
        "{{ order.details.items | map: 'n' | join: order.details.big | size }}",
        "too long a text",
    ),
    "an append of much": (
        "{{ order.details.big | append: order.details.big | size }}",
        "too long a text",
    ),
    "a number that grows": ("{{ 9999999999" + " | times: 9999999999" * 300 + " }}", "an amount"),
    "a huge exponent": ("{{ '1e999999999' | plus: 1 }}", "an amount"),
    "a huge amount": ("{{ '1e999999999' | money: 'EUR' }}", "an amount"),
    "a long number": ("{{ " + "9" * 5000 + " }}", "limit"),
    "deep blocks": ("{% if order.id %}" * 400, "nesting"),
    "a deep condition": (f"{{% if {'order.id and ' * 600}order.id %}}{{% endif %}}", "too deeply"),
    "deep brackets": ("{{ order" + "[order" * 1000 + "]" * 1000 + " }}", "too deeply"),
    "a long source": ("x" * 8193, "TEXT_SOURCE_BYTES"),
    "many openings": ("{{" * 4000, "is not closed"),
    "blanks without an end": ("{{-" + " " * 8000, "is not closed"),
    "blanks with an end": ("{{" + " " * 8000 + "}}", "too many blanks"),
    "blanks in a tag": ("{% if" + "\n" * 8000 + "%}", "too many blanks"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_take_long_or_grow_large_is_refused_soon(attack: str) -> None:
    source, reason = ATTACKS[attack]
    began = time.process_time()
    assert reason in refusal(source, MANY)
    assert time.process_time() - began < 1.5


def test_a_case_is_written_once_however_many_of_its_values_match() -> None:
    assert ENGINE.template("{% case 1 %}{% when 1, 1, 1 %}x{% endcase %}").render({}, VIENNA) == "x"
    nested = "{% case 1 %}{% when 1,1,1,1,1,1,1,1,1,1 %}" * 20 + "x" + "{% endcase %}" * 20
    assert ENGINE.template(nested).render({}, VIENNA) == "x"


PIECES = "{{ }} {% %} - ' \" a . [ ] ( .. ) | : , 1 if and end raw endraw comment order items"
pieces = st.sampled_from([*PIECES.split(), " ", "\n", "for a in order.details.items"])


@given(st.lists(pieces, max_size=300).map("".join))
def test_whatever_is_written_is_a_template_or_refused(source: str) -> None:
    with suppress(TemplateFailed):
        template = ENGINE.template(source)
        template.check(MANY)
        template.render(MANY, VIENNA)


# When it is said

DETAILED = Text(
    "{{ order.id }}: {{ order.details.total | money: order.details.currency }}",
    "{% for item in order.details.items %}{{ item.name | upcase }} {% endfor %}",
)


def test_a_template_that_fails_says_what_is_shipped_and_is_reported() -> None:
    failed: list[tuple[Key, str]] = []
    overrides = {("order.paid", "de"): DETAILED}
    words = Words(VIENNA, overrides, ENGINE, lambda key, why: failed.append((key, str(why))))

    def told(details: Any) -> str:
        order = OrderStatusChanged(order_id="A-1", user_id="u", status="paid", details=details)
        return order_text(order, words).title

    assert told({"total": 5, "currency": "EUR"}) == "A-1: €\xa05,00"
    assert not failed
    assert told({"total": 5}) == "Bestellung A-1 ist bezahlt"
    assert failed == [
        (("order.paid", "de"), "Line 1: a currency is a code of ISO 4217, such as EUR.")
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    json_values
    | st.fixed_dictionaries({}, optional={"total": json_values, "currency": st.just("EUR")})
    | st.fixed_dictionaries({"items": json_values})
)
def test_whatever_the_shop_sends_the_order_is_told(details: Any) -> None:
    words = Words(VIENNA, {("order.paid", "de"): DETAILED}, ENGINE)
    order = OrderStatusChanged(order_id="A-1", user_id="u", status="paid", details=details)
    text = order_text(order, words)
    assert "A-1" in text.title
    assert len(text.title) <= LONGEST_TITLE
    assert len(text.body) <= LONGEST_BODY


def test_a_title_is_never_empty() -> None:
    words = Words(VIENNA, {("welcome", "de"): Text("{{ order.nope }}", "Body")}, ENGINE)
    assert words.say("welcome", {"order": {}}).title == "Willkommen, Ada!"
