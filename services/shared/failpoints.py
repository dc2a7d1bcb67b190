"""Named places where a campaign may end the process; in production nothing happens there.

They stand where a crash would hurt most: between two steps that can't be one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

_armed: Callable[[Failpoint], None] | None = None


class Failpoint(StrEnum):
    AFTER_COMMIT = "after-commit"
    """A transaction is durable; nobody was told."""
    AFTER_CONFIRM = "after-confirm"
    """The broker has confirmed one message of several; the others are on their way."""
    BEFORE_ROW_IS_DONE = "before-row-is-done"
    """All of a relay's rows are confirmed, and none is removed."""
    IN_FAN_OUT = "in-fan-out"
    """Some recipients have their notification, the others have not."""
    BEFORE_ACK = "before-ack"
    """A batch is handled; the broker was not told."""


def reach(failpoint: Failpoint) -> None:
    """Say that the process is there."""
    if _armed is not None:
        _armed(failpoint)


def arm(action: Callable[[Failpoint], None]) -> None:
    """Have `action` called at every failpoint. Only for a campaign."""
    global _armed
    _armed = action
