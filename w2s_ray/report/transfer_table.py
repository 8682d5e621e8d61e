"""The second table at the end of a run: student accuracy on further test sets, by loss and noise.

It is made from the transfer table alone, with the same means and dashes as ``table``.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from rich import box
from rich.table import Table
from rich.text import Text

from w2s_ray.report import selected
from w2s_ray.report.sentences import shown_value
from w2s_ray.report.table import LINE_COLUMNS, TABLE_COLUMNS, described, percent

LINES = (*LINE_COLUMNS, "noise_ratio")
"""Columns whose values one line has in common; a control has a line of its own."""


def transfer_tables(transfer: pa.Table) -> Iterator[Table]:
    """One table per data set, pair and training settings; a column for each further test set."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    all_rows = transfer.to_pylist()
    over = selected.chosen_over(all_rows)
    common = tuple(name for name in TABLE_COLUMNS if name not in over)
    for row in all_rows:
        groups[tuple(row[name] for name in common)].append(row)
    for setting, rows in groups.items():
        yield _table(dict(zip(common, setting, strict=True)), rows)


def _table(setting: dict[str, Any], all_rows: list[dict[str, Any]]) -> Table:
    sets = sorted({row["test_set"] for row in all_rows})
    rows = [
        row
        for name in sets
        for row in selected.shown([row for row in all_rows if row["test_set"] == name])
    ]
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if not row["control"]:
            lines[tuple(row[name] for name in LINES)].append(row)
    varying = [
        index
        for index, name in enumerate(LINES)
        if name != "loss" and len({values[index] for values in lines}) > 1
    ]
    incomplete = sum(row["status"] != "done" for row in all_rows)
    caption = [selected.rule([row for row in rows if not row["control"]])]
    caption += [f"{incomplete} of {len(all_rows)} rows are incomplete"] if incomplete else []
    table = Table(
        title=Text(f"{described(setting)}\naccuracy on further test sets, %"),
        caption="\n".join(filter(None, caption)) or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        min_width=88,
    )
    table.add_column("", no_wrap=True)
    for index in varying:
        table.add_column(LINES[index].replace("_", "\n", 1), justify="right")
    for name in sets:
        table.add_column(Text(name), justify="right")
    for role in ("weak", "ceiling"):
        table.add_row(role, *[""] * len(varying), *_scores(rows, sets, role, f"{role}_accuracy"))
    for values, line_rows in lines.items():
        settings = (shown_value(LINES[index], values[index]) for index in varying)
        table.add_row(str(values[0]), *settings, *_scores(line_rows, sets, "", "student_accuracy"))
    for control in dict.fromkeys(row["control"] for row in rows if row["control"]):
        of_control = [row for row in rows if row["control"] == control]
        shown = _scores(of_control, sets, "", "student_accuracy")
        table.add_row(control, *[""] * len(varying), *shown)
    table.add_section()
    table.add_row("rows", *[""] * len(varying), *_counts(rows, sets, "test_rows"))
    if any(row["trained_on_rows"] for row in rows):
        table.add_row("trained on", *[""] * len(varying), *_counts(rows, sets, "trained_on_rows"))
    return table


def _scores(
    rows: Sequence[dict[str, Any]], sets: Sequence[str], role: str, score: str
) -> Iterator[str]:
    """Mean and spread of a score on each set; of weak model and ceiling, each model once."""
    for name in sets:
        of_set = [row for row in rows if row["test_set"] == name]
        by_model = {row[f"{role}_key"] if role else row["key"]: row[score] for row in of_set}
        yield percent(list(by_model.values()))


def _counts(rows: Sequence[dict[str, Any]], sets: Sequence[str], column: str) -> Iterator[str]:
    for name in sets:
        counts = {row[column] for row in rows if row["test_set"] == name} - {None}
        yield ", ".join(f"{count:,}" for count in sorted(counts)) or "–"
