"""Tasks that end when they are told to, and loops whose end is an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from services.shared.errors import CannotStart
from services.shared.log import get_logger

log = get_logger()

_WORDED_AT_ONCE: Final = 10


def end_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled and went on all the same.

    Up to Python 3.11 `asyncio.wait_for` returns its result when a cancellation comes in the same
    turn (bpo-37658). PyMongo waits with it, so about one in ten cancellations of a query is lost:
    every loop that has no end of its own asks here at each turn.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def vital(
    loop: str, work: Callable[[], Awaitable[object]], stop: asyncio.Event | None = None
) -> None:
    """Run a loop that has no end of its own. If it ends, say which, and raise: nothing works on.
    Only when `stop` is set may it return.

    A loop may also end by a CancelledError that a library raised and nobody asked for; a TaskGroup
    would let that pass in silence.
    """
    try:
        await work()
    except asyncio.CancelledError:
        end_if_cancelled()
        fault: Exception = RuntimeError(f"The loop of {loop} was cancelled by nobody.")
    except Exception as error:
        fault = error
    else:
        if stop is not None and stop.is_set():
            return
        fault = RuntimeError(f"The loop of {loop} has returned.")
    told = {"error": str(fault)} if isinstance(fault, CannotStart) else {"exc_info": fault}
    log.error("loop_died", loop=loop, **told)
    raise fault


async def let_others_run(count: int) -> None:
    """Now and then, while texts are worded: one may take milliseconds. `count`: how many are."""
    if count % _WORDED_AT_ONCE == 0:
        await asyncio.sleep(0)
