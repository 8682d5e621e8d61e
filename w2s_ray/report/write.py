"""A report as files: the page, the same in Markdown, figures, tables, the numbers behind them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from w2s_ray.report.csv_files import figure_csv, table_csv
from w2s_ray.report.figures import png, svg
from w2s_ray.report.html import html
from w2s_ray.report.latex import latex
from w2s_ray.report.markdown import markdown
from w2s_ray.report.page import Figure, Page, Table
from w2s_ray.report.page_checks import blocks, check_page
from w2s_ray.store.names import REPORT_PAGE

FOLDERS = ("figures", "tables")


def write_report(page: Page, out_dir: Path) -> Path:
    """Writes a report into a folder and returns the address of its page.

    Everything is written into a draft first and then moved, the page last: a report that cannot be
    finished leaves the one before it as it was. ``figures`` and ``tables`` are replaced whole, so
    that none of an earlier report stay; other files of the folder are not touched.

    Raises:
        ValueError: the page cannot be written, see ``check_page``.
        OSError: of the file system.
    """
    check_page(page)
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".report-") as name:
        draft = Path(name)
        for path, content in _files(page):
            (draft / path).parent.mkdir(exist_ok=True)
            (draft / path).write_bytes(content)
        for folder in FOLDERS:
            _replace_folder(draft / folder, out_dir / folder)
        for file in ("report.md", REPORT_PAGE):
            os.replace(draft / file, out_dir / file)
    return out_dir / REPORT_PAGE


def _files(page: Page) -> Iterator[tuple[str, bytes]]:
    svgs: dict[str, bytes] = {}
    for block in blocks(page):
        if isinstance(block, Figure):
            drawn = svgs[block.name] = svg(block)
            yield f"figures/{block.name}.svg", drawn
            yield f"figures/{block.name}.png", png(block)
            yield f"figures/{block.name}.csv", _encoded(figure_csv(block))
        elif isinstance(block, Table):
            yield f"tables/{block.name}.csv", _encoded(table_csv(block))
            yield f"tables/{block.name}.tex", _encoded(latex(block))
    yield "report.md", _encoded(markdown(page))
    yield REPORT_PAGE, _encoded(html(page, svgs))


def _encoded(text: str) -> bytes:
    """UTF-8; halves of surrogate pairs, which UTF-8 lacks, are written by number."""
    return text.encode("utf-8", "backslashreplace")


def _replace_folder(new: Path, old: Path) -> None:
    if old.exists():
        shutil.move(old, new.with_name(f"{new.name}-before"))
    if new.exists():
        os.replace(new, old)
