"""What was measured: samples of every contestant, and how Tidings compares."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

TIDINGS: Final = "Tidings"

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Target:
    """What Tidings' median has to reach: divided by that of the `other`, or itself without one."""

    other: str | None
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        sign, bound = ("≥", self.least) if self.least is not None else ("≤", self.most)
        return f"{sign} {bound:,g}{' ×' if self.other else ''}"


@dataclass(frozen=True)
class Row:
    """One line of the table. `samples`: by contestant, one for each round, in `unit`."""

    name: str
    work: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    targets: Sequence[Target] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def median(self, contestant: str) -> float:
        return statistics.median(self.samples[contestant])

    def spread(self, contestant: str) -> float:
        """How far the samples lie apart, as a part of their median."""
        samples = self.samples[contestant]
        return (max(samples) - min(samples)) / self.median(contestant)

    def ratio(self, other: str) -> float:
        """Tidings' median as a multiple of the other's: of the same run, so of the same machine."""
        return self.median(TIDINGS) / self.median(other)

    def reached(self, target: Target) -> bool:
        value = self.ratio(target.other) if target.other else self.median(TIDINGS)
        least, most = target.least, target.most
        return (least is None or value >= least) and (most is None or value <= most)


async def alternated(
    contestants: Mapping[str, Measure], rounds: int, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Measure all of them in turn, so many times, every other round in the opposite order."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            progress(f"round {number + 1} of {rounds}: {name}")
            samples[name].append(await contestants[name]())
    return samples
