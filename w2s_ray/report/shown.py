"""How a report writes texts and numbers: the same in HTML, Markdown and the figures.

What is sorted and filtered in a browser is what is written here, so a reader sees why a row is
where it is. Files with numbers to compute with (CSV) have them unrounded.
"""

import math

from w2s_ray.printable import printable
from w2s_ray.report.page import Cell, ColumnKind, TableColumn

MINUS = "−"
ROWS_SHOWN = 50  # of a table at a time; a longer one is paged, or cut with its file named
MISSING = "–"
"""What stands where there is no value."""

_LINE_BREAKS = str.maketrans({"\n": "↵", "\r": "↵", "\u2028": "↵", "\u2029": "↵", "\t": " "})


def plain(text: str) -> str:
    """A text in one line in which nothing is invisible or turns the order of what follows.

    Names of models and data come from anywhere. Line breaks become "↵"; control characters, marks
    of direction and halves of surrogate pairs are written by number.
    """
    return printable(text.replace("\r\n", "\n").translate(_LINE_BREAKS))


def title(column: TableColumn) -> str:
    """The title of a column, with the unit of its numbers where it does not name it."""
    text = plain(column.title)
    unit = {"percent": "%", "points": "points"}.get(column.kind, "")
    return text if not unit or unit in text else f"{text} ({unit})"


def number(value: float, kind: ColumnKind, digits: int) -> str:
    """A number with so many digits after the point, or in powers of ten where these show nothing.

    Percentages and points are of fractions: 0.712 is "71.2".
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("∞" if value > 0 else MINUS + "∞")
    scaled = 100.0 * value if kind in ("percent", "points") else value
    is_tiny = kind == "number" and scaled != 0.0 and abs(scaled) < 0.5 * 10.0**-digits
    text = _powers(scaled) if is_tiny else f"{scaled:.{digits}f}"
    if kind == "points" and float(text) > 0.0:
        text = "+" + text
    if float(text) == 0.0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def _powers(value: float) -> str:
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def interval(cell: Cell, column: TableColumn) -> str:
    """The interval of a cell in brackets; "" if it has none."""
    if cell.low is None and cell.high is None:
        return ""
    low = MINUS + "∞" if cell.low is None else number(cell.low, column.kind, column.digits)
    high = "∞" if cell.high is None else number(cell.high, column.kind, column.digits)
    return f"[{low}, {high}]"


def cell_text(cell: Cell, column: TableColumn) -> str:
    """A cell as it is read: its text, or its value with the interval behind it."""
    if cell.text is not None:
        return plain(cell.text)
    if cell.value is None:
        return MISSING
    if column.kind == "text":
        return f"{cell.value:g}".replace("-", MINUS)
    return f"{number(cell.value, column.kind, column.digits)} {interval(cell, column)}".strip()
