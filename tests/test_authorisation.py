"""Who may do what: every operation, with every role, and with every API key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from beanie import PydanticObjectId
from graphql import GraphQLID, get_named_type
from pymongo import monitoring

from gateway.schema import make_schema
from services.shared.settings import Settings
from services.shared.vocabulary import NotificationType, Role, Scope
from tests.kit import PASSWORD, Api, GraphQLFailed, House, Somebody, open_house, quick_settings
from tests.servers import PrivateMongod

NOBODY = None
ANYONE = frozenset({NOBODY, *Role})
LOGGED_IN = frozenset(Role)
BACKENDS = frozenset({Role.SERVICE, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})
# What of it is open to API keys, by the scope that it needs. Nothing else is.
SCOPES = {
    "user": Scope.READ_USERS,
    "setUserTags": Scope.TAG_USERS,
    "consents": Scope.MANAGE_CONSENTS,
    "consents of another": Scope.MANAGE_CONSENTS,
    "unsubscribeLink": Scope.MANAGE_CONSENTS,
    "recordConsent": Scope.MANAGE_CONSENTS,
    "trackActivity of another": Scope.TRACK_ACTIVITY,
    "trackActivity": Scope.TRACK_ACTIVITY,
    "createNotification": Scope.CREATE_NOTIFICATIONS,
    "scheduledNotifications": Scope.CREATE_NOTIFICATIONS,
    "scheduleNotification": Scope.CREATE_NOTIFICATIONS,
    "cancelScheduled": Scope.CREATE_NOTIFICATIONS,
    "createRecommendations": Scope.CREATE_NOTIFICATIONS,
    "createRecommendations for another": Scope.CREATE_NOTIFICATIONS,
    "publishOrderStatus": Scope.PUBLISH_ORDERS,
    "publishPromotion": Scope.PUBLISH_PROMOTIONS,
    "publishProduct": Scope.PUBLISH_PRODUCTS,
}

_SCHEDULE = (
    'input: { name: "{unique}", cron: "0 0 1 1 *", '
    'event: { type: "recommendations.requested", data: { userIds: ["{other}"] } } }'
)
_CREDENTIALS = 'email: "{unique}@shop.example", password: "{password}"'
_TEXT = 'name: "welcome", locale: "fr", title: "Bonjour", body: ""'
_NO_ID = 'id: "000000000000000000000000"'
_BROADCAST = 'title: "t", body: "b", audience: { tags: ["{unique}"] }'
_TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()

WHO_MAY: dict[str, tuple[str, frozenset[Role | None]]] = {
    "sessions": ("query { sessions { id } }", LOGGED_IN),
    "apiKeys": ("query { apiKeys { id } }", ADMINS),
    "me": ("query { me { id } }", LOGGED_IN),
    "preferences": ("query { preferences { version } }", LOGGED_IN),
    "consents": ("query { consents { given } }", LOGGED_IN),
    "consents of another": ('query { consents(userId: "{other}") { given } }', BACKENDS),
    "unsubscribeLink": (
        'query { unsubscribeLink(userId: "{other}", channel: EMAIL) { url } }',
        BACKENDS,
    ),
    "notifications": ("query { notifications { edges { cursor } } }", LOGGED_IN),
    "notifications of another": (
        'query { notifications(userId: "{other}") { edges { cursor } } }',
        ADMINS,
    ),
    "notification": (f"query {{ notification({_NO_ID}) {{ id }} }}", LOGGED_IN),
    "notificationRevisions": (
        f"query {{ notificationRevisions({_NO_ID}) {{ title }} }}",
        LOGGED_IN,
    ),
    "unreadCount": ("query { unreadCount }", LOGGED_IN),
    "unseenCount": ("query { unseenCount }", LOGGED_IN),
    "recommendations": ("query { recommendations { name } }", LOGGED_IN),
    "explain": (
        'query { explain(notificationId: "000000000000000000000000") { at } }',
        LOGGED_IN,
    ),
    "explain of another": (
        'query { explain(notificationId: "000000000000000000000000", userId: "{other}") { at } }',
        ADMINS,
    ),
    "decisions": ("query { decisions { edges { cursor } } }", LOGGED_IN),
    "decisions of another": (
        'query { decisions(userId: "{other}") { edges { cursor } } }',
        ADMINS,
    ),
    "explainEvent": ('query { explainEvent(eventId: "x", userId: "{other}") { at } }', ADMINS),
    "decideDryRun": ('query { decideDryRun(userId: "{other}", type: PROMOTION) { at } }', ADMINS),
    "scheduledNotifications": (
        'query { scheduledNotifications(userId: "{other}") { id } }',
        BACKENDS,
    ),
    "user": ('query { user(id: "{other}") { email } }', BACKENDS),
    "operations": ("query { operations { outbox } }", ADMINS),
    "users": ('query { users(search: "{unique}") { id } }', ADMINS),
    "deadLetters": ("query { deadLetters { id } }", ADMINS),
    "replayDeadLetter": (f"mutation {{ replayDeadLetter({_NO_ID}) }}", ADMINS),
    "discardDeadLetter": (f"mutation {{ discardDeadLetter({_NO_ID}) }}", ADMINS),
    "audience": ("query { audience(input: { neverBought: true }) { count } }", ADMINS),
    "broadcast": (f"query {{ broadcast({_NO_ID}) {{ id }} }}", ADMINS),
    "broadcasts": ("query { broadcasts { edges { cursor } } }", ADMINS),
    "schedules": ("query { schedules { id } }", ADMINS),
    "register": (
        f'mutation {{ register(input: {{ name: "A", {_CREDENTIALS} }}) {{ expiresAt }} }}',
        ANYONE,
    ),
    "login": (
        'mutation { login(input: { email: "{email}", password: "{password}" }) { expiresAt } }',
        ANYONE,
    ),
    "refreshSession": (
        'mutation { refreshSession(refreshToken: "{refresh}") { expiresAt } }',
        ANYONE,
    ),
    "logout": ("mutation { logout }", LOGGED_IN),
    "recordConsent": (
        'mutation { recordConsent(input: { userId: "{other}", channel: EMAIL, types: [PROMOTION],'
        ' at: "2026-01-01T00:00:00Z", source: "a form" }) { version } }',
        BACKENDS,
    ),
    "updatePreferences": ("mutation { updatePreferences(input: {}) { version } }", LOGGED_IN),
    "setUserTags": (
        'mutation { setUserTags(userId: "{other}", tags: ["vip"]) }',
        BACKENDS,
    ),
    "trackActivity": (
        'mutation { trackActivity(input: { kind: VIEW, productId: "1" }) }',
        LOGGED_IN,
    ),
    "trackActivity of another": (
        'mutation { trackActivity(input: { kind: VIEW, productId: "1", userId: "{other}" }) }',
        BACKENDS,
    ),
    "markNotificationRead": (f"mutation {{ markNotificationRead({_NO_ID}) {{ id }} }}", LOGGED_IN),
    "markAllNotificationsRead": ("mutation { markAllNotificationsRead { marked } }", LOGGED_IN),
    "markAllNotificationsSeen": ("mutation { markAllNotificationsSeen { marked } }", LOGGED_IN),
    "snoozeNotification": (f"mutation {{ snoozeNotification({_NO_ID}) {{ id }} }}", LOGGED_IN),
    "archiveNotification": (f"mutation {{ archiveNotification({_NO_ID}) {{ id }} }}", LOGGED_IN),
    "createNotification": (
        'mutation { createNotification(input: { userId: "{other}", type: PROMOTION, content: "c" })'
        " { decision { outcome } } }",
        BACKENDS,
    ),
    "scheduleNotification": (
        'mutation { scheduleNotification(input: { userId: "{other}", type: PROMOTION, content: "c",'
        f' at: "{_TOMORROW}" }}) {{ outcome }} }}',
        BACKENDS,
    ),
    "cancelScheduled": (
        'mutation { cancelScheduled(cancelKey: "{unique}") { outcome } }',
        BACKENDS,
    ),
    "createRecommendations": (
        "mutation { createRecommendations { decision { outcome } } }",
        LOGGED_IN,
    ),
    "createRecommendations for another": (
        'mutation { createRecommendations(userId: "{other}") { decision { outcome } } }',
        BACKENDS,
    ),
    "publishOrderStatus": (
        'mutation { publishOrderStatus(input: { orderId: "1", userId: "{other}", status: "paid" })'
        " { eventId } }",
        BACKENDS,
    ),
    "publishPromotion": (
        'mutation { publishPromotion(input: { title: "t", body: "b", userIds: ["{other}"] })'
        " { eventId } }",
        BACKENDS,
    ),
    "publishProduct": (
        'mutation { publishProduct(input: { productId: "1", name: "n", category: "c" })'
        " { eventId } }",
        BACKENDS,
    ),
    "createBroadcast": (
        f"mutation {{ createBroadcast(input: {{ {_BROADCAST} }}) {{ id }} }}",
        ADMINS,
    ),
    "pauseBroadcast": (f"mutation {{ pauseBroadcast({_NO_ID}) {{ id }} }}", ADMINS),
    "resumeBroadcast": (f"mutation {{ resumeBroadcast({_NO_ID}) {{ id }} }}", ADMINS),
    "cancelBroadcast": (f"mutation {{ cancelBroadcast({_NO_ID}) {{ id }} }}", ADMINS),
    "createSchedule": (f"mutation {{ createSchedule({_SCHEDULE}) {{ id }} }}", ADMINS),
    "updateSchedule": (f"mutation {{ updateSchedule({_NO_ID}, {_SCHEDULE}) {{ id }} }}", ADMINS),
    "pauseSchedule": (f"mutation {{ pauseSchedule({_NO_ID}) {{ id }} }}", ADMINS),
    "deleteSchedule": (f"mutation {{ deleteSchedule({_NO_ID}) }}", ADMINS),
    "runSchedule": (f"mutation {{ runSchedule({_NO_ID}) {{ eventId }} }}", ADMINS),
    "revokeSession": (f"mutation {{ revokeSession({_NO_ID}) }}", LOGGED_IN),
    "changePassword": (
        'mutation { changePassword(input: { currentPassword: "{password}", '
        'newPassword: "{unique}" }) { expiresAt } }',
        LOGGED_IN,
    ),
    "requestPasswordReset": (
        'mutation { requestPasswordReset(email: "{unique}@x.example") }',
        ANYONE,
    ),
    "resetPassword": (
        'mutation { resetPassword(input: { token: "x", newPassword: "{unique}" }) }',
        ANYONE,
    ),
    "disableUser": (f"mutation {{ disableUser({_NO_ID}) {{ id }} }}", ADMINS),
    "createApiKey": (
        'mutation { createApiKey(input: { userId: "{backend}", name: "n", scopes: [READ_USERS] })'
        " { key } }",
        ADMINS,
    ),
    "revokeApiKey": (f"mutation {{ revokeApiKey({_NO_ID}) {{ id }} }}", ADMINS),
    "textTemplates": ("query { textTemplates { name } }", ADMINS),
    "previewTextTemplate": (
        f"query {{ previewTextTemplate(input: {{ {_TEXT} }}) {{ title }} }}",
        ADMINS,
    ),
    "saveTextTemplate": (
        f"mutation {{ saveTextTemplate(input: {{ {_TEXT} }}) {{ name }} }}",
        ADMINS,
    ),
    "resetTextTemplate": (
        'mutation { resetTextTemplate(name: "welcome", locale: "fr") }',
        ADMINS,
    ),
    "notificationAdded": ("subscription { notificationAdded { cursor } }", LOGGED_IN),
    "notificationChanged": ("subscription { notificationChanged { kind } }", LOGGED_IN),
    "broadcastProgress": (
        f"subscription {{ broadcastProgress({_NO_ID}) {{ state }} }}",
        ADMINS,
    ),
    "unreadCount as it changes": ("subscription { unreadCount }", LOGGED_IN),
}

# What is named by an id and belongs to one user.
OWNED = {
    "notification": "query ($id: ID!) { notification(id: $id) { id } }",
    "notificationRevisions": "query ($id: ID!) { notificationRevisions(id: $id) { title } }",
    "explain": "query ($id: ID!) { explain(notificationId: $id) { at } }",
    "markNotificationRead": "mutation ($id: ID!) { markNotificationRead(id: $id) { id } }",
    "archiveNotification": "mutation ($id: ID!) { archiveNotification(id: $id) { id } }",
    "snoozeNotification": "mutation ($id: ID!) { snoozeNotification(id: $id) { id } }",
    "revokeSession": "mutation ($id: ID!) { revokeSession(id: $id) }",
}

# These answer a caller who may with a refusal of another kind, since they name nothing that exists.
NAMES_NOTHING = {"NOT_FOUND", "BAD_USER_INPUT"}


class Questions(monitoring.CommandListener):
    """What the database is asked about the things of somebody: in commands that name the user."""

    def __init__(self) -> None:
        self._asked: list[tuple[str, str, str]] = []
        self.listens = True

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        name, command = event.command_name, event.command
        if self.listens and name in ("find", "update", "delete", "findAndModify", "aggregate"):
            self._asked.append((name, str(command[name]), repr(command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass

    def of(self, user_id: str, id: str) -> list[tuple[str, str]]:
        """Those that name both, each with its collection; and it forgets them all."""
        found = [
            (name, collection)
            for name, collection, command in self._asked
            if user_id in command and id in command
        ]
        self._asked.clear()
        return found


@pytest.fixture(scope="module")
def questions() -> Iterator[Questions]:
    made = Questions()
    monitoring.register(made)  # for good
    yield made
    made.listens = False


@pytest.fixture(scope="module")
async def house(questions: Questions, mongod: PrivateMongod) -> AsyncIterator[House]:
    settings = quick_settings(mongod.url, max_sessions_per_user=1000, max_api_keys_per_user=1000)
    async with open_house(settings) as open_:
        yield open_


@pytest.fixture(scope="module")
async def people(house: House) -> dict[Role, Somebody]:
    return {role: await house.somebody(role) for role in Role}


async def filled(house: House, document: str, somebody: Somebody, backend: Somebody) -> str:
    values = {
        "unique": uuid4().hex,
        "other": (await house.somebody()).id,
        "backend": backend.id,
        "email": somebody.email,
        "password": PASSWORD,
        "refresh": somebody.tokens["refreshToken"],
    }
    for name, value in values.items():
        document = document.replace(f"{{{name}}}", value)
    return document


async def outcome(house: House, api: Api, document: str, user_id: str) -> str | None:
    """The code of the refusal, or None."""
    if document.startswith("subscription"):
        return await followed(house, api, document, user_id)
    answer = (await api.post(json={"query": document})).json()
    codes: list[str | None] = [error["extensions"]["code"] for error in answer.get("errors", [])]
    return (codes or [None])[0]


async def followed(house: House, api: Api, document: str, user_id: str) -> str | None:
    """The code of a subscription's refusal; None, when it tells what happens meanwhile."""
    async with api.socket() as socket:
        stream = await socket.subscribe(document)
        hearing = asyncio.ensure_future(stream.next())
        runtime = house.runtime
        while not hearing.done():
            order = NotificationType.ORDER_UPDATE
            await runtime.notifications.create(user_id, order, "news", source="urn:test")
            await runtime.states.mark_all_read(user_id, None)
            await asyncio.wait([hearing], timeout=0.2)
        try:
            hearing.result()
        except GraphQLFailed as failure:
            return failure.code
        return None


