"""A report as Markdown, for a repository or a terminal."""

import re

from w2s_ray.report.numbers import written
from w2s_ray.report.page import Block, Figure, Page, Table, Text, Warning

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def as_markdown(page: Page, figures: str = "figures") -> str:
    """The page; figures are links to files.

    Args:
        figures: folder of their SVG files, relative to the page.
    """
    lines = [f"# {_plain(page.title)}", "", _plain(page.subtitle), ""]
    for section in page.sections:
        lines += [f"## {_plain(section.heading)}", ""]
        for block in section.blocks:
            lines += [*_block(block, figures), ""]
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block, figures: str) -> list[str]:
    if isinstance(block, Text):
        return [_plain(block.text)]
    if isinstance(block, Warning):
        return [f"> **{_plain(block.text)}**"]
    if isinstance(block, Figure):
        image = f"![{_plain(block.alt)}]({figures}/{block.name}.svg)"
        return [image, "", _plain(block.caption)]
    return _table(block)


def _table(table: Table) -> list[str]:
    titles = [_plain(column.title) for column in table.columns]
    sides = ["---" if column.kind == "text" else "---:" for column in table.columns]
    lines = [
        f"**{_plain(table.caption)}**",
        "",
        f"| {' | '.join(titles)} |",
        f"|{'|'.join(sides)}|",
    ]
    for row in table.rows:
        cells = [_plain(written(c, column)) for c, column in zip(row, table.columns, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines + [part for note in table.notes for part in ("", _plain(note))]


def _plain(text: str) -> str:
    """The text as it is, whatever characters are in it: on one line, nothing is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
