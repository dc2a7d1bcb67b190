"""The event loop, uvloop's where there is one, and how often Python looks for garbage meanwhile.

asyncio's own asks a thread for the address of each connection that PyMongo opens. After an outage
all processes open theirs, on cores that are busy, and each waits for its threads' turns.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, TypeVar

_NEW_OBJECTS: Final = 10_000
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run."""
    factory = asyncio.new_event_loop
    with suppress(ImportError):  # it is installed on Linux only
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def collect_rarely() -> int:
    """Look for cycles after 10,000 new objects, not 700, and never among what has been made so far.

    Call it when all is set up. Looking took a quarter of a worker's time, and half a second of a
    gateway's with a thousand sockets. Returns how many objects are never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    return gc.get_freeze_count()
