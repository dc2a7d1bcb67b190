"""Tasks that end when they are told to."""

from __future__ import annotations

import asyncio


def end_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled and went on all the same.

    Up to Python 3.11 `asyncio.wait_for` returns its result when a cancellation comes in the same
    turn (bpo-37658). PyMongo waits with it, so about one in ten cancellations of a query is lost:
    every loop that has no end of its own asks here at each turn.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
