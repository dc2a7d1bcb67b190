"""Attacks on access tokens, all refused alike; and keys that are replaced while tokens count."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest

from services.shared.clock import SystemClock
from services.shared.errors import Unauthenticated
from services.shared.vocabulary import Role
from services.users.tokens import AccessTokens, signing_keys
from tests.kit import (
    GraphQLFailed,
    House,
    ShiftedClock,
    Somebody,
    open_house,
    quick_settings,
)
from tests.servers import PrivateMongod

SECRET = "a secret for these tests, long enough"
STRANGERS = "another secret that nobody here knows"
ME = "{ me { id } }"

Forge = Callable[[dict[str, Any], dict[str, Any]], str]


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    async with open_house(quick_settings(mongod.url, jwt_secret=SECRET)) as open_:
        yield open_


@pytest.fixture(scope="module")
async def victim(house: House) -> Somebody:
    return await house.somebody()


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{encoded(header)}.{encoded(claims)}."


def signed(
    header: dict[str, Any], claims: dict[str, Any], secret: str = SECRET, digest: str = "sha256"
) -> str:
    """As RFC 7515 has it, whatever the header says; a None takes an entry away."""
    header = {name: value for name, value in header.items() if value is not None}
    text = f"{encoded(header)}.{encoded(claims)}"
    signature = hmac.digest(secret.encode(), text.encode(), digest)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def with_claims(**changes: Any) -> Forge:
    """Signed with the right key; None takes a claim away."""

    def forge(header: dict[str, Any], claims: dict[str, Any]) -> str:
        changed = {**claims, **changes}
        return signed(header, {name: value for name, value in changed.items() if value is not None})

    return forge


def with_header(secret: str = SECRET, **changes: Any) -> Forge:
    return lambda header, claims: signed({**header, **changes}, claims, secret)


def tampered(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """The signature of another body: somebody else's id put in."""
    first, _, last = signed(header, claims).split(".")
    return f"{first}.{encoded({**claims, 'role': 'admin'})}.{last}"


ATTACKS: dict[str, Forge] = {
    "no signature (alg none)": lambda header, claims: unsigned({**header, "alg": "none"}, claims),
    "no signature (alg None)": lambda header, claims: unsigned({**header, "alg": "nOnE"}, claims),
    "no signature, and HS256 said": unsigned,
    "another algorithm of the same key": lambda h, c: signed(
        {**h, "alg": "HS512"}, c, digest="sha512"
    ),
    "a stranger's key": with_header(STRANGERS),
    "nearly the right key": with_header(f"{SECRET}!"),
    "a stranger's key under no kid": with_header(STRANGERS, kid=None),
    "no kid": with_header(kid=None),
    "an unknown kid": with_header(kid="0123456789abcdef"),
    "a kid that is a path": with_header("\x00" * 32, kid="../../../../dev/null"),
    "a kid that is a query": with_header(kid="x' UNION SELECT 'y"),
    "a kid that is no string": lambda h, c: unsigned({**h, "kid": ["a", "list"]}, c),
    "a stranger's key by jku": with_header(STRANGERS, jku="http://127.0.0.1:9/keys.json"),
    "a stranger's key by x5u": with_header(STRANGERS, x5u="http://127.0.0.1:9/keys.pem"),
    "a stranger's key brought along": with_header(
        STRANGERS, jwk={"kty": "oct", "k": encoded({"k": STRANGERS})}
    ),
    "a critical extension": with_header(crit=["exp"], exp=1),
    "another type of token": with_header(typ="JWT"),
    "expired": with_claims(exp=1),
    "no expiry": with_claims(exp=None),
    "an expiry beyond all time": with_claims(exp=10**18),
    "an expiry beyond all numbers": with_claims(exp=1e30),
    "an expiry that is no number": with_claims(exp="tomorrow"),
    "an expiry that is a list": with_claims(exp=[]),
    "not yet": with_claims(nbf=4_000_000_000),
    "issued in times to come": with_claims(iat=4_000_000_000),
    "no time of issue": with_claims(iat=None),
    "another audience": with_claims(aud="another shop"),
    "no audience": with_claims(aud=None),
    "another issuer": with_claims(iss="https://evil.example"),
    "no issuer": with_claims(iss=None),
    "no subject": with_claims(sub=None),
    "a subject that is no string": with_claims(sub=5),
    "no id": with_claims(jti=None),
    "no session": with_claims(sid=None),
    "a session that never was": with_claims(sid="0" * 24),
    "a session that is no id": with_claims(sid={"$ne": None}),
    "a session of another kind": with_claims(sid=5),
    "an empty session": with_claims(sid=""),
    "an unknown role": with_claims(role="root"),
    "no role": with_claims(role=None),
    "a role that is a list": with_claims(role=[]),
    "a body that was changed": tampered,
    "three dots": lambda *_: "...",
    "nothing": lambda *_: "x",
    "bytes of another world": lambda *_: "\u00ff.\u00fe.\u00fd",
    "three letters": lambda *_: "a.b.c",
    "twice the same": lambda h, c: signed(h, c) * 2,
    "all but the beginning": lambda h, c: signed(h, c)[1:],
    "a very long one": lambda *_: "a" * 20_000,
}


