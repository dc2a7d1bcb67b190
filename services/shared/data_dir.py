"""DATA_DIR: the folder of the embedded default. One run at a time holds it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from services.shared.errors import CannotStart

HOLD_SECONDS = 1.0
POLL_SECONDS = 0.02


def prepared(data_dir: Path, free_bytes: int) -> Path:
    """The folder, made if need be. CannotStart: no folder, no rights, fewer bytes free."""
    folder = data_dir.expanduser().resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(folder, error.strerror) from error
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise unusable(folder, "it is not writable")
    if (free := shutil.disk_usage(folder).free) < free_bytes:
        need = f"{free_bytes // 10**6} MB are needed; free some space, or"
        raise unusable(folder, f"its disk has {free // 10**6} MB free", need)
    return folder


async def hold(folder: Path) -> TextIO:
    """Hold the folder until the file is closed, by us or by the kernel when we are gone.

    A run that is just ending has HOLD_SECONDS to let go; then CannotStart names its process.
    """
    try:
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise unusable(folder, str(error)) from error
    for _ in range(round(HOLD_SECONDS / POLL_SECONDS)):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return lock
        await asyncio.sleep(POLL_SECONDS)
    with lock:
        lock.seek(0)
        raise unusable(folder, f"process {lock.read() or 'unknown'} is using it", "stop that, or")


def is_held(folder: Path) -> bool:
    """Whether a live run holds it; to ask, one holds it for an instant oneself."""
    with suppress(FileNotFoundError), (folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def unusable(folder: Path, reason: str | None, advice: str = "") -> CannotStart:
    """The error that says why, and what to do."""
    advice = " ".join(filter(None, [advice, "set DATA_DIR to another folder"]))
    return CannotStart(f"The data folder {folder} can't be used: {reason}; {advice}.")


def write_private(path: Path, text: str) -> None:
    """All of it or nothing, and from its first byte on readable by its owner only."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)
