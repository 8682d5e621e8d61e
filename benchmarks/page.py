"""The table of figures: printed as rows are measured, and written to ``docs/benchmarks.md``.

The page is generated from a JSON file next to it, which has every round. A run of some rows
replaces those and keeps the others, each listed under the run that measured it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from rich.table import Table

from benchmarks.measure import Row

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
WRAPPING: dict[str, Any] = {"width": 100, "break_on_hyphens": False, "break_long_words": False}
HEADINGS = ("measure", "against", "figure", "spread", "target", "")


def line(row: Row) -> tuple[str, ...]:
    """The cells of a row: measure, against, median, range, target, whether it is reached."""
    sign = "≥" if row.at_least else "≤"
    spread = f"{_number(min(row.values))} – {_number(max(row.values))}"
    return (
        row.measure,
        row.against,
        f"{_number(row.figure)} {row.unit}",
        "a count" if row.counted else spread,
        "" if row.target is None else f"{sign} {row.target:g} {row.unit}",
        {True: "reached", False: "**below target**", None: ""}[row.reached],
    )


def terminal_table() -> Table:
    """An empty table with headings."""
    table = Table(title="benchmarks", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("measure", "against") else "right")
    return table


def save(path: Path, rows: Mapping[str, Row], run: Mapping[str, Any]) -> None:
    """Add ``rows``, measured in ``run``, to the JSON file at ``path``, keeping other rows."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept |= {name: {"row": row.as_json(), "run": dict(run)} for name, row in rows.items()}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def write_page(page: Path, results: Path) -> None:
    """Write the tables of ``results`` between the two markers of ``page``.

    Raises:
        ValueError: the page lacks a marker.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: expected the markers {BEGIN} and {END}")
    kept = json.loads(results.read_text())
    page.write_text(f"{before}{BEGIN}\n{markdown(kept)}{END}{after}")


def markdown(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """One table per run, newest first, with the notes of its rows; prose wraps at 100 columns."""
    runs: dict[str, list[Row]] = {}
    for entry in kept.values():
        runs.setdefault(json.dumps(entry["run"], sort_keys=True), []).append(Row(**entry["row"]))
    parts = []
    for run, rows in sorted(runs.items(), key=lambda item: json.loads(item[0])["date"])[::-1]:
        parts += [_heading(json.loads(run)), ""]
        parts += [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
        parts += [f"| {' | '.join(line(row))} |" for row in rows] + [""]
        notes = (f"* *{row.measure}*: {row.note}." for row in rows if row.note)
        parts += [fill(note, subsequent_indent="  ", **WRAPPING) for note in notes] + [""]
    return "\n".join(parts)


def _heading(run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    conditions = (
        f"{run['date']}, commit {run['commit']}. {run['hardware']}; {versions}; "
        f"{run['threads']} threads, {run['rounds']} rounds."
    )
    return f"{fill(conditions, **WRAPPING)}\n\n    {run['command']}"


def _number(value: float) -> str:
    """``value`` with three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"
