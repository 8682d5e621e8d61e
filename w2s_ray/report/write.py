"""The files of a report, and how they come into a folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from w2s_ray.report.csv_files import figure_csv, table_csv
from w2s_ray.report.markdown import as_markdown
from w2s_ray.report.page import Figure, Page, Table


def files_of(page: Page) -> dict[str, bytes]:
    """Path below the report's folder → content."""
    files = {"report.md": as_markdown(page).encode()}
    for block in _blocks(page):
        if isinstance(block, Table):
            files[f"tables/{block.name}.csv"] = table_csv(block).encode()
        else:
            files[f"figures/{block.name}.csv"] = figure_csv(block).encode()
    return files


def save(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files; those of an earlier report with other names stay.

    Raises:
        OSError: the folder cannot be written.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(content)
        temporary.replace(path)


def _blocks(page: Page) -> Iterator[Table | Figure]:
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Table | Figure):
                yield block