@pytest.mark.parametrize("operation", WHO_MAY)
async def test_a_role_may_do_what_it_may_and_nothing_else(
    house: House, people: dict[Role, Somebody], operation: str
) -> None:
    document, who_may = WHO_MAY[operation]
    for role in ANYONE:
        somebody = await house.somebody(role or Role.USER)
        asked = await filled(house, document, somebody, people[Role.SERVICE])
        found = await outcome(house, somebody.api if role else house.api, asked, somebody.id)
        if role not in who_may:
            assert found == ("FORBIDDEN" if role else "UNAUTHENTICATED"), (operation, role)
        elif _NO_ID in document or "resetPassword" in document:
            assert found in NAMES_NOTHING | {None}, (operation, role)
        else:
            assert found is None, (operation, role)


@pytest.mark.parametrize("operation", WHO_MAY)
async def test_an_api_key_may_do_what_its_scope_names_and_nothing_else(
    house: House, people: dict[Role, Somebody], operation: str
) -> None:
    document, who_may = WHO_MAY[operation]
    backend = people[Role.SERVICE]
    asked = await filled(house, document, backend, backend)
    needed = SCOPES.get(operation)
    others = [scope for scope in Scope if scope is not needed]
    _, wrong_key = await house.runtime.api_keys.create(backend.id, "all others", others)
    refused = await outcome(house, house.api.as_(wrong_key), asked, backend.id)
    if NOBODY in who_may:  # whoever asks is not looked at
        assert refused != "FORBIDDEN"
        return
    assert refused == "FORBIDDEN"
    if needed is not None:
        _, key = await house.runtime.api_keys.create(backend.id, "the right one", [needed])
        assert await outcome(house, house.api.as_(key), asked, backend.id) is None


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("operation", OWNED)
async def test_anothers_id_is_an_unknown_id(
    house: House, questions: Questions, operation: str, role: Role
) -> None:
    """The same answer, after the same questions to the database; whatever the asker's role."""
    owner, other = await house.somebody(), await house.somebody(role)
    theirs = await id_of_something(house, operation, owner)
    unknown = str(PydanticObjectId())
    answers, asked = [], []
    for id in (theirs, unknown):
        response = await other.api.post(json={"query": OWNED[operation], "variables": {"id": id}})
        answers.append((response.status_code, response.json()))
        asked.append(questions.of(other.id, id))
    assert answers[0] == answers[1]
    assert asked[0] == asked[1] != []
    await owner.api.ask(OWNED[operation], id=theirs)


