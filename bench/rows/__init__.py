"""The rows of the bench, by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from bench.results import Row
from bench.rows.broadcast import broadcast
from bench.rows.events import events
from bench.rows.page import mutation, page
from bench.world import World

ROWS: Final[Mapping[str, Callable[[World], Awaitable[Sequence[Row]]]]] = {
    "page": page,
    "mutation": mutation,
    "events": events,
    "broadcast": broadcast,
}
