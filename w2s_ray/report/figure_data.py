"""The numbers behind a figure, one row for each point, as columns for a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from w2s_ray.report.page import Figure


def figure_columns(figure: Figure) -> Mapping[str, Sequence[Any]]:
    """Everything that a figure draws.

    A heat map has its own columns. Others have ``series``, ``mark`` ("point" or "dot", a single
    seed), ``x``, ``y``, ``low`` and ``high``, and ``label`` where the axis has words for numbers.
    """
    if figure.kind == "heat map":
        return figure.columns
    names = ("series", "mark", "x", "y", "low", "high")
    rows: list[tuple[Any, ...]] = []
    for line in figure.lines:
        missing = [None] * len(line.x)
        low = line.low if len(line.low) else missing
        high = line.high if len(line.high) else missing
        points = zip(line.x, line.y, low, high, strict=True)
        rows += [(line.name, "point", *point) for point in points]
        rows += [(line.name, "dot", x, y, None, None) for x, y in line.dots]
    columns = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    if figure.x.labels:
        columns["label"] = [_label(figure.x.labels, x) for x in columns["x"]]
    return columns


def _label(labels: Sequence[str], x: float) -> str | None:
    is_one = float(x).is_integer() and 0 <= x < len(labels)
    return labels[int(x)] if is_one else None
