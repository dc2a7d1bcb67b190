"""The line that a bench waits for."""

from __future__ import annotations

from services.shared.loop import collect_rarely


def say_ready() -> None:
    """Set up, garbage collection as well: it is no slower here than in Tidings."""
    collect_rarely()
    print("ready", flush=True)
