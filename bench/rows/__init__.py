"""The rows of the bench, by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from bench.results import Row
from bench.rows.broadcast import broadcast
from bench.rows.due import due
from bench.rows.events import events
from bench.rows.growth import growth
from bench.rows.inbox import inbox
from bench.rows.latency import latency
from bench.rows.live import live
from bench.rows.login import login
from bench.rows.page import mutation, page
from bench.rows.start import start
from bench.world import World

ROWS: Final[Mapping[str, Callable[[World], Awaitable[Sequence[Row]]]]] = {
    "page": page,
    "mutation": mutation,
    "events": events,
    "broadcast": broadcast,
    "live": live,
    "latency": latency,
    "due": due,
    "growth": growth,
    "login": login,
    "start": start,
    "inbox": inbox,
}
