"""The most logins that the cores can do: bcrypt in a thread on each of them, and nothing else.

Environment: BCRYPT_COST, SECONDS. Prints `ready`, and after so many seconds `hashes` with how many
a second were checked.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

import bcrypt

from bench.limits.ready import say_ready

COST: Final = int(os.environ["BCRYPT_COST"])
SECONDS: Final = float(os.environ["SECONDS"])
PASSWORD: Final = b"a password for benches"


def check_until(end: float, hashed: bytes, seconds: list[float]) -> None:
    while time.monotonic() < end:
        began = time.monotonic()
        bcrypt.checkpw(PASSWORD, hashed)
        seconds.append(time.monotonic() - began)


def main() -> None:
    hashed = bcrypt.hashpw(PASSWORD, bcrypt.gensalt(COST))
    say_ready()
    seconds: list[float] = []
    began = time.monotonic()
    given = (began + SECONDS, hashed, seconds)
    threads = [threading.Thread(target=check_until, args=given) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"hashes {len(seconds) / (time.monotonic() - began)}", flush=True)


if __name__ == "__main__":
    main()
