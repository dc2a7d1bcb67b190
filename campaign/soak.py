"""Steady load, nothing broken: does memory stay flat? Samples, a slope, and a plot."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
from matplotlib.figure import Figure

from campaign.verdict import Finding, Violation
from campaign.world import World

EVERY_SECONDS: Final = 5.0
WARM_PART: Final = 1 / 4  # of the time is left out of the slope
NOISES, LEAST_MIB = 3, 2.0  # flat is what rises by no more than these
_MIB: Final = 1024 * 1024

Points = Sequence[tuple[float, float]]


class Soak:
    """Resident memory of every process, sampled while it runs."""

    def __init__(self, world: World) -> None:
        self.points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        """By process: seconds since the start, MiB."""
        self._world = world

    async def run(self, stop: asyncio.Event) -> None:
        began = time.monotonic()
        while not stop.is_set():
            for name, process in self._world.processes.items():
                with suppress(psutil.NoSuchProcess):
                    mib = psutil.Process(process.pid).memory_info().rss / _MIB
                    self.points[name].append((time.monotonic() - began, mib))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY_SECONDS)

    def as_json(self) -> Mapping[str, Any]:
        return {
            name: {
                "slope_mib_per_hour": round(3600 * slope(warm(points)), 2),
                "risen_mib": round(risen(warm(points)), 2),
                "noise_mib": round(noise(warm(points)), 2),
                "samples": [(round(at, 1), round(mib, 2)) for at, mib in points],
            }
            for name, points in self.points.items()
        }

    def growth(self) -> Iterator[Finding]:
        """Processes whose memory was not flat once they were warm."""
        for name, points in self.points.items():
            rise, limit = risen(warm(points)), max(NOISES * noise(warm(points)), LEAST_MIB)
            if rise > limit:
                evidence = {"process": name, "rose by MiB": round(rise, 2), "limit": limit}
                yield Finding(Violation.GROWTH, evidence)

    def draw(self, path: Path) -> None:
        draw(self.points, path)


def warm(points: Points) -> Points:
    return points[int(len(points) * WARM_PART) :]


def slope(points: Points) -> float:
    """Of the line with the least squares; units of y for each unit of x."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / below if below else 0.0


def risen(points: Points) -> float:
    """By how much that line rises from the first point to the last."""
    return slope(points) * (points[-1][0] - points[0][0]) if points else 0.0


def noise(points: Points) -> float:
    """Standard deviation around that line."""
    if len(points) < 2:
        return 0.0
    tilt = slope(points)
    rest = [y - tilt * x for x, y in points]
    mean = sum(rest) / len(rest)
    return float((sum((one - mean) ** 2 for one in rest) / len(rest)) ** 0.5)


def draw(series: Mapping[str, Points], path: Path) -> None:
    """MiB over minutes."""
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot([at / 60 for at, _ in points], [mib for _, mib in points], label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident memory, MiB")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
