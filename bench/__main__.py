"""Measure Tidings beside its peers, in one run on the same servers, as ratios of medians.

python -m bench [ROW ...]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench import report
from bench.machine import described
from bench.results import Row
from bench.rows import ROWS
from bench.world import open_world
from services.shared.loop import collect_rarely


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--report", type=Path, default=Path("bench.json"))
    given = parser.parse_args()
    if unknown := set(given.rows) - ROWS.keys():
        parser.error(f"there is no row {', '.join(sorted(unknown))}: choose {', '.join(ROWS)}")
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    machine = described()
    names = [name for name in ROWS if not given.rows or name in given.rows]
    rows: list[Row] = []
    collect_rarely()
    try:
        uvloop.run(_measure(names, rows))
    finally:  # what was measured until it failed, or was ended, is told, too
        if rows:
            report.write(rows, machine, given.report)
            print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
            print(report.table(rows))
    return 0


async def _measure(names: Sequence[str], rows: list[Row]) -> None:
    """Each row in turn; what it found is added to `rows`."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        async with open_world(Path(folder)) as world:
            for number, name in enumerate(names, 1):
                began = time.monotonic()
                print(f"{number} of {len(names)}: {name}", file=sys.stderr, flush=True)
                rows += await ROWS[name](world)
                world.progress(f"{time.monotonic() - began:.0f} s")
                print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
