"""Who may come in, where settings or a broker of its own make the difference: a house for each."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import aio_pika
import pytest

from services.shared import topology
from services.shared.errors import RateLimited, Unauthenticated
from services.users.credentials import Session
from services.users.passwords import Passwords
from services.users.sessions import Caller
from tests.entry import (
    ANOTHER,
    ASK_RESET,
    ME,
    RESET,
    SESSIONS,
    close_code,
    followed,
    log_in,
    refused,
)
from tests.kit import (
    PASSWORD,
    PATIENCE,
    GraphQLFailed,
    ShiftedClock,
    forget_queues,
    open_house,
    quick_settings,
)
from tests.servers import PrivateMongod, PrivateRabbitMQ, until


async def test_a_socket_ends_when_its_session_is_found_ended_though_no_event_told_it(
    mongod: PrivateMongod,
) -> None:
    async with open_house(quick_settings(mongod.url, session_check_seconds=0.2)) as house:
        somebody = await house.somebody()
        other = await house.somebody()
        async with followed(somebody.api) as socket:
            await Session.find({"user_id": somebody.id}).delete()
            closing = asyncio.ensure_future(close_code(socket))
            while not closing.done():  # news of other sockets puts nothing off
                async with other.api.socket():
                    await asyncio.wait([closing], timeout=0.05)
            assert closing.result() == 4403


async def test_a_login_too_many_ends_the_session_that_was_unused_for_longest(
    mongod: PrivateMongod,
) -> None:
    async with open_house(quick_settings(mongod.url, max_sessions_per_user=2)) as house:
        somebody = await house.somebody()
        second, third = await log_in(house, somebody.email), await log_in(house, somebody.email)
        with refused("UNAUTHENTICATED"):
            await somebody.api.ask(ME)
        assert len((await third.ask(SESSIONS))["sessions"]) == 2
        await second.ask(ME)


async def test_a_password_is_reset_with_the_token_of_the_event_once(
    mongod: PrivateMongod, rabbitmq: PrivateRabbitMQ
) -> None:
    settings, clock = quick_settings(mongod.url, rabbitmq_url=rabbitmq.url), ShiftedClock()
    async with open_house(settings, clock) as house, mails(rabbitmq.url) as mail:
        somebody = await house.somebody()
        assert await house.api.ask(ASK_RESET, email=somebody.email.upper())
        asked = json.loads(await mail())["data"]
        assert (asked["userId"], asked["email"]) == (somebody.id, somebody.email)
        clock.shift += timedelta(minutes=61)
        with refused("BAD_USER_INPUT", "input.token"):
            await house.api.ask(RESET, token=asked["token"], new=ANOTHER)
        await house.api.ask(ASK_RESET, email=somebody.email)
        token = json.loads(await mail())["data"]["token"]
        with refused("BAD_USER_INPUT", "input.newPassword"):
            await house.api.ask(RESET, token=token, new="password1")
        api = await log_in(house, somebody.email)
        async with followed(api) as socket:
            assert (await house.api.ask(RESET, token=token, new=ANOTHER))["resetPassword"] is True
            assert await close_code(socket) == 4403
        with refused("BAD_USER_INPUT", "input.token"):
            await house.api.ask(RESET, token=token, new=PASSWORD)
        await log_in(house, somebody.email, ANOTHER)
        # Those who guess at the account from everywhere do not keep out who has reset it.
        access, password = house.runtime.access, "a third password"
        away = Caller("198.51.100.9")  # from where they never came

        async def guess_from_everywhere() -> None:
            for number in range(40):
                with suppress(Unauthenticated, RateLimited):
                    await access.log_in(somebody.email, "x", Caller(f"203.0.113.{number % 5}"))

        for _ in range(10):  # the owner tries what they remember
            with pytest.raises(Unauthenticated):
                await access.log_in(somebody.email, "x", away)
        await guess_from_everywhere()
        with pytest.raises(RateLimited):
            await access.log_in(somebody.email, ANOTHER, away)
        await house.api.ask(ASK_RESET, email=somebody.email)
        token = json.loads(await mail())["data"]["token"]
        attempts = [access.reset_password(token, password, away) for _ in range(5)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        assert results.count(None) == 1  # a token counts once
        await guess_from_everywhere()
        await access.log_in(somebody.email, password, away)
    await forget_queues(rabbitmq.url, settings)


@asynccontextmanager
async def mails(url: str) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """What a mail channel hears: the next event, when it is there."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topology.EVENTS, "user.password_reset_requested")

        async def mail() -> bytes:
            found = await until(lambda: queue.get(no_ack=True, fail=False), PATIENCE)
            assert found is not None
            return found.body

        yield mail