def parts_of(somebody: Somebody) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of the token."""
    token = str(somebody.api.token)
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return jwt.get_unverified_header(token), claims


async def test_an_honest_copy_of_a_token_counts(house: House, victim: Somebody) -> None:
    """So that the forgeries below are refused for what is forged."""
    copy = signed(*parts_of(victim))
    assert (await house.api.as_(copy).ask(ME))["me"]["id"] == victim.id


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_on_the_token_is_refused(
    house: House, victim: Somebody, attack: str
) -> None:
    forged = ATTACKS[attack](*parts_of(victim))
    headers = {"authorization": f"Bearer {forged}".encode()}
    response = await house.api.post(json={"query": ME}, headers=headers)
    assert response.status_code == 200
    assert response.json()["data"] is None
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_token_speaks_for_its_own_user_whatever_is_asked(
    house: House, victim: Somebody
) -> None:
    other = await house.somebody()
    assert (await other.api.ask(ME))["me"]["id"] == other.id != victim.id
    with pytest.raises(GraphQLFailed) as failure:
        await other.api.ask("query ($id: ID!) { user(id: $id) { id } }", id=victim.id)
    assert failure.value.code == "FORBIDDEN"


def tokens(secret: str, *accepted: str) -> AccessTokens:
    settings = quick_settings("", jwt_secret=secret, jwt_accepted_secrets=accepted)
    return AccessTokens(signing_keys(settings), timedelta(minutes=15), SystemClock(), kept=2)


def test_a_key_is_replaced_without_anybody_noticing() -> None:
    old, new = "the old secret, 32 bytes or more ", "the new secret, 32 bytes or more "
    before = tokens(old)
    prepared = tokens(old, new)  # everywhere, before anybody signs with it
    replaced = tokens(new, old)
    after = tokens(new)
    by_old, _ = before.issue("somebody", Role.USER, "session")
    by_new, _ = replaced.issue("somebody", Role.USER, "session")
    for accepting in (before, prepared, replaced):
        assert accepting.identify(by_old).user_id == "somebody"
    for accepting in (prepared, replaced, after):
        assert accepting.identify(by_new).user_id == "somebody"
    for refusing, token in ((before, by_new), (after, by_old)):
        with pytest.raises(Unauthenticated):
            refusing.identify(token)


def test_a_token_that_is_known_ends_at_its_time_all_the_same() -> None:
    clock = ShiftedClock()
    settings = quick_settings("", jwt_secret=SECRET)
    ours = AccessTokens(signing_keys(settings), timedelta(minutes=15), clock, kept=2)
    token, _ = ours.issue("somebody", Role.USER, "session")
    assert ours.identify(token) == ours.identify(token)
    with clock.moved(timedelta(minutes=-2)), pytest.raises(Unauthenticated):
        ours.identify(token)  # it does not count yet
    with clock.moved(timedelta(minutes=16)), pytest.raises(Unauthenticated, match="expired"):
        ours.identify(token)


def test_a_token_is_not_known_by_a_part_of_it() -> None:
    ours = tokens(SECRET)
    token, _ = ours.issue("somebody", Role.USER, "session")
    ours.identify(token)
    head, claims, signature = token.split(".")
    for forged in (f"{head}.{claims}.", f"{head}.{claims}.{signature[::-1]}", token[:-2]):
        with pytest.raises(Unauthenticated):
            ours.identify(forged)


def test_no_more_tokens_are_known_than_may_be() -> None:
    ours = tokens(SECRET)
    for _ in range(5):
        ours.identify(ours.issue("somebody", Role.USER, "session")[0])
    assert len(ours._known) == 2
