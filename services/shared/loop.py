"""The event loop: uvloop's, where there is one.

asyncio's own asks a thread for the address of each connection that PyMongo opens. After an outage
all processes open theirs, on cores that are busy, and each waits for its threads' turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run."""
    factory = asyncio.new_event_loop
    with suppress(ImportError):  # it is installed on Linux only
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
