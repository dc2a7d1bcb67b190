"""The command line of the campaign."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from campaign.controls import CONTROLS
from campaign.faults import FAULTS, chosen


@dataclass(frozen=True)
class Options:
    minutes: float | None
    events: int | None
    least_faults: int
    seed: int
    kinds: list[str]
    fault_every: float
    rate: float
    report: Path
    control: str | None
    soak: bool
    keep: bool

    def is_over(self, elapsed: float, accepted: int, faults: int) -> bool:
        if self.events is not None:
            return accepted >= self.events and faults >= self.least_faults
        assert self.minutes is not None
        return elapsed >= self.minutes * 60


def parse(description: str) -> Options:
    """Of the command line. Ends the process when it is not right."""
    parser = argparse.ArgumentParser(prog="python -m campaign", description=description)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="how long faults are injected (default: 3)")
    length.add_argument("--events", type=int, help="go on until so many are accepted")
    parser.add_argument(
        "--least-faults", type=int, default=0, help="with --events: and until so many were injected"
    )
    length.add_argument("--soak", type=float, metavar="MINUTES", help="steady load, no faults")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--faults", default="", help=f"kinds or groups of: {', '.join(FAULTS)}")
    parser.add_argument("--fault-every", type=float, default=3.0, help="mean seconds")
    parser.add_argument(
        "--rate", type=float, default=30.0, help="attempts a second, beside the probes"
    )
    parser.add_argument("--report", type=Path, default=Path("campaign.json"))
    parser.add_argument(
        "--control",
        choices=CONTROLS,
        help="a mechanism to do without: the exit code is 0 if the checker sees it",
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and data in any case")
    given = parser.parse_args()
    try:
        kinds = chosen([word for word in given.faults.split(",") if word])
    except ValueError as error:
        parser.error(str(error))
    minutes = given.soak or given.minutes or (None if given.events else 3.0)
    return Options(
        minutes=minutes,
        events=given.events,
        least_faults=given.least_faults,
        seed=given.seed,
        kinds=kinds,
        fault_every=given.fault_every,
        rate=given.rate,
        report=given.report.resolve(),
        control=given.control,
        soak=given.soak is not None,
        keep=given.keep,
    )
