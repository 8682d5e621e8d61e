"""How a cell of a report is written: one form for all writers."""

from w2s_ray.report.page import Cell, TableColumn

DASH = "–"


def written(cell: Cell, column: TableColumn) -> str:
    """The text of a cell: ``77.0 [74.8, 79.1]``; a dash where there is nothing."""
    if cell.text is not None:
        return cell.text
    if cell.value is None:
        return DASH
    text = number(cell.value, column)
    if cell.low is None or cell.high is None:
        return text
    return f"{text} [{number(cell.low, column)}, {number(cell.high, column)}]"


def number(value: float, column: TableColumn) -> str:
    """A number in the unit of its column, with a true minus sign."""
    scale = 1.0 if column.kind == "number" else 100.0
    sign = "+" if column.kind == "points" else ""
    if column.kind == "number" and 0.0 < value < 0.5 * 10.0**-column.digits:
        return f"< {10.0**-column.digits:.{column.digits}f}"
    return f"{scale * value:{sign}.{column.digits}f}".replace("-", "−")
