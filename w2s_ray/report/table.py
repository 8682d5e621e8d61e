"""The table at the end of a run: weak, student and ceiling accuracy by loss and noise.

Reads the results table and nothing else. Means over seeds stand with the standard deviation
between seeds, never without; a missing score is a dash, never a zero.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich import box
from rich.table import Table

SETTING = ("data", "weak", "strong", "trainable", "learning_rate", "epochs", "batch_size")
LINE = (
    "loss",
    "loss_parameters",
    "confidence_weight",
    "confidence_warmup",
    "confidence_form",
    "noise_strength",
)


def tables(results: pa.Table) -> Iterator[Table]:
    """One table for each data set, pair and way of training: a line a loss, a column a noise."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in results.to_pylist():
        groups[tuple(row[name] for name in SETTING)].append(row)
    for setting, rows in groups.items():
        yield _table(dict(zip(SETTING, setting, strict=True)), rows)


def _table(setting: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    noises = sorted({row["noise_ratio"] for row in rows})
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        lines[tuple(row[name] for name in LINE)].append(row)
    varying = [
        place
        for place, name in enumerate(LINE)
        if name != "loss" and len({k[place] for k in lines}) > 1
    ]
    table = Table(
        title=f"{setting['data']}: {setting['weak']} → {setting['strong']}, "
        f"{setting['trainable']}, learning rate {setting['learning_rate']:g}, "
        f"batch {setting['batch_size']}, epochs {setting['epochs']}\n"
        "student accuracy, %",
        caption=_caption(rows),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        min_width=88,
    )
    table.add_column("loss", no_wrap=True)
    for place in varying:
        table.add_column(LINE[place].replace("_", "\n", 1), justify="right")
    for noise in noises:
        table.add_column(f"noise {noise:g}", justify="right")
    for line, of_line in lines.items():
        table.add_row(
            str(line[0]),
            *(str(line[place]) for place in varying),
            *(
                percent([r["student_accuracy"] for r in of_line if r["noise_ratio"] == noise])
                for noise in noises
            ),
        )
    return table


def _caption(rows: list[dict[str, Any]]) -> str:
    weak = percent(_by_model(rows, "weak_key", "weak_accuracy"))
    ceiling = percent(_by_model(rows, "ceiling_key", "ceiling_accuracy"))
    seeds = len({row["seed"] for row in rows})
    tested = {row["test_rows"] for row in rows if row["test_rows"] is not None}
    lost = sum(row["status"] != "done" for row in rows)
    shorter = percent([rows[0]["shorter_answer_accuracy"]])
    return (
        f"weak {weak}   ceiling {ceiling}   shorter answer {shorter}\n"
        f"{seeds} seed{'s' if seeds > 1 else ''} (mean ± standard deviation between seeds), "
        f"{', '.join(map(str, sorted(tested))) or 'no'} test rows"
        + (f"\n{lost} cells without a score" if lost else "")
    )


def _by_model(rows: list[dict[str, Any]], key: str, score: str) -> list[float | None]:
    """One score a model: cells that share a model must not count it twice."""
    return list({row[key]: row[score] for row in rows}.values())


def percent(scores: Sequence[float | None]) -> str:
    """``71.3 ±0.4`` from scores in [0, 1]; ``71.3`` of a single one; ``–`` of none."""
    known = [100.0 * score for score in scores if score is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{np.mean(known):.1f} ±{np.std(known, ddof=1):.1f}"
