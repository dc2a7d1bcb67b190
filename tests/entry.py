"""Coming in and being kept out: what the tests of access share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from tests.kit import PASSWORD, PATIENCE, Api, GraphQLFailed, House, Socket

ME = "{ me { id } }"
LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { accessToken user { id } } }"
SESSIONS = "{ sessions { id client createdAt lastUsedAt expiresAt current } }"
CHANGE = """mutation ($current: String!, $new: String!) {
  changePassword(input: { currentPassword: $current, newPassword: $new }) { accessToken }
}"""
ASK_RESET = "mutation ($email: String!) { requestPasswordReset(email: $email) }"
RESET = """mutation ($token: String!, $new: String!) {
  resetPassword(input: { token: $token, newPassword: $new })
}"""
FOLLOW = "subscription { unreadCount }"
ANOTHER = "quite another password"


@contextmanager
def refused(code: str, field: str | None = None) -> Iterator[None]:
    with pytest.raises(GraphQLFailed) as failure:
        yield
    assert (failure.value.code, failure.value.field) == (code, field), failure.value


async def log_in(house: House, email: str, password: str = PASSWORD) -> Api:
    login = await house.api.ask(LOGIN, input={"email": email, "password": password})
    return house.api.as_(login["login"]["accessToken"])


async def refusal(api: Api, document: str, **variables: Any) -> dict[str, Any]:
    """All that a caller hears of a refusal."""
    response = await api.post(json={"query": document, "variables": variables})
    errors = response.json()["errors"]
    return {**errors[0], "status": response.status_code}


@asynccontextmanager
async def followed(api: Api) -> AsyncIterator[Socket]:
    """An open socket on which a subscription runs."""
    async with api.socket() as socket:
        stream = await socket.subscribe(FOLLOW)
        await stream.next()
        yield socket


async def close_code(socket: Socket) -> int | None:
    """The code of the close, whatever is said before."""
    async with asyncio.timeout(PATIENCE):
        await socket.connection.wait_closed()
    return socket.connection.close_code
