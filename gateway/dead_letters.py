"""Dead letters in GraphQL: what nobody could handle, to be looked at, put back or thrown away."""

from __future__ import annotations

import asyncio
import codecs
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

import msgspec
import strawberry
from strawberry import ID

from gateway.arguments import checked_first
from gateway.context import Info, Services, only
from gateway.enums import Role
from services.shared import bus
from services.shared.errors import NotFound, TooComplex, Unavailable
from services.shared.settings import Settings

_LONGEST: Final = 2000  # characters of what others wrote
_MARK: Final = "…"

Id = Annotated[ID, strawberry.argument(description="Its id, in whole.")]


class _Head(msgspec.Struct):
    """What an event says of itself, if it is one."""

    id: Any = None
    type: Any = None


@strawberry.type(description="An event that nobody could handle.")
class DeadLetter:
    id: ID = strawberry.field(description="Its own, since it was given up.")
    queue: str = strawberry.field(description="Where it came from, and where a replay puts it.")
    event_id: str | None = strawberry.field(
        description="The event's id, if one can be read from the body."
    )
    type: str | None = strawberry.field(description="The event's type, if one can be read.")
    reason: str = strawberry.field(description="Why it was given up: of the last failure.")
    failed_at: datetime = strawberry.field(description="When it was given up.")
    attempts: int | None = strawberry.field(
        description="How often handling it has failed since it was published, or replayed; null "
        "where it never did, and its consumers died of it."
    )
    body: str = strawberry.field(
        description="As it was published, as text; what is longer than DEAD_LETTER_SHOWN_BYTES is "
        "cut off."
    )
    body_bytes: int = strawberry.field(description="How long the whole body is.")

    @classmethod
    def of(cls, letter: bus.DeadLetter, settings: Settings) -> DeadLetter:
        head = _head(letter.body, settings.max_event_bytes)
        return cls(
            id=ID(letter.id),
            queue=letter.queue,
            event_id=_word(head.id),
            type=_word(head.type),
            reason=_cut(letter.reason),
            failed_at=letter.died_at,
            attempts=letter.failures or None,
            body=_shown(letter.body, settings.dead_letter_shown_bytes),
            body_bytes=len(letter.body),
        )


@strawberry.type
class DeadLetterQuery:
    @strawberry.field(
        description="Events that nobody could handle, the oldest first, up to MAX_PAGE_SIZE. On "
        "RabbitMQ a look takes all in hand for a moment, and another meanwhile sees fewer, or "
        "none; beyond DEAD_LETTERS_GONE_THROUGH it is refused. Don't poll it: ask operations how "
        "many there are. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def dead_letters(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many.")] = 20,
    ) -> list[DeadLetter]:
        services = info.context.services
        most = checked_first(first, services.settings)
        await _check_broker(services)
        read = partial(DeadLetter.of, settings=services.settings)
        found = await services.bus.dead_letters_as(read, most) if most else []
        await info.context.note("dead_letters_read", letters=[one.id for one in found])
        return list(found)


@strawberry.type
class DeadLetterMutation:
    @strawberry.mutation(
        description="Put a dead letter back in its queue, as if it had never failed: once what "
        "stopped it is mended. For ADMIN.",
        extensions=only(Role.ADMIN),
    )
    async def replay_dead_letter(self, info: Info, id: Id) -> bool:
        services = info.context.services
        await _check_broker(services)
        await info.context.note("dead_letter_replaying", letter=_cut(id))
        _check_done(await services.bus.replay(id))
        await info.context.note("dead_letter_replayed", letter=id)
        return True

    @strawberry.mutation(
        description="Delete a dead letter for good. For ADMIN.", extensions=only(Role.ADMIN)
    )
    async def discard_dead_letter(self, info: Info, id: Id) -> bool:
        services = info.context.services
        await _check_broker(services)
        await info.context.note("dead_letter_discarding", letter=_cut(id))
        _check_done(await services.bus.discard(id))
        await info.context.note("dead_letter_discarded", letter=id)
        return True


async def _check_broker(services: Services) -> None:
    """Raises Unavailable at once: to look for letters is tried for long. Raises TooComplex where
    RabbitMQ, which hands out all of them for each look, has too many."""
    settings = services.settings
    try:
        async with asyncio.timeout(settings.rabbitmq_timeout_seconds):
            await services.bus.ping()
    except TimeoutError as error:
        raise Unavailable("RabbitMQ, where the dead letters lie, does not answer.") from error
    if not settings.rabbitmq_url:
        return
    count, most = (await services.bus.depths()).dead_letters, settings.dead_letters_gone_through
    if count > most:
        raise TooComplex(
            f"There are {count:,} dead letters; from {most:,} on they are a matter for the command "
            "line: `python -m services dead-letters` lists them, `dead-letters replay ID` and "
            "`dead-letters discard ID` take one, or --all."
        )


def _check_done(count: int) -> None:
    if not count:
        raise NotFound(
            "There is no such dead letter: it was replayed or discarded before, or is looked at "
            "just now. Read the list again."
        )


def _head(body: bytes, longest: int) -> _Head:
    """Of a body that may be anything, and of any length."""
    if len(body) > longest:
        return _Head()
    try:
        return msgspec.json.decode(body, type=_Head)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Head()


def _word(value: Any) -> str | None:
    return _cut(value) if isinstance(value, str) else None


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + _MARK


def _shown(body: bytes, most: int) -> str:
    """As much of it, with what is no UTF-8 replaced; no character is cut in two."""
    whole = len(body) <= most
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(body[:most], final=whole) + ("" if whole else _MARK)
