"""The event loop: uvloop's, where there is one.

asyncio's own asks a thread for the address of each connection that PyMongo opens. After an outage
all processes open theirs, on cores that are busy, and each waits for its threads' turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    except ImportError:  # installed on Linux only
        return asyncio.new_event_loop
    return factory


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)
