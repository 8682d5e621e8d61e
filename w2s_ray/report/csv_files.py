"""Tables and the points of figures as CSV, with unrounded numbers."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from w2s_ray.report.figure_data import figure_columns
from w2s_ray.report.page import Cell, Figure, Table


def table_csv(table: Table) -> str:
    """A table with all of its rows.

    A column whose cells have intervals is followed by its lower and upper ends. Percentages and
    points are fractions, as in the results, so a title is without its unit. A text is where the
    value would be; where a cell has both, the text is in one more column.
    """
    header: list[str] = []
    columns: list[list[Any]] = []
    for index, column in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        name = column.title.removesuffix(", %").removesuffix(", points")
        header.append(name)
        columns.append([cell.text if cell.value is None else cell.value for cell in cells])
        if any(cell.low is not None or cell.high is not None for cell in cells):
            header += [f"{name} low", f"{name} high"]
            columns += [[cell.low for cell in cells], [cell.high for cell in cells]]
        if any(_has_both(cell) for cell in cells):
            header.append(f"{name} text")
            columns.append([cell.text if _has_both(cell) else None for cell in cells])
    return _written(header, zip(*columns, strict=True))


def figure_csv(figure: Figure) -> str:
    """All that a figure draws."""
    columns: Mapping[str, Sequence[Any]] = figure_columns(figure)
    return _written(columns, zip(*columns.values(), strict=True))


def _has_both(cell: Cell) -> bool:
    return cell.text is not None and cell.value is not None


def _written(header: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
