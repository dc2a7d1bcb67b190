"""One-click unsubscribe over real HTTP, as mail programs and people do it, and as attackers would.

https://www.rfc-editor.org/rfc/rfc8058
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest

from services.shared.clock import SystemClock
from services.shared.errors import Unauthenticated
from services.shared.vocabulary import Channel, NotificationType, Role
from services.users.links import BadLink, UnsubscribeLinks
from services.users.models import object_id
from services.users.tokens import AccessTokens, signing_keys
from tests.entry import refused
from tests.kit import House, ShiftedClock, Somebody, http_client, open_house, quick_settings
from tests.servers import PrivateMongod

PUBLIC_URL = "https://shop.example/tidings"
SECRET = "a secret for these tests, long enough for other algorithms, too."
CLICK = {"List-Unsubscribe": "One-Click"}
LINK = """query ($user: ID!, $channel: Channel!, $type: NotificationType) {
  unsubscribeLink(userId: $user, channel: $channel, type: $type) {
    url listUnsubscribe listUnsubscribePost expiresAt } }"""
UPDATE = "mutation ($input: PreferencesInput!) { updatePreferences(input: $input) { version } }"
STATE = """{ preferences { version types { type channels { channel enabled consent { at } } } }
  consents { type channel given source recordedBy } }"""
PROMOTION, EMAIL = NotificationType.PROMOTION, Channel.EMAIL
MARKETING = ("PROMOTION", "RECOMMENDATION")


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod, clock: ShiftedClock) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, jwt_secret=SECRET, public_url=f"{PUBLIC_URL}/")
    async with open_house(settings, clock) as open_:
        yield open_


@pytest.fixture(scope="module")
async def shop(house: House) -> Somebody:
    return await house.somebody(Role.SERVICE)


@pytest.fixture
async def ada(house: House) -> Somebody:
    """She gets all marketing by email and as push messages."""
    return await subscriber(house)


async def subscriber(house: House, **registration: Any) -> Somebody:
    somebody = await house.somebody(**registration)
    channels = [{"channel": channel, "enabled": True} for channel in ("EMAIL", "WEB_PUSH")]
    types = [{"type": type_, "channels": channels} for type_ in MARKETING]
    await somebody.api.ask(UPDATE, input={"types": types})
    return somebody


async def link(
    shop: Somebody, user_id: str, channel: str = "EMAIL", type_: str | None = "PROMOTION"
) -> Any:
    asked = {"user": user_id, "channel": channel, "type": type_}
    return (await shop.api.ask(LINK, **asked))["unsubscribeLink"]


async def token(shop: Somebody, user_id: str, *what: Any) -> str:
    url: str = (await link(shop, user_id, *what))["url"]
    return url.removeprefix(f"{PUBLIC_URL}/unsubscribe/")


async def request(house: House, method: str, token: str, **kwargs: Any) -> httpx.Response:
    url = house.api.url.replace("/graphql", f"/unsubscribe/{token}")
    async with http_client() as client:
        return await client.request(method, url, **kwargs)


async def click(house: House, token: str) -> httpx.Response:
    return await request(house, "POST", token, data=CLICK)


async def state(somebody: Somebody) -> Any:
    return await somebody.api.ask(STATE)


def subscriptions(state: Any) -> set[tuple[str, str]]:
    """All marketing that is on outside the app, with consent."""
    return {
        (of_type["type"], one["channel"])
        for of_type in state["preferences"]["types"]
        for one in of_type["channels"]
        if one["enabled"] and one["consent"]
    }


ALL = {(type_, channel) for type_ in MARKETING for channel in ("EMAIL", "WEB_PUSH")}


# What a mail carries


async def test_a_link_is_what_mail_programs_want_in_a_head(
    shop: Somebody, ada: Somebody, clock: ShiftedClock
) -> None:
    with clock.stopped():
        made = await link(shop, ada.id)
        end = (clock.now() + timedelta(days=730)).replace(microsecond=0)
    assert re.fullmatch(rf"{PUBLIC_URL}/unsubscribe/[A-Za-z0-9._-]+", made["url"])
    assert made["listUnsubscribe"] == f"<{made['url']}>"
    assert made["listUnsubscribePost"] == "List-Unsubscribe=One-Click"
    assert made["expiresAt"] == end.isoformat()
    assert len(f"List-Unsubscribe: {made['listUnsubscribe']}") < 998  # a line of a mail


@pytest.mark.parametrize(
    ("channel", "type_", "field"),
    [
        ("IN_APP", "PROMOTION", "channel"),
        ("IN_APP", None, "channel"),
        ("EMAIL", "ORDER_UPDATE", "type"),
    ],
)
async def test_there_are_links_for_marketing_outside_the_app_alone(
    shop: Somebody, ada: Somebody, channel: str, type_: str | None, field: str
) -> None:
    with refused("BAD_USER_INPUT", field):
        await link(shop, ada.id, channel, type_)


async def test_there_are_no_links_for_nobody(shop: Somebody) -> None:
    with refused("NOT_FOUND"):
        await link(shop, "000000000000000000000000")


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"gateway_host": "::1", "gateway_port": 80}, "http://[::1]:80"),
        ({"public_url": "https://shop.example/"}, "https://shop.example"),
    ],
)
def test_links_lead_to_where_the_gateway_is_reached(changes: dict[str, Any], base: str) -> None:
    made = links(SECRET, **{"gateway_port": 8000, **changes}).make("somebody", EMAIL)
    assert made.url.startswith(f"{base}/unsubscribe/ey")


# What a click does


@pytest.mark.parametrize("kind", ["a form", "multipart"])
async def test_a_click_withdraws_consent_and_leaves_all_else(
    house: House, shop: Somebody, ada: Somebody, kind: str
) -> None:
    multipart = {name: (None, value) for name, value in CLICK.items()}
    body: dict[str, Any] = {"data": CLICK} if kind == "a form" else {"files": multipart}
    response = await request(house, "POST", await token(shop, ada.id), **body)
    assert response.status_code == 200
    assert "You get no more promotions by email." in response.text
    after = await state(ada)
    assert subscriptions(after) == ALL - {("PROMOTION", "EMAIL")}
    assert after["preferences"]["version"] == 2
    assert after["consents"][0] == {
        "type": "PROMOTION",
        "channel": "EMAIL",
        "given": False,
        "source": "one-click",
        "recordedBy": None,
    }


async def test_a_link_without_a_type_is_for_all_marketing_on_its_channel(
    house: House, shop: Somebody, ada: Somebody
) -> None:
    response = await click(house, await token(shop, ada.id, "EMAIL", None))
    assert "You get no more marketing by email." in response.text
    assert subscriptions(await state(ada)) == {place for place in ALL if place[1] == "WEB_PUSH"}


async def test_a_second_click_changes_nothing(house: House, shop: Somebody, ada: Somebody) -> None:
    its = await token(shop, ada.id)
    await click(house, its)
    after = await state(ada)
    assert (await click(house, its)).status_code == 200
    assert await state(ada) == after


async def test_who_never_agreed_is_left_in_peace_as_well(house: House, shop: Somebody) -> None:
    somebody = await house.somebody()
    assert (await click(house, await token(shop, somebody.id))).status_code == 200
    [one] = (await state(somebody))["consents"]
    assert (one["given"], one["source"]) == (False, "one-click")


async def test_who_agrees_again_gets_mails_again(
    house: House, shop: Somebody, ada: Somebody
) -> None:
    await click(house, await token(shop, ada.id))
    types = [{"type": "PROMOTION", "channels": [{"channel": "EMAIL", "enabled": True}]}]
    await ada.api.ask(UPDATE, input={"types": types})
    assert subscriptions(await state(ada)) == ALL


async def test_neither_a_logout_nor_a_ban_ends_a_link(
    house: House, shop: Somebody, ada: Somebody
) -> None:
    its = await token(shop, ada.id)
    await house.runtime.access.log_out_everywhere(ada.id)
    await house.runtime.access.disable(ada.id, True)
    assert (await click(house, its)).status_code == 200
    users = house.runtime.store.database["users"]
    row = await users.find_one({"_id": object_id(ada.id)})
    assert row is not None
    assert row["choices"]["promotion"]["channels"]["email"] is False


# What opening does


@pytest.mark.parametrize(
    ("locale", "language", "says", "button"),
    [
        ("en", "en", "Do you want no more promotions by email?", "Unsubscribe"),
        ("fr", "en", "Do you want no more promotions by email?", "Unsubscribe"),
        ("de-AT", "de", "Möchten Sie keine Angebote per E-Mail mehr bekommen?", "Abbestellen"),
    ],
)
async def test_to_open_a_link_shows_a_button_and_changes_nothing(
    house: House, shop: Somebody, locale: str, language: str, says: str, button: str
) -> None:
    somebody = await subscriber(house, locale=locale)
    before, its = await state(somebody), await token(shop, somebody.id)
    page = await request(house, "GET", its)
    assert page.status_code == 200
    for part in (f'<html lang="{language}">', says, f"<button>{button}</button>"):
        assert part in page.text
    assert '<form method="post">' in page.text
    assert (await request(house, "HEAD", its)).status_code == 200
    assert await state(somebody) == before
    assert f'<html lang="{language}">' in (await click(house, its)).text


async def test_the_page_loads_nothing_and_tells_nothing_of_whose_it_is(
    house: House, shop: Somebody, ada: Somebody
) -> None:
    page = await request(house, "GET", await token(shop, ada.id))
    assert not re.findall(r"src=|href=|<script", page.text)
    for secret in (ada.id, ada.email, "Some Body"):
        assert secret not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in page.headers


# What is refused


def odd_multipart(parameters: str, head: bytes = b"") -> dict[str, Any]:
    """A body that is one part under this head."""
    return {
        "content": b"--b\r\n" + head + b"\r\n\r\nOne-Click\r\n--b--",
        "headers": {"content-type": f"multipart/form-data; {parameters}"},
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"content": b"List-Unsubscribe=One-Click"}, 200),  # whatever it is called
        ({"data": {"List-Unsubscribe": "Two-Clicks"}}, 400),
        ({"json": CLICK}, 400),
        ({"content": b"\xff\xfe%ff", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"content-type": b"multipart/x; boundary=\xff"}}, 400),
        (odd_multipart("boundary*=idna'c'dd%ff"), 400),
        (odd_multipart(f"boundary*{'1' * 5000}*=b"), 400),
        (odd_multipart("boundary*=b; boundary*0=b"), 400),
        (odd_multipart("boundary=b", b"content-type: multipart/x; boundary*=a\0b'c'd"), 400),
        (odd_multipart("boundary=b", b"content-disposition: form-data; name*=a; name*0=a"), 400),
        ({"data": CLICK | {"more": "x" * 5000}}, 413),
        ({"content": b"x" * 2_000_000}, 413),
    ],
    ids=[
        "nothing",
        "no type",
        "another",
        "json",
        "no form",
        "an odd form",
        "no bytes",
        "a large number",
        "two kinds of boundary",
        "a part's boundary",
        "two kinds of name",
        "long",
        "very long",
    ],
)
async def test_what_does_not_say_that_it_is_a_click_does_nothing(
    house: House, shop: Somebody, ada: Somebody, body: dict[str, Any], status: int
) -> None:
    response = await request(house, "POST", await token(shop, ada.id), **body)
    assert response.status_code == status
    left = ALL if status != 200 else ALL - {("PROMOTION", "EMAIL")}
    assert subscriptions(await state(ada)) == left


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_a_link_is_opened_or_posted_to(
    house: House, shop: Somebody, ada: Somebody, method: str
) -> None:
    response = await request(house, method, await token(shop, ada.id))
    assert response.status_code == 405
    assert "POST" in response.headers["allow"]


def header_of(token: str) -> dict[str, Any]:
    return jwt.get_unverified_header(token)


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def signed_anew(secret: str = SECRET, **claims: Any) -> Callable[[str], str]:
    """The token with other claims, or another secret; None takes a claim away."""

    def forge(token: str) -> str:
        changed = {**claims_of(token), **claims}
        kept = {name: value for name, value in changed.items() if value is not None}
        return jwt.encode(kept, secret, "HS256", header_of(token))

    return forge


def with_header(**changes: Any) -> Callable[[str], str]:
    return lambda token: jwt.encode(claims_of(token), SECRET, "HS256", header_of(token) | changes)


def tampered(token: str) -> str:
    head, _, signature = token.split(".")
    body = signed_anew(channel="web_push")(token).split(".")[1]
    return f"{head}.{body}.{signature}"


FORGERIES: dict[str, Callable[[str], str]] = {
    "a stranger's secret": signed_anew("another secret that nobody here knows"),
    "a body that was changed": tampered,
    "no signature": lambda token: jwt.encode(
        claims_of(token), None, headers=header_of(token) | {"alg": "none"}
    ),
    "another algorithm": with_header(alg="HS512"),
    "the type of an access token": with_header(typ="at+jwt"),
    "no type of ours": with_header(typ="JWT"),
    "an unknown kid": with_header(kid="0123456789abcdef"),
    "the audience of an access token": signed_anew(aud="tidings"),
    "no audience": signed_anew(aud=None),
    "another issuer": signed_anew(iss="https://evil.example"),
    "no end": signed_anew(exp=None),
    "nobody": signed_anew(sub=None),
    "a user who is not there": signed_anew(sub="000000000000000000000000"),
    "a user who is no id": signed_anew(sub="x"),
    "no channel": signed_anew(channel=None),
    "an unknown channel": signed_anew(channel="pigeon"),
    "an unknown type": signed_anew(type="spam"),
    "half of it": lambda token: token[: len(token) // 2],
    "more of it": lambda token: f"{token}x",
    "a header that is too deep": lambda token: "eyJhIjpb" + "W1tb" * 3000 + ".e30.e30",
    "bytes of another world": lambda token: "%FF.%FE.%00",
    "nothing": lambda token: "x",
}


async def test_an_honest_copy_counts(house: House, shop: Somebody, ada: Somebody) -> None:
    """So that the forgeries below are refused for what is forged."""
    copy = signed_anew()(await token(shop, ada.id))
    assert (await click(house, copy)).status_code == 200


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_link_leads_nowhere(
    house: House, shop: Somebody, ada: Somebody, forgery: str
) -> None:
    forged = FORGERIES[forgery](await token(shop, ada.id))
    for response in (await request(house, "GET", forged), await click(house, forged)):
        assert response.status_code == 404
        assert "This link leads nowhere." in response.text
        assert "<form" not in response.text
    assert subscriptions(await state(ada)) == ALL


async def test_an_access_token_is_no_link_and_a_link_no_access_token(
    house: House, shop: Somebody, ada: Somebody
) -> None:
    assert (await click(house, str(ada.api.token))).status_code == 404
    assert subscriptions(await state(ada)) == ALL
    with refused("UNAUTHENTICATED"):
        await house.api.as_(await token(shop, ada.id)).ask("{ me { id } }")


async def test_a_link_that_has_expired_says_so(
    house: House, shop: Somebody, ada: Somebody, clock: ShiftedClock
) -> None:
    its = await token(shop, ada.id)
    german = {"accept-language": "de-DE,de;q=0.9,en;q=0.8"}
    with clock.moved(timedelta(days=729)):
        assert (await request(house, "GET", its)).status_code == 200
    with clock.moved(timedelta(days=731)):
        page = await request(house, "POST", its, data=CLICK)
        in_german = await request(house, "GET", its, headers=german)
    assert page.status_code == in_german.status_code == 410
    assert "This link has expired." in page.text
    assert "Dieser Link ist abgelaufen." in in_german.text
    assert subscriptions(await state(ada)) == ALL


# Secrets that are replaced


def links(secret: str, **settings: Any) -> UnsubscribeLinks:
    made = quick_settings("", jwt_secret=secret, **settings)
    return UnsubscribeLinks(signing_keys(made), SystemClock(), made)


def test_a_link_outlives_the_secret_that_signed_it_where_that_is_still_accepted() -> None:
    old, new = "the old secret, 32 bytes or more ", "the new secret, 32 bytes or more "
    made = links(old).make("somebody", EMAIL, PROMOTION).url.rpartition("/")[2]
    for kept in ({"jwt_accepted_secrets": (old,)}, {"unsubscribe_accepted_secrets": (old,)}):
        assert links(new, **kept).read(made).user_id == "somebody"
    with pytest.raises(BadLink):
        links(new).read(made)


def test_a_secret_that_is_kept_for_links_lets_nobody_in() -> None:
    old, new = "the old secret, 32 bytes or more ", "the new secret, 32 bytes or more "

    def tokens(secret: str, **settings: Any) -> AccessTokens:
        keys = signing_keys(quick_settings("", jwt_secret=secret, **settings))
        return AccessTokens(keys, timedelta(minutes=15), SystemClock(), kept=2)

    made, _ = tokens(old).issue("somebody", Role.ADMIN, "session")
    assert tokens(new, jwt_accepted_secrets=(old,)).identify(made).user_id == "somebody"
    with pytest.raises(Unauthenticated):
        tokens(new, unsubscribe_accepted_secrets=(old,)).identify(made)
