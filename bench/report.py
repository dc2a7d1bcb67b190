"""What was measured, as people like to look at it: a table, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.results import TIDINGS, Row

_HEAD = ("Row", "Contestant", "Median", "Unit", "Spread", "Tidings is", "Wanted", "")


def table(rows: Sequence[Row]) -> str:
    """In Markdown; of each row Tidings first, then the others with the ratio to them."""
    lines = [_HEAD]
    for row in rows:
        for name in row.samples:
            targets = [one for one in row.targets if (one.other or TIDINGS) == name]
            lines.append(
                (
                    row.name if name == TIDINGS else "",
                    name,
                    _number(row.median(name)),
                    row.unit,
                    f"{row.spread(name):.0%}" if len(row.samples[name]) > 1 else "",
                    f"{row.ratio(name):.2f} ×" if name != TIDINGS else "",
                    ", ".join(map(str, targets)),
                    "" if not targets else "✓" if all(map(row.reached, targets)) else "✗",
                )
            )
        lines += [("", "", text, "", "", "", "", what) for what, text in row.notes.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = [
        [text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines
    ]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]])


def as_json(rows: Sequence[Row], machine: Mapping[str, str]) -> dict[str, Any]:
    return {
        "machine": dict(machine),
        "rows": [
            {
                "name": row.name,
                "work": row.work,
                "unit": row.unit,
                "samples": {name: list(values) for name, values in row.samples.items()},
                "ratios": {name: row.ratio(name) for name in row.samples if name != TIDINGS},
                "targets": [
                    {
                        "other": target.other,
                        "least": target.least,
                        "most": target.most,
                        "reached": row.reached(target),
                    }
                    for target in row.targets
                ],
                "notes": dict(row.notes),
            }
            for row in rows
        ],
    }


def write(rows: Sequence[Row], machine: Mapping[str, str], path: Path) -> None:
    """JSON to `path`, and the plot beside it."""
    path.write_text(json.dumps(as_json(rows, machine), indent=1, ensure_ascii=False) + "\n")
    draw(rows, path.with_suffix(".svg"))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Each row's medians as bars, and its samples as dots."""
    figure = Figure(figsize=(9, sum(0.7 + 0.32 * len(row.samples) for row in rows)))
    axes = figure.subplots(
        len(rows), height_ratios=[1 + len(row.samples) for row in rows], squeeze=False
    )
    for row, axis in zip(rows, axes[:, 0], strict=True):
        names = list(row.samples)
        colours = ["#1b6ca8" if name == TIDINGS else "#b9c6d2" for name in names]
        axis.barh(names, [row.median(name) for name in names], color=colours)
        for place, name in enumerate(names):
            samples = row.samples[name]
            axis.plot(samples, [place] * len(samples), ".", color="#333333", markersize=3)
        axis.invert_yaxis()
        axis.set_title(f"{row.name}: {row.unit}", loc="left", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
