"""A report as Markdown: the same texts and tables, figures as files beside it."""

import re
from collections.abc import Iterator

from w2s_ray.report.page import Block, Figure, Page, Table, Warning
from w2s_ray.report.page_checks import check_page
from w2s_ray.report.shown import ROWS_SHOWN, cell_text, plain, title

_AFTER_A_NUMBER = "|".join(rf"(?<=^\d{{{digits}}})" for digits in range(1, 10))
_SPECIAL = re.compile(
    r"([\\`*<>|~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # not within a name, where it marks nothing
    r"|\](?=[(\[:])"  # intervals are in brackets, and stay legible
    r"|&(?=#?\w+;)"
    r"|^#|^[+-](?=\s|-|$)"
    rf"|(?:{_AFTER_A_NUMBER})[.)](?=\s|$))"  # up to nine digits number the items of a list
)


def markdown(page: Page) -> str:
    """The whole page, in GitHub's dialect.

    Raises:
        ValueError: the page cannot be written, see ``check_page``.
    """
    check_page(page)
    return "\n\n".join(_paragraphs(page)) + "\n"


def _paragraphs(page: Page) -> Iterator[str]:
    yield f"# {escaped(page.title)}"
    yield escaped(page.subtitle)
    yield "\n".join(f"- [{_in_link(s.heading)}](#{s.anchor})" for s in page.sections)
    for section in page.sections:
        yield f'<a id="{section.anchor}"></a>'
        yield f"## {escaped(section.heading)}"
        for block in section.blocks:
            yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Figure):
        yield f"![{_in_link(block.alt)}](figures/{block.name}.svg)"
        yield f"{escaped(block.caption)} ([CSV](figures/{block.name}.csv))"
        yield from _query(block.query)
    elif isinstance(block, Warning):
        yield f"> **Warning.** {escaped(block.text)}"
    else:
        yield escaped(block.text)
        yield from _query(block.query)


def _table(table: Table) -> Iterator[str]:
    yield f"**{escaped(table.caption)}** ([CSV](tables/{table.name}.csv))"
    lines = [
        _line([escaped(title(column)) for column in table.columns]),
        _line(["---" if column.kind == "text" else "--:" for column in table.columns]),
    ]
    for row in table.rows[:ROWS_SHOWN]:
        cells = zip(row, table.columns, strict=True)
        lines.append(_line([escaped(cell_text(cell, column)) for cell, column in cells]))
    yield "\n".join(lines)
    if len(table.rows) > ROWS_SHOWN:
        yield (
            f"The first {ROWS_SHOWN} of {len(table.rows):,} rows; all are in "
            f"[tables/{table.name}.csv](tables/{table.name}.csv)."
        )
    for note in table.notes:
        yield escaped(note)
    yield from _query(table.query)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _query(query: str) -> Iterator[str]:
    if not query:
        return
    longest = max((len(run) for run in re.findall("`+", query)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = "\n".join(map(plain, query.splitlines()))
    yield f"{fence}sql\n{lines}\n{fence}"


def escaped(text: str) -> str:
    """A text in which nothing marks anything up, without white space around it, which would."""
    return _SPECIAL.sub(r"\\\1", plain(text).strip())


def _in_link(text: str) -> str:
    """A text between the brackets of a link or a picture."""
    # What is escaped already, two characters, is matched first and stays.
    return re.sub(r"(\\.)|([\[\]])", lambda m: m[1] or f"\\{m[2]}", escaped(text))
