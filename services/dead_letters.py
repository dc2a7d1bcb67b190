"""What an operator does about events that nobody could handle: look, put back, throw away."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from services.shared.bus import Bus, DeadLetter
from services.shared.errors import BadInput, NotFound

Command = Callable[[Bus, argparse.Namespace], Awaitable[Sequence[str]]]

_MOST_LISTED: Final = 10_000
_LISTED: Final = 50
_ID_SHOWN, _REASON_SHOWN = 8, 80


def add_commands(
    parser: argparse.ArgumentParser, run: Callable[[Command, argparse.Namespace], int]
) -> None:
    """Add the verbs to `dead-letters`; `run` opens a bus and prints the lines of a command."""
    parser.add_argument("--limit", type=_count, default=_LISTED)
    parser.set_defaults(run=lambda chosen: run(listed, chosen))
    verbs = parser.add_subparsers(metavar="VERB")
    listing = verbs.add_parser("list", help="one line for each, the oldest first (the default)")
    listing.add_argument("--limit", type=_count, default=_LISTED)
    listing.set_defaults(run=lambda chosen: run(listed, chosen))
    showing = verbs.add_parser("show", help="all of one, its whole body included")
    showing.add_argument("id", help="as listed; as much of it as names one")
    showing.set_defaults(run=lambda chosen: run(shown, chosen))
    for verb, command, help in (
        ("replay", replayed, "put back in the queue as if it had never failed"),
        ("discard", discarded, "delete for good"),
    ):
        acting = verbs.add_parser(verb, help=help)
        which = acting.add_mutually_exclusive_group(required=True)
        which.add_argument("id", nargs="?", help="as listed; as much of it as names one")
        which.add_argument("--all", action="store_true", help="every one that lies there now")
        acting.set_defaults(run=lambda chosen, command=command: run(command, chosen))


async def listed(bus: Bus, chosen: argparse.Namespace) -> Sequence[str]:
    """A table; one more line says how many there are, or that there are more."""
    letters = await bus.dead_letters(chosen.limit + 1)
    there, more = letters[: chosen.limit], len(letters) > chosen.limit
    lines = [*_table(there)] if there else []
    return [
        *lines,
        f"The first {chosen.limit}; there are more (--limit)." if more else _so_many(len(there)),
    ]


async def shown(bus: Bus, chosen: argparse.Namespace) -> Sequence[str]:
    letter = await _named(bus, chosen.id)
    fields = {
        "id": letter.id,
        "queue": _harmless(letter.queue),
        "reason": _harmless(letter.reason),
        "failures": letter.failures,
        "first seen": letter.first_seen.isoformat(),
        "given up": letter.died_at.isoformat(),
        "bytes": len(letter.body),
    }
    return [
        *(f"{name + ':':<12}{value}" for name, value in fields.items()),
        "",
        _harmless(_readable(letter.body)),
    ]


async def replayed(bus: Bus, chosen: argparse.Namespace) -> Sequence[str]:
    count = await bus.replay(None if chosen.all else (await _named(bus, chosen.id)).id)
    return [f"Put back {_so_many(count)}"]


async def discarded(bus: Bus, chosen: argparse.Namespace) -> Sequence[str]:
    count = await bus.discard(None if chosen.all else (await _named(bus, chosen.id)).id)
    return [f"Deleted {_so_many(count)}"]


async def _named(bus: Bus, prefix: str) -> DeadLetter:
    """The one letter whose id starts so. Raises NotFound or BadInput."""
    letters = await bus.dead_letters(2, prefix.lower())
    if not letters:
        raise NotFound(f"There is no dead letter whose id starts with {prefix!r}: see the list.")
    if len({letter.id for letter in letters}) > 1:
        raise BadInput(f"Several dead letters' ids start with {prefix!r}: give more of it.", "id")
    return letters[0]


def _table(letters: Sequence[DeadLetter]) -> Iterator[str]:
    width = max([len("QUEUE"), *(len(letter.queue) for letter in letters)])
    times = f"{'GIVEN UP':<20}  {'FIRST SEEN':<20}"
    yield f"{'ID':<{_ID_SHOWN}}  {times}  {'QUEUE':<{width}}  FAILED  REASON"
    for letter in letters:
        died, first = (f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in (letter.died_at, letter.first_seen))
        reason = " ".join(letter.reason.split())
        if len(reason) > _REASON_SHOWN:
            reason = reason[: _REASON_SHOWN - 3] + "..."
        yield (
            f"{letter.id[:_ID_SHOWN]}  {died}  {first}  {_harmless(letter.queue):<{width}}  "
            f"{letter.failures:>6}  {_harmless(reason)}"
        )


def _readable(body: bytes) -> str:
    """JSON indented, other text as it is, anything else as Python writes bytes."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return repr(body)
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _harmless(line: str) -> str:
    """What others wrote must not steer the terminal that it is shown on."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in line
    )


def _so_many(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}."


def _count(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= _MOST_LISTED:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to {_MOST_LISTED}")
