"""Who may come in: sessions and their end, passwords, guesses, disabled accounts and API keys."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.shared.errors import RateLimited, Unauthenticated
from services.shared.throttle import Rate, Throttle
from services.shared.vocabulary import Role, Scope
from services.users.guesses import Guesses
from services.users.models import User
from services.users.passwords import Passwords
from services.users.sessions import Caller
from tests.entry import (
    ANOTHER,
    ASK_RESET,
    CHANGE,
    FOLLOW,
    LOGIN,
    ME,
    SESSIONS,
    close_code,
    followed,
    log_in,
    refusal,
    refused,
)
from tests.kit import (
    PASSWORD,
    GraphQLFailed,
    House,
    ShiftedClock,
    Somebody,
)
from tests.servers import PrivateMongod

REVOKE = "mutation ($id: ID!) { revokeSession(id: $id) }"
DISABLE = """mutation ($id: ID!, $disabled: Boolean! = true) {
  disableUser(id: $id, disabled: $disabled) { id disabledAt }
}"""
CREATE_KEY = """mutation ($input: CreateApiKeyInput!) {
  createApiKey(input: $input) { key apiKey { id name scopes lastUsedAt revokedAt } }
}"""
REVOKE_KEY = "mutation ($id: ID!) { revokeApiKey(id: $id) { id revokedAt } }"
KEYS = "{ apiKeys { id userId name scopes createdAt lastUsedAt revokedAt } }"
ORDER = """mutation ($input: OrderStatusInput!) { publishOrderStatus(input: $input) { eventId } }"""


@pytest.fixture(scope="module")
async def admin(house: House) -> Somebody:
    return await house.somebody(Role.ADMIN)


# Sessions


async def test_a_user_sees_the_sessions_that_are_open_the_last_used_first(house: House) -> None:
    somebody = await house.somebody()
    other = await log_in(house, somebody.email)
    found = (await other.ask(SESSIONS))["sessions"]
    assert [session["current"] for session in found] == [True, False]
    assert found[0]["client"].startswith("python-httpx")
    await other.ask("mutation { logout }")
    assert len((await somebody.api.ask(SESSIONS))["sessions"]) == 1


async def test_a_session_that_is_revoked_ends_at_once_with_its_socket(house: House) -> None:
    somebody = await house.somebody()
    other = await log_in(house, somebody.email)
    current = (await other.ask(SESSIONS))["sessions"][0]["id"]
    async with followed(other) as ending, followed(somebody.api) as staying:
        assert (await somebody.api.ask(REVOKE, id=current))["revokeSession"] is True
        assert await close_code(ending) == 4403
        await (await staying.subscribe(FOLLOW)).next()
    with refused("UNAUTHENTICATED"):
        await other.ask(ME)


async def test_anothers_session_is_an_unknown_session(house: House) -> None:
    somebody, other = await house.somebody(), await house.somebody()
    theirs = (await other.api.ask(SESSIONS))["sessions"][0]["id"]
    answers = [
        await refusal(somebody.api, REVOKE, id=id) for id in (theirs, "0" * 24, "no id at all")
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["extensions"] == {"code": "NOT_FOUND"}
    await other.api.ask(ME)


async def test_logout_everywhere_ends_all_sessions_and_their_sockets(house: House) -> None:
    somebody = await house.somebody()
    other = await log_in(house, somebody.email)
    async with followed(somebody.api) as first, followed(other) as second:
        await other.ask("mutation { logout(everywhere: true) }")
        assert await close_code(first) == await close_code(second) == 4403
    for api in (somebody.api, other):
        with refused("UNAUTHENTICATED"):
            await api.ask(ME)


async def test_any_refresh_token_that_was_used_before_ends_the_session(house: House) -> None:
    somebody = await house.somebody()
    document = "mutation ($t: String!) { refreshSession(refreshToken: $t) { refreshToken } }"
    tokens = [somebody.tokens["refreshToken"]]
    for _ in range(3):
        renewed = await house.api.ask(document, t=tokens[-1])
        tokens.append(renewed["refreshSession"]["refreshToken"])
    for token in (tokens[0], tokens[-1]):
        with refused("UNAUTHENTICATED"):
            await house.api.ask(document, t=token)
    with refused("UNAUTHENTICATED"):
        await somebody.api.ask(ME)


# Passwords


@pytest.mark.parametrize(
    "password", ["short77", "x" * 257, "password123", "PASSWORD123", "iloveyou!"]
)
async def test_a_password_that_is_too_short_too_long_or_common_is_refused(
    house: House, password: str
) -> None:
    if password == "iloveyou!":  # its own address
        password = f"{uuid4().hex}@shop.example"
    input = {"name": "A", "email": f"{uuid4().hex}@shop.example", "password": password}
    if "@" in password:
        input["email"] = password.upper()
    document = "mutation ($input: RegisterInput!) { register(input: $input) { accessToken } }"
    with refused("BAD_USER_INPUT", "input.password"):
        await house.api.ask(document, input=input)


async def test_a_changed_password_ends_all_sessions_and_opens_one(house: House) -> None:
    somebody = await house.somebody()
    other = await log_in(house, somebody.email)
    async with followed(other) as socket:
        changed = await somebody.api.ask(CHANGE, current=PASSWORD, new=ANOTHER)
        assert await close_code(socket) == 4403
    await house.api.as_(changed["changePassword"]["accessToken"]).ask(ME)
    for api in (somebody.api, other):
        with refused("UNAUTHENTICATED"):
            await api.ask(ME)
    with refused("UNAUTHENTICATED"):
        await log_in(house, somebody.email)
    await log_in(house, somebody.email, ANOTHER)


async def test_nobody_changes_a_password_without_the_one_that_counts(house: House) -> None:
    somebody = await house.somebody()
    with refused("BAD_USER_INPUT", "input.currentPassword"):
        await somebody.api.ask(CHANGE, current=ANOTHER, new=ANOTHER)
    with refused("BAD_USER_INPUT", "input.newPassword"):
        await somebody.api.ask(CHANGE, current=PASSWORD, new="password1")
    await somebody.api.ask(ME)


async def test_guesses_at_the_current_password_are_counted_too(house: House) -> None:
    somebody = await house.somebody()
    codes = []
    for _ in range(11):
        with pytest.raises(GraphQLFailed) as failure:
            await somebody.api.ask(CHANGE, current=ANOTHER, new=ANOTHER)
        codes.append(failure.value.code)
    assert codes == ["BAD_USER_INPUT"] * 10 + ["RATE_LIMITED"]


async def test_asking_for_a_reset_tells_nobody_whether_there_is_an_account(house: House) -> None:
    somebody = await house.somebody()
    unknown = f"{uuid4().hex}@shop.example"
    seconds: dict[str, list[float]] = {somebody.email: [], unknown: []}
    for _ in range(3):
        for email, times in seconds.items():
            began = time.perf_counter()
            assert (await house.api.ask(ASK_RESET, email=email))["requestPasswordReset"] is True
            times.append(time.perf_counter() - began)
    known_time, unknown_time = map(min, seconds.values())  # others only add to it
    assert known_time == pytest.approx(unknown_time, rel=0.05)
    for email in seconds:
        with refused("RATE_LIMITED"):
            await house.api.ask(ASK_RESET, email=email)


# Guesses


async def test_after_ten_wrong_passwords_even_the_right_one_has_to_wait(
    house: House, clock: ShiftedClock
) -> None:
    somebody = await house.somebody()
    for _ in range(10):
        with refused("UNAUTHENTICATED"):
            await log_in(house, somebody.email, ANOTHER)
    with pytest.raises(GraphQLFailed) as failure:
        await log_in(house, somebody.email)
    assert failure.value.code == "RATE_LIMITED"
    wait = failure.value.extensions["retryAfter"]
    assert 1 <= wait <= 90
    with clock.moved(timedelta(seconds=wait)):
        await log_in(house, somebody.email)


async def test_passwords_that_are_right_are_not_counted(house: House) -> None:
    somebody = await house.somebody()
    for _ in range(15):
        await log_in(house, somebody.email)


async def test_an_unknown_account_is_refused_as_a_known_one_is(house: House) -> None:
    somebody = await house.somebody()
    unknown = f"{uuid4().hex}@shop.example"
    answers = [
        [
            await refusal(house.api, LOGIN, input={"email": email, "password": ANOTHER})
            for _ in range(11)
        ]
        for email in (somebody.email, unknown)
    ]
    for known, other in zip(*answers, strict=True):
        assert known == other
    assert answers[0][-1]["extensions"]["code"] == "RATE_LIMITED"


async def test_many_guesses_in_one_request_are_stopped_by_the_limiter(house: House) -> None:
    somebody = await house.somebody()
    guesses = [
        f'a{n}: login(input: {{ email: "{somebody.email}", password: "guess number {n}" }})'
        " { accessToken }"
        for n in range(1000)
    ]
    at_once = (await house.api.post(json={"query": f"mutation {{ {' '.join(guesses)} }}"})).json()
    assert at_once["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    codes: list[str] = []
    for start in range(0, 225, 15):
        some = " ".join(guesses[start : start + 15])
        answer = (await house.api.post(json={"query": f"mutation {{ {some} }}"})).json()
        codes += [error["extensions"]["code"] for error in answer["errors"]]
    assert codes.count("UNAUTHENTICATED") <= 10
    assert "RATE_LIMITED" in codes
    batch = [{"query": f"mutation {{ {guess} }}"} for guess in guesses]
    assert (await house.api.post(json=batch)).status_code == 400


async def test_one_account_is_guessed_at_in_any_spelling(house: House) -> None:
    somebody, access = await house.somebody(), house.runtime.access
    spellings = (somebody.email, f" {somebody.email.upper()} ", somebody.email.title())
    for n in range(10):
        with pytest.raises(Unauthenticated):
            await access.log_in(spellings[n % 3], ANOTHER, Caller("203.0.113.20"))
    for spelling in spellings:
        with pytest.raises(RateLimited):
            await access.log_in(spelling, ANOTHER, Caller("203.0.113.20"))


async def test_a_guess_whose_answer_nobody_waits_for_counts(house: House) -> None:
    runtime, key = house.runtime, f"{uuid4().hex}@shop.example"
    guesses = Guesses(Throttle(runtime.clock), runtime.clock, runtime.settings)
    for _ in range(runtime.settings.login_failures):
        with pytest.raises(asyncio.CancelledError):
            async with guesses.login(key, "203.0.113.30"):
                raise asyncio.CancelledError
    with pytest.raises(RateLimited):
        async with guesses.login(key, "203.0.113.30"):
            pass


async def test_strangers_do_not_keep_out_the_owner(house: House, clock: ShiftedClock) -> None:
    """Who guesses from many addresses, for as long as it pleases them."""
    somebody, access = await house.somebody(), house.runtime.access
    home, elsewhere = Caller("198.51.100.1"), Caller("198.51.100.2")
    await access.log_in(somebody.email, PASSWORD, home)
    for n in range(40):
        with pytest.raises((Unauthenticated, RateLimited)):
            await access.log_in(somebody.email, ANOTHER, Caller(f"203.0.113.{40 + n % 5}"))
    with pytest.raises(RateLimited):
        await access.log_in(somebody.email, PASSWORD, elsewhere)
    await access.log_in(somebody.email, PASSWORD, home)
    await access.change_password(somebody.id, PASSWORD, ANOTHER, elsewhere)
    with clock.moved(timedelta(seconds=house.runtime.settings.refresh_token_seconds + 1)):
        for n in range(40):
            with pytest.raises((Unauthenticated, RateLimited)):
                await access.log_in(somebody.email, "x", Caller(f"203.0.113.{40 + n % 5}"))
        with pytest.raises(RateLimited):  # it is too long ago that they came from there
            await access.log_in(somebody.email, ANOTHER, home)


async def test_a_session_is_opened_by_what_counts_when_it_is_opened(house: House) -> None:
    sessions, access = house.runtime.sessions, house.runtime.access
    for change in (
        lambda user_id: access.disable(user_id, True),
        lambda user_id: access.change_password(user_id, PASSWORD, ANOTHER, Caller("203.0.113.50")),
    ):
        somebody = await house.somebody()
        shown = await User.by_id(somebody.id)  # as a login finds it, just before
        assert shown is not None
        await change(somebody.id)
        with pytest.raises(Unauthenticated):
            await sessions.open(shown, Caller("203.0.113.50"))


async def test_tokens_are_kept_as_hashes(house: House) -> None:
    somebody = await house.somebody()
    await house.api.ask(ASK_RESET, email=somebody.email)
    database = house.runtime.store.database
    secret = somebody.tokens["refreshToken"].rpartition(".")[2]
    for collection in ("sessions", "password_resets"):
        rows = await database[collection].find({"user_id": somebody.id}).to_list()
        assert rows
        assert secret not in str(rows)
        assert {type(row["token_hash"]) for row in rows} == {bytes}
        assert {len(row["token_hash"]) for row in rows} == {32}


async def test_two_gateways_count_together(mongod: PrivateMongod, house: House) -> None:
    rate = Rate(f"test {uuid4().hex}", 10, timedelta(minutes=15))
    first, second = Throttle(house.runtime.clock), Throttle(house.runtime.clock)

    async def allowed(throttle: Throttle) -> bool:
        try:
            await throttle.spend(rate, "somebody")
        except RateLimited:
            return False
        return True

    attempts = [allowed(throttle) for _ in range(25) for throttle in (first, second)]
    assert sum(await asyncio.gather(*attempts)) == 10


async def test_an_address_that_guesses_locks_out_nobody_at_another(house: House) -> None:
    somebody, access = await house.somebody(), house.runtime.access
    for _ in range(12):
        with pytest.raises(Exception, match=r"wrong|attempts"):
            await access.log_in(somebody.email, ANOTHER, Caller("203.0.113.9"))
    await access.log_in(somebody.email, PASSWORD, Caller("203.0.113.10"))


async def test_too_many_passwords_at_once_are_refused_and_not_kept_waiting() -> None:
    passwords = Passwords(cost=8, at_once=1, waiting=3, per_address=4)
    attempts = [passwords.hash(f"password {n}", "203.0.113.9") for n in range(10)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(result, bytes) for result in results) == 4
    assert sum(isinstance(result, RateLimited) for result in results) == 6
    assert isinstance(await passwords.hash("there is room again", "203.0.113.9"), bytes)


async def test_one_address_leaves_room_for_the_passwords_of_others() -> None:
    passwords = Passwords(cost=8, at_once=1, waiting=9, per_address=3)
    many = [passwords.hash(f"password {n}", "203.0.113.9") for n in range(8)]
    results = await asyncio.gather(
        *many, passwords.hash("another's", "203.0.113.10"), return_exceptions=True
    )
    assert [isinstance(result, bytes) for result in results] == [True] * 3 + [False] * 5 + [True]


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere threads have no niceness of their own"
)
async def test_passwords_give_way_to_all_else() -> None:
    def threads() -> set[int]:
        return {int(id) for id in os.listdir("/proc/self/task")}

    before, mine = threads(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    passwords = Passwords(cost=4, at_once=2, waiting=3, per_address=4)
    await asyncio.gather(*(passwords.hash(f"password {n}", "") for n in range(4)))
    niceness = {os.getpriority(os.PRIO_PROCESS, id) for id in threads() - before}
    assert niceness
    assert min(niceness) > mine


# Accounts that are disabled


async def test_a_disabled_user_is_out_at_once_and_may_come_back(
    house: House, admin: Somebody
) -> None:
    somebody = await house.somebody()
    async with followed(somebody.api) as socket:
        disabled = (await admin.api.ask(DISABLE, id=somebody.id))["disableUser"]
        assert disabled["disabledAt"] is not None
        assert await close_code(socket) == 4403
    with refused("UNAUTHENTICATED"):
        await somebody.api.ask(ME)
    wrong = await refusal(house.api, LOGIN, input={"email": somebody.email, "password": ANOTHER})
    right = await refusal(house.api, LOGIN, input={"email": somebody.email, "password": PASSWORD})
    assert right == wrong
    with refused("UNAUTHENTICATED"):
        document = "mutation ($t: String!) { refreshSession(refreshToken: $t) { accessToken } }"
        await house.api.ask(document, t=somebody.tokens["refreshToken"])
    enabled = (await admin.api.ask(DISABLE, id=somebody.id, disabled=False))["disableUser"]
    assert enabled["disabledAt"] is None
    await log_in(house, somebody.email)


async def test_an_admin_does_not_lock_themselves_out(admin: Somebody) -> None:
    with refused("BAD_USER_INPUT", "id"):
        await admin.api.ask(DISABLE, id=admin.id)


# API keys


async def make_key(admin: Somebody, backend: Somebody, *scopes: str) -> dict[str, Any]:
    input = {"userId": backend.id, "name": "the shop", "scopes": list(scopes)}
    made: dict[str, Any] = (await admin.api.ask(CREATE_KEY, input=input))["createApiKey"]
    return made


async def test_an_api_key_may_do_what_its_scopes_name_and_nothing_else(
    house: House, admin: Somebody
) -> None:
    backend, customer = await house.somebody(Role.SERVICE), await house.somebody()
    made = await make_key(admin, backend, "PUBLISH_ORDERS")
    api = house.api.as_(made["key"])
    order = {"orderId": "1", "userId": customer.id, "status": "shipped"}
    await api.ask(ORDER, input=order)
    promotion = 'mutation { publishPromotion(input: { title: "t", body: "b" }) { eventId } }'
    for document in (ME, SESSIONS, promotion, "{ notifications { edges { cursor } } }", KEYS):
        with refused("FORBIDDEN"):
            await api.ask(document)
    async with api.socket() as socket:
        with refused("FORBIDDEN"):
            await (await socket.subscribe(FOLLOW)).next()


async def test_events_have_the_same_source_by_key_and_by_login(
    house: House, admin: Somebody
) -> None:
    backend, customer = await house.somebody(Role.SERVICE), await house.somebody()
    made = await make_key(admin, backend, "PUBLISH_ORDERS")
    order = {"orderId": "1", "userId": customer.id, "status": "shipped", "eventId": "one"}
    await house.api.as_(made["key"]).ask(ORDER, input=order)
    await backend.api.ask(ORDER, input=order)
    with refused("CONFLICT"):
        await backend.api.ask(ORDER, input=order | {"status": "delivered"})


async def test_a_key_is_shown_once_and_its_use_is_kept(house: House, admin: Somebody) -> None:
    backend, customer = await house.somebody(Role.SERVICE), await house.somebody()
    made = await make_key(admin, backend, "PUBLISH_ORDERS")
    stored = await house.runtime.store.database["api_keys"].find_one(
        {"name": "the shop", "user_id": backend.id}
    )
    assert made["key"].rpartition("_")[2] not in str(stored)
    order = {"orderId": "1", "userId": customer.id, "status": "shipped"}
    await house.api.as_(made["key"]).ask(ORDER, input=order)
    keys = {key["id"]: key for key in (await admin.api.ask(KEYS))["apiKeys"]}
    assert keys[made["apiKey"]["id"]]["lastUsedAt"] is not None


async def test_a_revoked_key_is_refused_as_one_that_never_was(
    house: House, admin: Somebody
) -> None:
    backend = await house.somebody(Role.SERVICE)
    made = await make_key(admin, backend, "READ_USERS")
    user = "query ($id: ID!) { user(id: $id) { id } }"
    await house.api.as_(made["key"]).ask(user, id=backend.id)
    await admin.api.ask(REVOKE_KEY, id=made["apiKey"]["id"])
    others = [f"tidings_{'0' * 24}_{'x' * 43}", made["key"][:-1], "tidings_", "tidings_x_y"]
    answers = [
        await refusal(house.api.as_(key), user, id=backend.id) for key in (made["key"], *others)
    ]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_a_backend_has_so_many_keys_and_no_more(house: House, admin: Somebody) -> None:
    backend, keys = await house.somebody(Role.SERVICE), house.runtime.api_keys
    made = [await keys.create(backend.id, "one", [Scope.READ_USERS]) for _ in range(50)]
    with refused("BAD_USER_INPUT", "input.userId"):
        await make_key(admin, backend, "READ_USERS")
    await keys.revoke(str(made[0][0].id))
    await make_key(admin, backend, "READ_USERS")


async def test_keys_are_for_backends_only(house: House, admin: Somebody) -> None:
    customer, backend = await house.somebody(), await house.somebody(Role.SERVICE)
    with refused("BAD_USER_INPUT", "input.userId"):
        await make_key(admin, customer, "READ_USERS")
    with refused("BAD_USER_INPUT", "input.scopes"):
        await make_key(admin, backend)


async def test_the_key_of_a_disabled_backend_counts_no_more(house: House, admin: Somebody) -> None:
    backend = await house.somebody(Role.SERVICE)
    made = await make_key(admin, backend, "READ_USERS")
    await admin.api.ask(DISABLE, id=backend.id)
    with refused("UNAUTHENTICATED"):
        await house.api.as_(made["key"]).ask('{ user(id: "x") { id } }')
