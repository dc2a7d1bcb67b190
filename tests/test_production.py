"""The production profile: what it has not, and with what it does not start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from graphql import build_schema, parse, validate

from services.checks import check, what_is_open
from services.shared.errors import CannotStart
from services.shared.settings import Settings
from services.users.passwords import Passwords
from tests.kit import PASSWORD, House, http_client, open_house, quick_settings
from tests.processes import ROOT
from tests.servers import PrivateMongod

KNOWN = "query Known { unreadCount }"


@pytest.fixture(scope="module")
async def house(
    mongod: PrivateMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    documents = tmp_path_factory.mktemp("documents") / "manifest.json"
    operation = {"id": "abc", "name": "Known", "type": "query", "body": KNOWN}
    manifest = {"format": "apollo-persisted-query-manifest", "operations": [operation]}
    documents.write_text(json.dumps(manifest))
    settings = quick_settings(
        mongod.url,
        profile="production",
        public_url="https://tidings.example",
        bcrypt_cost=10,
        persisted_documents=documents,
    )
    async with open_house(settings) as open_:
        yield open_


async def errors(house: House, document: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await house.api.post(json={"query": document})).json()["errors"]
    return found


async def test_nobody_is_told_the_schema(house: House) -> None:
    for document in ("{ __schema { types { name } } }", '{ __type(name: "User") { name } }'):
        codes = {error["extensions"]["code"] for error in await errors(house, document)}
        assert codes == {"GRAPHQL_VALIDATION_FAILED"}
    assert await house.api.ask("{ __typename }") == {"__typename": "Query"}


@pytest.mark.parametrize(
    "document",
    [
        "{ mee { id } }",
        "{ me { idd } }",
        '{ notification(idd: "x") { id } }',
        "{ me { ... on Usr { id } } }",
        "{ unreadCount(types: [PROMOTIONS]) }",
        "mutation { login(input: { emial: 1 }) { accessToken } }",
    ],
)
async def test_errors_suggest_nothing(house: House, document: str) -> None:
    for error in await errors(house, document):
        assert "Did you mean" not in error["message"]
        assert error["message"]


async def test_variables_suggest_nothing(house: House) -> None:
    document = "query ($types: [NotificationType!]) { unreadCount(types: $types) }"
    response = await house.api.post(
        json={"query": document, "variables": {"types": ["PROMOTIONS"]}}
    )
    assert "Did you mean" not in response.text


async def test_there_are_no_pages(house: House) -> None:
    gone = (
        "/",
        "/admin",
        "/static/graphiql/boot.js",
        "/static/shop/shop.js",
        "/static/shared/api.js",
    )
    async with http_client() as client:
        for path in gone:
            url = house.api.url.replace("/graphql", path)
            assert (await client.get(url, headers={"accept": "text/html"})).status_code == 404
        bell = await client.get(house.api.url.replace("/graphql", "/static/inbox/tidings-inbox.js"))
        assert bell.status_code == 200  # for the shop's own pages
        page = await client.get(house.api.url, headers={"accept": "text/html"})
        assert page.status_code == 406


async def test_the_bell_is_there_and_known_documents_are_enough_for_it(house: House) -> None:
    async with http_client() as client:
        root = house.api.url.removesuffix("/graphql")
        script = await client.get(f"{root}/static/inbox/tidings-inbox.js")
        assert script.status_code == 200
        assert script.headers["content-type"].startswith("text/javascript")
        known = (await client.get(f"{root}/static/inbox/documents.json")).json()
    schema = build_schema((ROOT / "schema.graphql").read_text())
    assert {name: validate(schema, parse(text)) for name, text in known.items()} == {
        name: [] for name in known
    }
    assert len(known) > 5


def production(**changes: Any) -> Settings:
    values = {
        "profile": "production",
        "mongodb_url": "mongodb://127.0.0.1/?replicaSet=rs",
        "jwt_secret": "a secret of thirty-two bytes or more",
        "public_url": "https://tidings.example",
        **changes,
    }
    return Settings(_env_file=None, **values)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mongodb_url", ""),
        ("demo_data", True),
        ("bcrypt_cost", 9),
        ("public_url", ""),
        ("public_url", "http://tidings.example"),
        ("public_url", "https://tidings.example?page=1"),
        ("public_url", "tidings.example"),
        ("allowed_origins", ("*",)),
        ("allowed_origins", ("https://shop.example", "http://localhost:3000")),
        ("trusted_proxies", ("*",)),
        ("trusted_proxies", ("0.0.0.0/0",)),
        ("trusted_proxies", ("0.0.0.0/0.0.0.0",)),
        ("trusted_proxies", ("0.0.0.0/1", "128.0.0.0/1")),
        ("trusted_proxies", ("2000::/3",)),
        ("trusted_proxies", ("10.1.2.3/8",)),
        ("trusted_proxies", ("a name",)),
        ("allowed_origins", ("shop.example",)),
        ("allowed_origins", ("https://shop.example/",)),
        ("rabbitmq_url", "amqp://guest:guest@127.0.0.1/"),
        ("rabbitmq_url", "amqp://127.0.0.1/"),
        ("rabbitmq_url", "amqp://tidings:tidings@rabbit.example/"),
        ("jwt_secret", ""),
        ("jwt_secret", "short"),
        ("jwt_accepted_secrets", ("short",)),
        ("unsubscribe_accepted_secrets", ("short",)),
    ],
)
def test_production_does_not_start_with_what_is_for_development(setting: str, value: Any) -> None:
    check(production())
    with pytest.raises(CannotStart, match=setting.upper()):
        check(production(**{setting: value}))


def test_production_starts_with_what_is_right() -> None:
    check(
        production(
            allowed_origins=("https://shop.example", "https://[2001:db8::1]:8443"),
            trusted_proxies=("10.0.0.7", "10.0.0.0/8", "::1", "2001:db8::/32"),
            rabbitmq_url="amqps://shop:secret@rabbit.example/",
            public_url="https://shop.example:8443/tidings/",
        )
    )


def test_production_names_everything_that_is_wrong_at_once() -> None:
    with pytest.raises(CannotStart, match=r"DEMO_DATA.*BCRYPT_COST"):
        check(production(demo_data=True, bcrypt_cost=4))


def test_development_says_what_it_leaves_open() -> None:
    said = what_is_open(Settings(_env_file=None))
    assert "introspection" in said
    assert "PROFILE=production" in said


async def test_a_password_is_hashed_again_when_the_cost_has_changed(house: House) -> None:
    somebody = await house.somebody()
    users = house.runtime.store.database["users"]
    stored = await users.find_one({"email": somebody.email})
    cheap = await Passwords(4, 1, 1, 1).hash(PASSWORD, "")
    await users.update_one({"email": somebody.email}, {"$set": {"password_hash": cheap}})
    document = "mutation ($input: LoginInput!) { login(input: $input) { accessToken } }"
    input = {"email": somebody.email, "password": PASSWORD}
    await asyncio.gather(*[house.api.ask(document, input=input) for _ in range(3)])
    renewed = await users.find_one({"email": somebody.email})
    assert stored is not None
    assert renewed is not None
    for row in (stored, renewed):
        assert row["password_hash"].split(b"$")[2] == b"10"
