"""Tables as LaTeX: booktabs and siunitx, to be read in with ``\\input``."""

import unicodedata
from collections.abc import Iterator, Sequence

from w2s_ray.report.page import Cell, Table, TableColumn
from w2s_ray.report.shown import MINUS, cell_text, interval, number, plain, title

LONG = 40  # rows above which a table may be broken over pages

_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # a row that begins with one would be the argument of the line break before it
    "]": "{]}",
    "*": "{*}",
    MINUS: "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "½": r"$\frac{1}{2}$",
    "²": r"$^2$",
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "‖": r"$\Vert$",
    "∑": r"$\Sigma$",
    "↵": r"$\hookleftarrow$",
    "\u200c": "",
    "\u200d": "",
    "\u00a0": "~",
    "\u202f": r"\,",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
}
_GREEK = {
    chr(code): f"${letter}$"
    for code, letter in {
        0x3B1: r"\alpha",
        0x3B2: r"\beta",
        0x3B3: r"\gamma",
        0x3B4: r"\delta",
        0x3B5: r"\varepsilon",
        0x3B7: r"\eta",
        0x3B8: r"\theta",
        0x3BA: r"\kappa",
        0x3BB: r"\lambda",
        0x3BC: r"\mu",
        0x3C0: r"\pi",
        0x3C1: r"\rho",
        0x3C3: r"\sigma",
        0x3C4: r"\tau",
        0x3C6: r"\varphi",
        0x3C7: r"\chi",
        0x394: r"\Delta",
        0x3A3: r"\Sigma",
    }.items()
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u0327": "c",
    "\u030c": "v",
}


def latex(table: Table) -> str:
    """A table of a paper, with caption and label ``tab:NAME``.

    A column whose cells have intervals is two columns: numbers aligned at the point, and intervals.
    """
    is_long = len(table.rows) > LONG
    packages = ["booktabs", "siunitx", *(["longtable"] if is_long else [])]
    loaded = "".join(rf"\usepackage{{{name}}}" for name in packages)
    return "\n".join([f"% Needs {loaded}.", *_lines(table, is_long)]) + "\n"


def escaped(text: str) -> str:
    """A text for any LaTeX engine; characters that pdfLaTeX lacks are written by number."""
    characters = plain(text)
    # Two hyphens would become a dash.
    return "".join(
        "{}-" if pair == ("-", "-") else _character(pair[1])
        for pair in zip(" " + characters, characters, strict=False)
    )


def _lines(table: Table, is_long: bool) -> Iterator[str]:
    layout = "".join(_layout(table, index) for index in range(len(table.columns)))
    head = _row(cell for index in range(len(table.columns)) for cell in _titles(table, index))
    caption = rf"\caption{{{escaped(table.caption)}}}\label{{tab:{table.name}}}"
    if is_long:
        yield rf"\begin{{longtable}}{{{layout}}}"
        yield caption + r"\\" + "\n" + rf"\toprule {head}" + "\n" + r"\midrule \endfirsthead"
        yield rf"\toprule {head}" + "\n" + r"\midrule \endhead" + "\n" + r"\bottomrule \endfoot"
    else:
        yield r"\begin{table}" + "\n" + r"\centering" + "\n" + caption
        yield rf"\begin{{tabular}}{{{layout}}}" + "\n" + r"\toprule" + "\n" + head + "\n\\midrule"
    for row in table.rows:
        yield _row(cell for index in range(len(row)) for cell in _cells(table, row, index))
    yield r"\end{longtable}" if is_long else r"\bottomrule" + "\n" + r"\end{tabular}"
    notes = " ".join(map(escaped, table.notes))
    if notes:
        yield r"\par\smallskip{\footnotesize " + notes + r"\par}"
    if not is_long:
        yield r"\end{table}"


def _row(cells: Iterator[str]) -> str:
    return " & ".join(cells) + r" \\"


def _has_intervals(table: Table, index: int) -> bool:
    return table.columns[index].kind != "text" and any(
        row[index].low is not None or row[index].high is not None for row in table.rows
    )


def _is_aligned(cell: Cell, column: TableColumn) -> bool:
    """Whether a cell is a plain decimal number."""
    if cell.text is not None or cell.value is None or column.kind == "text":
        return False
    return set(number(cell.value, column.kind, column.digits)) <= set(f"0123456789.+{MINUS}")


def _layout(table: Table, index: int) -> str:
    """Columns of the layout; numbers get room for the longest one of them."""
    column = table.columns[index]
    if column.kind == "text":
        return "l"
    texts = [
        number(cell.value, column.kind, column.digits)
        for row in table.rows
        if (cell := row[index]).value is not None and _is_aligned(cell, column)
    ]
    digits = max((len(text.partition(".")[0].strip("+" + MINUS)) for text in texts), default=1)
    sign = "-" if any(text[0] in "+" + MINUS for text in texts) else ""
    format_ = f"{sign}{digits}.{column.digits}" if column.digits else f"{sign}{digits}"
    plus = ",retain-explicit-plus" if any(text[0] == "+" for text in texts) else ""
    options = f"S[table-format={format_}{plus}]"
    return options + "@{\\,}l" if _has_intervals(table, index) else options


def _titles(table: Table, index: int) -> Sequence[str]:
    text = escaped(title(table.columns[index]))
    if _has_intervals(table, index):
        return (rf"\multicolumn{{2}}{{c}}{{{text}}}",)
    return (text if table.columns[index].kind == "text" else f"{{{text}}}",)


def _cells(table: Table, row: Sequence[Cell], index: int) -> Sequence[str]:
    cell, column = row[index], table.columns[index]
    if column.kind == "text":
        return (escaped(cell_text(cell, column)),)
    with_interval = _has_intervals(table, index)
    if cell.text is not None or cell.value is None:
        text = escaped(cell_text(cell, column))
        return (rf"\multicolumn{{2}}{{c}}{{{text}}}",) if with_interval else (f"{{{text}}}",)
    text = number(cell.value, column.kind, column.digits)
    value = text.replace(MINUS, "-")
    if not _is_aligned(cell, column):
        value = rf"{{\num{{{value}}}}}" if "e" in value else f"{{{escaped(text)}}}"
    return (value, escaped(interval(cell, column))) if with_interval else (value,)


def _character(character: str) -> str:
    if known := _CHARACTERS.get(character) or _GREEK.get(character):
        return known
    if character in _CHARACTERS:
        return ""
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"
