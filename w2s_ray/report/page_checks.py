"""What a page must fulfil before it is written: names of files, unique addresses, equal lengths."""

import re
from collections.abc import Iterator

from w2s_ray.report.page import Block, Figure, Line, Page, Table

NAME = re.compile(r"[a-z0-9-]+")
HEAT_MAP = ("x", "y", "value", "resolved")
"""The columns of a heat map."""


def check_page(page: Page) -> None:
    """Refuses a page that cannot be written whole.

    Raises:
        ValueError: a name is no name of a file or is there twice, a row has too few or too many
            cells, or a series has coordinates of different lengths.
    """
    if problem := next(_problems(page), None):
        raise ValueError(problem)


def blocks(page: Page) -> Iterator[Block]:
    """All blocks of a page, in order."""
    for section in page.sections:
        yield from section.blocks


def _problems(page: Page) -> Iterator[str]:
    anchors: set[str] = set()
    names: set[tuple[type, str]] = set()
    for section in page.sections:
        if not NAME.fullmatch(section.anchor):
            yield f"anchor {section.anchor!r}: expected [a-z0-9-]+"
        if section.anchor in anchors:
            yield f"anchor {section.anchor!r}: two sections have it"
        anchors.add(section.anchor)
    for block in blocks(page):
        if not isinstance(block, Table | Figure):
            continue
        kind = "table" if isinstance(block, Table) else "figure"
        if not NAME.fullmatch(block.name):
            yield f"{kind} {block.name!r}: expected a name of [a-z0-9-]+"
        if (type(block), block.name) in names:
            yield f"{kind} {block.name!r}: two have this name"
        names.add((type(block), block.name))
        yield from _table(block) if isinstance(block, Table) else _figure(block)


def _table(table: Table) -> Iterator[str]:
    expected = len(table.columns)
    for number, row in enumerate(table.rows, 1):
        if len(row) != expected:
            yield f"table {table.name!r}, row {number}: {len(row)} cells, expected {expected}"


def _figure(figure: Figure) -> Iterator[str]:
    for line in figure.lines:
        yield from _line(figure.name, line)
    if figure.kind != "heat map":
        return
    if missing := [name for name in HEAT_MAP if name not in figure.columns]:
        yield f"figure {figure.name!r}: a heat map without the column {missing[0]!r}"
    if len({len(values) for values in figure.columns.values()}) > 1:
        yield f"figure {figure.name!r}: columns of different lengths"


def _line(figure: str, line: Line) -> Iterator[str]:
    points = len(line.x)
    for name, values in (("y", line.y), ("low", line.low), ("high", line.high)):
        if len(values) != points and (len(values) or name == "y"):
            yield (
                f"figure {figure!r}, series {line.name!r}: {len(values)} values of {name}, "
                f"expected {points}"
            )
