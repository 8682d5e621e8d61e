"""Tables and figures of a report as CSV, with all digits."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

from w2s_ray.report.page import Figure, Table


def table_csv(table: Table) -> str:
    """A column for each value, and for its interval where one has it; fractions stay fractions."""
    with_interval = [
        any(row[index].low is not None for row in table.rows) for index in range(len(table.columns))
    ]
    head: list[str] = []
    for column, has in zip(table.columns, with_interval, strict=True):
        title = column.title.removesuffix(", %").removesuffix(", points")
        head += [title, f"{title} low", f"{title} high"] if has else [title]
    lines: list[list[Any]] = []
    for row in table.rows:
        line: list[Any] = []
        for cell, has in zip(row, with_interval, strict=True):
            shown = cell.text if cell.value is None else cell.value
            line += [shown, cell.low, cell.high] if has else [shown]
        lines.append(line)
    return _csv([head, *lines])


def figure_csv(figure: Figure) -> str:
    """A line for each point of each series; seeds' dots are series of their own."""
    if figure.columns:
        names = list(figure.columns)
        return _csv([names, *(list(row) for row in zip(*figure.columns.values(), strict=True))])
    return _csv([["series", "x", "y", "low", "high"], *_points(figure)])


def _points(figure: Figure) -> Iterator[list[Any]]:
    for line in figure.lines:
        none = [None] * len(line.x)
        bounds = zip(line.low or none, line.high or none, strict=True)
        for x, y, (low, high) in zip(line.x, line.y, bounds, strict=True):
            yield [line.name, x, y, low, high]
        for x, y in line.dots:
            yield [f"{line.name}, seed", x, y, None, None]


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
