"""Steady load, nothing broken: does memory stay flat? Samples, a slope, and a plot by hand."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from campaign.verdict import Finding, Violation
from campaign.world import World

EVERY_SECONDS: Final = 5.0
WARM_PART: Final = 1 / 4  # of the time is left out of the slope
NOISES, LEAST_MIB = 3, 2.0  # flat is what rises by no more than these
_COLOURS: Final = ("#1b6ca8", "#4aa3df", "#b3541e", "#e08e45", "#2d7d46", "#7bc47f", "#6b4fa0")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 900, 420, 70, 50, 32
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
        path.write_text(plot(self.points))


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


def plot(series: Mapping[str, Points]) -> str:
    """An SVG of MiB over minutes."""
    every = [point for points in series.values() for point in points] or [(0.0, 0.0)]
    most_x, most_y = max(x for x, _ in every) or 1, 1.15 * max(y for _, y in every) or 1

    def place(x: float, y: float) -> str:
        across = _LEFT + x / most_x * (_WIDTH - _LEFT - 150)
        return f"{across:.1f},{_HEIGHT - _BOTTOM - y / most_y * (_HEIGHT - _BOTTOM - _TOP):.1f}"

    lines = []
    for step in range(6):
        mib, minutes = most_y * step / 5, most_x * step / 5 / 60
        x, height = place(0, mib).split(",")
        lines.append(f'<text x="{_LEFT - 8}" y="{height}" text-anchor="end">{mib:.0f}</text>')
        end = place(most_x, mib)
        lines.append(f'<polyline points="{x},{height} {end}" fill="none" stroke="#ddd"/>')
        x, height = place(most_x * step / 5, 0).split(",")
        lines.append(
            f'<text x="{x}" y="{float(height) + 18}" text-anchor="middle">{minutes:.1f}</text>'
        )
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(x, y) for x, y in points)
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        lines.append(
            f'<text x="{_WIDTH - 140}" y="{30 + 18 * number}" fill="{colour}">{name}</text>'
        )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            *lines,
            f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">minutes</text>',
            '<text x="12" y="14">resident memory, MiB</text>',
            "</svg>\n",
        ]
    )
