"""Tables as LaTeX: booktabs and siunitx, to be read in with ``\\input``."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from w2s_ray.report.latex_text import escaped
from w2s_ray.report.page import Cell, Table, TableColumn
from w2s_ray.report.shown import MINUS, cell_text, interval, number, title

LONG = 40  # rows above which a table may be broken over pages


def latex(table: Table) -> str:
    """A table of a paper, with caption and label ``tab:NAME``.

    A column whose cells have intervals is two columns: numbers aligned at the point, and intervals.
    """
    is_long = len(table.rows) > LONG
    packages = ["booktabs", "siunitx", *(["longtable"] if is_long else [])]
    loaded = "".join(rf"\usepackage{{{name}}}" for name in packages)
    return "\n".join([f"% Needs {loaded}.", *_lines(table, is_long)]) + "\n"


class _Column(NamedTuple):
    """A column with what its cells have in common."""

    of: TableColumn
    cells: Sequence[Cell]
    has_intervals: bool


def _lines(table: Table, is_long: bool) -> Iterator[str]:
    columns = [_column(table, index) for index in range(len(table.columns))]
    layout = "".join(map(_layout, columns))
    head = _row(map(_title, columns))
    caption = rf"\caption{{{escaped(table.caption)}}}\label{{tab:{table.name}}}"
    if is_long:
        yield rf"\begin{{longtable}}{{{layout}}}"
        yield caption + r"\\" + "\n" + rf"\toprule {head}" + "\n" + r"\midrule \endfirsthead"
        yield rf"\toprule {head}" + "\n" + r"\midrule \endhead" + "\n" + r"\bottomrule \endfoot"
    else:
        yield r"\begin{table}" + "\n" + r"\centering" + "\n" + caption
        yield rf"\begin{{tabular}}{{{layout}}}" + "\n" + r"\toprule" + "\n" + head + "\n\\midrule"
    for row in table.rows:
        yield _row(map(_cell, row, columns))
    yield r"\end{longtable}" if is_long else r"\bottomrule" + "\n" + r"\end{tabular}"
    notes = " ".join(map(escaped, table.notes))
    if notes:
        yield r"\par\smallskip{\footnotesize " + notes + r"\par}"
    if not is_long:
        yield r"\end{table}"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _column(table: Table, index: int) -> _Column:
    column = table.columns[index]
    cells = [row[index] for row in table.rows]
    has_intervals = any(cell.low is not None or cell.high is not None for cell in cells)
    return _Column(column, cells, has_intervals and column.kind != "text")


def _is_aligned(cell: Cell, column: TableColumn) -> bool:
    """Whether a cell is a plain decimal number."""
    if cell.text is not None or cell.value is None or column.kind == "text":
        return False
    return set(number(cell.value, column.kind, column.digits)) <= set(f"0123456789.+{MINUS}")


def _layout(column: _Column) -> str:
    """Columns of the layout; numbers get room for the longest one of them."""
    kind, places = column.of.kind, column.of.digits
    if kind == "text":
        return "l"
    texts = [
        number(cell.value, kind, places)
        for cell in column.cells
        if cell.value is not None and _is_aligned(cell, column.of)
    ]
    digits = max((len(text.partition(".")[0].strip("+" + MINUS)) for text in texts), default=1)
    sign = "-" if any(text[0] in "+" + MINUS for text in texts) else ""
    room = f"{sign}{digits}.{places}" if places else f"{sign}{digits}"
    plus = ",retain-explicit-plus" if any(text[0] == "+" for text in texts) else ""
    return f"S[table-format={room}{plus}]" + ("@{~}l" if column.has_intervals else "")


def _title(column: _Column) -> str:
    text = escaped(title(column.of))
    if column.has_intervals:
        return rf"\multicolumn{{2}}{{c}}{{{text}}}"
    return text if column.of.kind == "text" else f"{{{text}}}"


def _cell(cell: Cell, column: _Column) -> str:
    """A cell; two where the column has intervals."""
    if column.of.kind == "text":
        return escaped(cell_text(cell, column.of))
    if cell.text is not None or cell.value is None:
        text = escaped(cell_text(cell, column.of))
        return rf"\multicolumn{{2}}{{c}}{{{text}}}" if column.has_intervals else f"{{{text}}}"
    text = number(cell.value, column.of.kind, column.of.digits)
    value = text.replace(MINUS, "-")
    if not _is_aligned(cell, column.of):
        value = rf"{{\num{{{value}}}}}" if "e" in value else f"{{{escaped(text)}}}"
    return f"{value} & {escaped(interval(cell, column.of))}" if column.has_intervals else value