async def id_of_something(house: House, operation: str, owner: Somebody) -> str:
    """The id of what the operation is about, which belongs to the owner."""
    if operation == "revokeSession":
        found = (await owner.api.ask("{ sessions { id } }"))["sessions"][0]["id"]
        return str(found)
    order = NotificationType.ORDER_UPDATE
    made = await house.runtime.notifications.create(owner.id, order, "c", source="urn:test")
    assert made.notification is not None
    return str(made.notification.id)


def identified() -> dict[tuple[str, str], set[str]]:
    """The schema's operations, (root, name), and by which ids each names what it is about."""
    schema = make_schema(Settings(_env_file=None))._schema
    found = {}
    for root in (schema.query_type, schema.mutation_type, schema.subscription_type):
        assert root is not None
        for name, operation in root.fields.items():
            arguments = dict(operation.args)
            for argument in operation.args.values():
                arguments |= getattr(get_named_type(argument.type), "fields", {})
            found[root.name.lower(), name] = {
                argument
                for argument, definition in arguments.items()
                if get_named_type(definition.type) is GraphQLID
            }
    return found


# Ids of the caller's own making, or of what belongs to nobody.
NOBODYS = {"eventId", "orderId", "productId"}


def test_the_table_of_who_may_do_what_names_every_operation() -> None:
    written = {
        (document.split()[0], name.partition(" ")[0]) for name, (document, _) in WHO_MAY.items()
    }
    assert written == set(identified())


def test_the_tables_name_whatever_may_be_anothers() -> None:
    """What everybody may do by an id is in OWNED, and what by a user's has a row of its own."""
    everybodys = {
        (name, argument)
        for (_, name), arguments in identified().items()
        if WHO_MAY[name][1] == LOGGED_IN
        for argument in arguments - NOBODYS
    }
    of_others = {name.partition(" ")[0] for name in WHO_MAY if name.endswith(" another")}
    owned = {(name, "notificationId" if name == "explain" else "id") for name in OWNED}
    assert everybodys == owned | {(name, "userId") for name in of_others}