async def test_one_address_that_tries_many_accounts_is_stopped(mongod: PrivateMongod) -> None:
    async with open_house(quick_settings(mongod.url, login_failures_per_address=5)) as house:
        codes = []
        for _ in range(6):
            with pytest.raises(GraphQLFailed) as failure:
                await log_in(house, f"{uuid4().hex}@shop.example")
            codes.append(failure.value.code)
        assert codes == ["UNAUTHENTICATED"] * 5 + ["RATE_LIMITED"]


async def test_attempts_that_were_not_wrong_are_not_counted(mongod: PrivateMongod) -> None:
    settings = quick_settings(mongod.url, bcrypt_at_once=1, bcrypt_waiting=1, bcrypt_cost=8)
    async with open_house(settings) as house:
        somebody = await house.somebody()
        refusals = 0
        for _ in range(4):
            attempts = [log_in(house, somebody.email) for _ in range(9)]
            results = await asyncio.gather(*attempts, return_exceptions=True)
            refusals += sum(isinstance(result, GraphQLFailed) for result in results)
        assert refusals > 12  # there was no room for their passwords
        await log_in(house, somebody.email)
        allowances = house.runtime.store.database["allowances"]
        now = house.runtime.clock.now()
        assert await allowances.count_documents({"spent_until": {"$gt": now}}) == 0


async def test_one_address_registers_so_many_and_then_waits(mongod: PrivateMongod) -> None:
    document = "mutation ($input: RegisterInput!) { register(input: $input) { accessToken } }"
    async with open_house(quick_settings(mongod.url, registrations_per_address=2)) as house:
        for expected in (None, None, "RATE_LIMITED"):
            input = {"name": "A", "email": f"{uuid4().hex}@shop.example", "password": PASSWORD}
            answer = (
                await house.api.post(json={"query": document, "variables": {"input": input}})
            ).json()
            found = [error["extensions"]["code"] for error in answer.get("errors", [])]
            assert found == ([expected] if expected else [])


async def test_every_account_takes_as_long_as_an_unknown_one(mongod: PrivateMongod) -> None:
    """Quartiles of all tries, alternated: what disturbs the machine makes the slower ones slower.
    On one that is busy it takes more of them."""
    counts = {"login_failures": 1000, "login_failures_per_account": 1000}
    settings = quick_settings(mongod.url, bcrypt_cost=10, **counts)
    async with open_house(settings) as house:
        known, disabled, hashed_cheaply = [await house.somebody() for _ in range(3)]
        await house.runtime.access.disable(disabled.id, True)
        await house.runtime.store.database["users"].update_one(
            {"email": hashed_cheaply.email},
            {"$set": {"password_hash": await Passwords(8, 1, 1, 1).hash(PASSWORD, "")}},
        )
        emails = [one.email for one in (known, disabled, hashed_cheaply)]
        times: dict[str, list[float]] = {email: [] for email in ("nobody@shop.example", *emails)}
        for _ in range(5):
            for _ in range(40):
                for email, taken in times.items():
                    began = time.perf_counter()
                    with refused("UNAUTHENTICATED"):
                        await log_in(house, email, ANOTHER)
                    taken.append(time.perf_counter() - began)
            unknown, *others = (statistics.quantiles(taken)[0] for taken in times.values())
            ratios = [other / unknown for other in others]
            if max(abs(ratio - 1) for ratio in ratios) < 0.05:
                return
        pytest.fail(f"Known, disabled and cheaply hashed accounts take {ratios} of an unknown's.")
