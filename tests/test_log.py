"""What the log never holds: secrets, addresses, contents; and lines that strangers make."""

from __future__ import annotations

import asyncio
import gc
import logging
from uuid import uuid4

import pytest

from services.shared.log import get_logger, set_up_logging
from services.shared.vocabulary import Role
from tests.entry import ANOTHER, ASK_RESET, LOGIN, ME
from tests.kit import PASSWORD, GraphQLFailed, House

pytestmark = pytest.mark.usefixtures("_log_put_back")

CREATE = """mutation ($input: CreateNotificationInput!) {
  createNotification(input: $input) { decision { outcome } }
}"""


async def test_no_secret_no_address_and_no_content_is_logged(
    house: House, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("DEBUG")  # whatever libraries have to say, too, into what `capfd` sees
    content = f"for your eyes only {uuid4().hex}"
    somebody, backend = await house.somebody(), await house.somebody(Role.SERVICE)
    forged = str(somebody.api.token)[:-5] + "xxxxx"
    with pytest.raises(GraphQLFailed):
        await house.api.as_(forged).ask(ME)
    with pytest.raises(GraphQLFailed):
        await house.api.ask(LOGIN, input={"email": somebody.email, "password": ANOTHER})
    await house.api.ask(ASK_RESET, email=somebody.email)
    order = {"userId": somebody.id, "type": "PROMOTION", "content": content}
    await backend.api.ask(CREATE, input=order)
    database = house.runtime.store.database
    # An unexpected fault of each kind quotes what it was about: the log must not.
    await database["users"].update_one({"email": somebody.email}, {"$set": {"name": 5}})
    await database["notifications"].update_many(
        {"content": content}, {"$set": {"title": {"of": content}}}
    )
    for document in (ME, "{ notifications { edges { node { id title } } } }"):
        with pytest.raises(GraphQLFailed) as failure:
            await somebody.api.ask(document)
        assert failure.value.code == "INTERNAL_SERVER_ERROR"
    logged = "".join(capfd.readouterr())
    assert failure.value.extensions["correlationId"] in logged
    assert "ValidationError at" in logged
    assert "DEBUG " in logged
    for secret in (somebody.email, content, PASSWORD, ANOTHER, forged, str(somebody.api.token)):
        assert secret not in logged
        assert secret.partition("@")[0] not in logged


async def test_what_libraries_log_quotes_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO")
    secret = uuid4().hex

    async def fail() -> None:
        raise ValueError(secret)

    try:
        await fail()
    except ValueError:
        logging.getLogger("some.library").exception("It failed")
    loop = asyncio.get_running_loop()
    forgotten = loop.create_task(fail())
    await asyncio.wait([forgotten])
    del forgotten
    gc.collect()
    logged = capfd.readouterr().err
    assert "It failed" in logged
    assert "never retrieved" in logged
    assert logged.count("ValueError at") == 2
    assert secret not in logged


def test_a_stranger_adds_no_line_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO")
    forged = "x\r\n2026-01-01 level=info action=all_is_well\x1b[2J\x00\u2028\x85"
    get_logger().warning("dead_lettered", reason=forged)
    logged = capfd.readouterr().err
    assert logged.count("\n") == 1
    assert logged.isprintable() or logged[:-1].isprintable()
    assert "\\x1b" in logged
