"""With the database or the broker away: quick answers, sockets that stay, and all caught up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.schema import make_schema
from services.shared.settings import Settings
from services.shared.vocabulary import Channel, Role
from tests.entry import close_code
from tests.kit import (
    PASSWORD,
    House,
    Somebody,
    http_client,
    open_house,
    quick_settings,
)
from tests.notices import create, customer, refused
from tests.outages import MOST_SECONDS, away, is_ready, readiness
from tests.servers import (
    PrivateMongod,
    private_mongod_server,
    until,
)

ADDED = "subscription { notificationAdded { cursor node { id } } }"
UNREAD = "subscription { unreadCount }"
ORDER = "mutation($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"
ID = "0123456789abcdef01234567"
AT_ONCE = 6  # fields asked: this process is client, too
LOGIN = f'(input: {{email: "nobody@shop.example", password: "{PASSWORD}"}})'
PROMOTION = '{type: "promotion.announced", data: {title: "t", body: "b"}}'
SCHEDULE = f'{{name: "n", cron: "0 4 * * *", event: {PROMOTION}}}'
TEXT = '{name: "welcome", locale: "fr", title: "Bonjour", body: ""}'
PRODUCT = '{productId: "p", name: "n", category: "c"}'
NOTICE = f'{{userId: "{ID}", type: ORDER_UPDATE, content: "c"}}'
OFFER = '{title: "t", body: "b", audience: {neverBought: true}}'
AGREED = (
    f'{{userId: "{ID}", channel: EMAIL, types: [PROMOTION], at: "2026-01-01T00:00:00Z", '
    'source: "a form"}'
)
LATER = NOTICE.replace("{", '{at: "2026-12-24T18:00:00Z", ')

QUERIES = {
    "me": " { id }",
    "preferences": " { version }",
    "consents": " { given }",
    "unsubscribeLink": f'(userId: "{ID}", channel: EMAIL) {{ url }}',
    "user": f'(id: "{ID}") {{ id }}',
    "operations": " { outbox }",
    "users": '(search: "ann") { id }',
    "deadLetters": " { id }",
    "notifications": " { edges { cursor } }",
    "notification": f'(id: "{ID}") {{ id }}',
    "notificationRevisions": f'(id: "{ID}") {{ title }}',
    "unreadCount": "",
    "unseenCount": "",
    "explain": f'(notificationId: "{ID}") {{ at }}',
    "decisions": " { edges { cursor } }",
    "explainEvent": f'(eventId: "e", userId: "{ID}") {{ at }}',
    "decideDryRun": f'(userId: "{ID}", type: PROMOTION) {{ at }}',
    "recommendations": " { productId }",
    "schedules": " { id }",
    "scheduledNotifications": f'(userId: "{ID}") {{ id }}',
    "audience": "(input: {neverBought: true}) { count }",
    "broadcast": f'(id: "{ID}") {{ id }}',
    "broadcasts": " { edges { cursor } }",
    "sessions": " { id }",
    "apiKeys": " { id }",
    "textTemplates": " { name }",
    "previewTextTemplate": f"(input: {TEXT}) {{ title }}",
}
MUTATIONS = {
    "register": LOGIN.replace("{", '{name: "n", ') + " { accessToken }",
    "login": LOGIN + " { accessToken }",
    "refreshSession": "(refreshToken: $refresh) { accessToken }",
    "logout": "",
    "revokeSession": f'(id: "{ID}")',
    "changePassword": f'(input: {{currentPassword: "{PASSWORD}", newPassword: "{PASSWORD}"}}) {{'
    " accessToken }",
    "requestPasswordReset": '(email: "nobody@shop.example")',
    "resetPassword": f'(input: {{token: "t", newPassword: "{PASSWORD}"}})',
    "disableUser": f'(id: "{ID}") {{ id }}',
    "createApiKey": f'(input: {{userId: "{ID}", name: "n", scopes: [READ_USERS]}}) {{ key }}',
    "revokeApiKey": f'(id: "{ID}") {{ id }}',
    "recordConsent": f"(input: {AGREED}) {{ version }}",
    "updatePreferences": "(input: {types: [{type: PROMOTION, enabled: false}]}) { version }",
    "setUserTags": f'(userId: "{ID}", tags: ["vip"])',
    "trackActivity": '(input: {kind: VIEW, productId: "p"})',
    "markNotificationRead": f'(id: "{ID}") {{ id }}',
    "markAllNotificationsRead": " { marked }",
    "markAllNotificationsSeen": " { marked }",
    "snoozeNotification": f'(id: "{ID}") {{ id }}',
    "archiveNotification": f'(id: "{ID}") {{ id }}',
    "createNotification": f"(input: {NOTICE}) {{ notification {{ id }} }}",
    "scheduleNotification": f"(input: {LATER}) {{ outcome }}",
    "cancelScheduled": f'(id: "{ID}") {{ outcome }}',
    "createRecommendations": " { notification { id } }",
    "publishOrderStatus": f'(input: {{orderId: "o", userId: "{ID}", status: "s"}}) {{ eventId }}',
    "publishPromotion": '(input: {title: "t", body: "b"}) { eventId }',
    "publishProduct": f"(input: {PRODUCT}) {{ eventId }}",
    "createBroadcast": f"(input: {OFFER}) {{ id }}",
    "pauseBroadcast": f'(id: "{ID}") {{ id }}',
    "resumeBroadcast": f'(id: "{ID}") {{ id }}',
    "cancelBroadcast": f'(id: "{ID}") {{ id }}',
    "createSchedule": f"(input: {SCHEDULE}) {{ id }}",
    "updateSchedule": f'(id: "{ID}", input: {SCHEDULE}) {{ id }}',
    "pauseSchedule": f'(id: "{ID}") {{ id }}',
    "deleteSchedule": f'(id: "{ID}")',
    "saveTextTemplate": f"(input: {TEXT}) {{ name }}",
    "resetTextTemplate": '(name: "welcome", locale: "fr")',
    "replayDeadLetter": f'(id: "{ID}")',
    "discardDeadLetter": f'(id: "{ID}")',
    "runSchedule": f'(id: "{ID}") {{ eventId }}',
}


@pytest.fixture(scope="module")
async def mongod(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateMongod]:
    """One of our own, since it is killed."""
    async with private_mongod_server(tmp_path_factory.mktemp("mongod")) as server:
        yield server


@pytest.fixture(scope="module")
async def house(mongod: PrivateMongod) -> AsyncIterator[House]:
    """As patient as a gateway is by default."""
    patience = Settings(_env_file=None).mongodb_timeout_seconds
    settings = quick_settings(mongod.url, bcrypt_cost=12, mongodb_timeout_seconds=patience)
    async with open_house(settings) as house:
        yield house


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_without_the_database_every_field_says_so_quickly(
    house: House, mongod: PrivateMongod, way: str
) -> None:
    schema = make_schema(Settings(_env_file=None))._schema
    assert schema.query_type
    assert schema.mutation_type
    assert set(QUERIES) == set(schema.query_type.fields)
    assert set(MUTATIONS) == set(schema.mutation_type.fields)
    admin = await house.somebody(Role.ADMIN)
    documents = {name: f"{{ {name}{rest} }}" for name, rest in QUERIES.items()}
    for name, rest in MUTATIONS.items():
        variables = "($refresh: String!)" if "$refresh" in rest else ""
        documents[name] = f"mutation{variables} {{ {name}{rest} }}"
    client = http_client(headers=admin.api.headers)
    few = asyncio.Semaphore(AT_ONCE)

    async def timed(document: str) -> tuple[str | None, float]:
        async with few:
            return await _timed(client, admin, document)

    async def late(names: Collection[str]) -> dict[str, float]:
        found = await asyncio.gather(*(timed(documents[name]) for name in names))
        answers = dict(zip(names, found, strict=True))
        assert all(code == "SERVICE_UNAVAILABLE" for code, _ in answers.values()), answers
        return {name: taken for name, (_, taken) in answers.items() if taken > MOST_SECONDS}

    async with client, away(mongod, way):
        # A machine that is busy is late once, a field that is slow is late again.
        assert not await late(await late(documents))
    await until(lambda: is_ready(house))


# Not a POST to one that hangs: it would begin a transaction of which nobody hears any more.
@pytest.mark.parametrize(("way", "method"), [("killed", "POST"), ("hung", "GET")])
async def test_without_the_database_a_link_that_unsubscribes_says_so_quickly(
    house: House, mongod: PrivateMongod, way: str, method: str
) -> None:
    await until(lambda: is_ready(house))
    made = house.runtime.links.make((await house.somebody()).id, Channel.EMAIL)
    url = house.api.url.replace("/graphql", urlsplit(made.url).path)
    click = {"List-Unsubscribe": "One-Click"}
    async with http_client() as client:
        async with away(mongod, way):
            began = time.monotonic()
            assert (await client.request(method, url, data=click)).status_code == 503
            assert time.monotonic() - began < MOST_SECONDS
        await until(lambda: is_ready(house))
        assert (await client.post(url, data=click)).status_code == 200


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_readiness_tells_of_a_database_that_is_away_and_that_it_is_back(
    house: House, mongod: PrivateMongod, way: str
) -> None:
    await until(lambda: is_ready(house))
    async with away(mongod, way):
        status, answer, seconds = await readiness(house)
        assert (status, list(answer["away"])) == (503, ["database"])
        assert answer["reason"]
        assert seconds < MOST_SECONDS
    await until(lambda: is_ready(house))


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_a_subscription_outlives_the_database_and_catches_up(
    house: House, mongod: PrivateMongod, way: str
) -> None:
    await until(lambda: is_ready(house))
    ann, backend = await customer(house), await house.somebody(Role.SERVICE)
    async with ann.api.follow(ADDED) as stream, ann.api.follow(UNREAD) as counts:
        await counts.next()
        sent = [await _created(backend, ann)]
        assert [await _next(stream)] == sent
        async with away(mongod, way):
            assert (await refused(_created(backend, ann))).code == "SERVICE_UNAVAILABLE"
        await until(lambda: is_ready(house))
        sent += [await _created(backend, ann) for _ in range(3)]
        assert [await _next(stream) for _ in range(3)] == sent[1:]
        while (await counts.next())["unreadCount"] < len(sent):
            pass


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_who_comes_while_the_database_is_away_stays_and_is_told_when_it_is_back(
    house: House, mongod: PrivateMongod, way: str
) -> None:
    ann, backend = await customer(house), await house.somebody(Role.SERVICE)
    async with AsyncExitStack() as stack:
        async with away(mongod, way):
            stream = await stack.enter_async_context(ann.api.follow(ADDED))
            counts = await stack.enter_async_context(ann.api.follow(UNREAD))
            await asyncio.sleep(MOST_SECONDS)
        assert (await counts.next())["unreadCount"] == 0
        sent = await _created(backend, ann)
        assert await _next(stream) == sent


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_whose_session_has_ended_is_told_so_when_the_database_is_back(
    house: House, mongod: PrivateMongod, way: str
) -> None:
    ann = await house.somebody()
    await ann.api.ask("mutation { logout }")
    async with AsyncExitStack() as stack:
        async with away(mongod, way):
            stream = await stack.enter_async_context(ann.api.follow(ADDED))
        assert await close_code(stream.socket) == 4403


async def _created(backend: Somebody, reader: Somebody) -> str:
    id: str = (await create(backend.api, reader.id))["notification"]["id"]
    return id


async def _next(stream: Any) -> str:
    id: str = (await stream.next())["notificationAdded"]["node"]["id"]
    return id


async def _timed(
    client: httpx.AsyncClient, asker: Somebody, document: str
) -> tuple[str | None, float]:
    """The code of the error that the answer must have, and the seconds it took."""
    began = time.monotonic()
    variables = {"refresh": asker.tokens["refreshToken"]}
    body = {"query": document, "variables": variables}
    answer = (await client.post(asker.api.url, json=body)).json()
    return answer["errors"][0]["extensions"]["code"], time.monotonic() - began
