"""The table at the end of a run: weak, student and ceiling accuracy by loss and noise.

It is made from the results table alone. A mean over seeds is always shown with the standard
deviation between seeds; a missing score is a dash, never a zero.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich import box
from rich.markup import escape
from rich.table import Table

from w2s_ray.data.class_names import visible
from w2s_ray.report import collapsed, selected
from w2s_ray.report.sentences import shown_value
from w2s_ray.spec.chains import LINKS, MEMBERS

TABLE_COLUMNS = (
    "data",
    "weak",
    "strong",
    "chain",
    "combine",
    "trainable",
    "readout_block",
    "learning_rate",
    "weight_decay",
    "epochs",
    "batch_size",
)
"""Columns of the results whose values one table has in common."""
LINE_COLUMNS = (
    "loss",
    "loss_parameters",
    "confidence_weight",
    "confidence_warmup",
    "confidence_form",
    "label_temperature",
    "label_filter",
    "label_keep",
    "relabel",
    "example_weight",
    "noise_strength",
    "train_rows",
    "anchor",
)
"""Columns of the results whose values one line of a table has in common."""

CLASSES = 12  # names that a caption lists


def tables(results: pa.Table) -> Iterator[Table]:
    """One table per data set, pair and training settings, with a line per loss setting.

    Lines differ in the loss and its confidence and noise settings; columns are noise ratios. Where
    a rule chose rates and epochs, only what it chose is shown, and they do not split tables.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    all_rows = results.to_pylist()
    over = selected.chosen_over(all_rows)
    common = tuple(name for name in TABLE_COLUMNS if name not in over)
    for row in all_rows:
        groups[tuple(row[name] for name in common)].append(row)
    for setting, rows in groups.items():
        yield _table(dict(zip(common, setting, strict=True)), rows)


def _table(setting: dict[str, Any], all_rows: list[dict[str, Any]]) -> Table:
    rows = selected.shown([row for row in all_rows if not row["control"]])
    controls = selected.shown([row for row in all_rows if row["control"]])
    noises = sorted({row["noise_ratio"] for row in rows})
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        lines[tuple(row[name] for name in LINE_COLUMNS)].append(row)
    varying = [
        index
        for index, name in enumerate(LINE_COLUMNS)
        if name != "loss" and len({values[index] for values in lines}) > 1
    ]
    same = _treatment({LINE_COLUMNS[i]: v for i, v in enumerate(next(iter(lines), ()))}, varying)
    table = Table(
        title=f"{described(setting)}{same}\nstudent accuracy, %",
        caption="\n".join(
            [_caption(rows, controls, all_rows), *selected.lines(rows), *collapsed.lines(rows)]
        ),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        min_width=88,
    )
    table.add_column("loss", no_wrap=True)
    for index in varying:
        table.add_column(LINE_COLUMNS[index].replace("_", "\n", 1), justify="right")
    for noise in noises:
        table.add_column(f"noise {noise:g}", justify="right")
    for values, line_rows in lines.items():
        table.add_row(
            str(values[0]),
            *(shown_value(LINE_COLUMNS[index], values[index]) for index in varying),
            *(
                percent([r["student_accuracy"] for r in line_rows if r["noise_ratio"] == noise])
                for noise in noises
            ),
        )
    return table


def described(setting: dict[str, Any]) -> str:
    """What the rows of a table have in common, by ``TABLE_COLUMNS``; the first line of its title.

    A column that is not there was chosen for each row.
    """
    decay = f", weight decay {setting['weight_decay']:g}" if setting["weight_decay"] else ""
    block = "" if setting["readout_block"] is None else f" after block {setting['readout_block']}"
    return (
        f"{setting['data']}: {_models(setting)}, "
        f"{setting['trainable']}{block}, learning rate {_shown(setting, 'learning_rate')}{decay}, "
        f"batch {setting['batch_size']}, epochs {_shown(setting, 'epochs')}"
    )


PLAIN = {
    **{"loss_parameters": "{}", "confidence_weight": 0.0, "label_temperature": 1.0},
    **{"label_filter": "none", "relabel": "none", "example_weight": "none"},
    **{"noise_strength": -1.0, "train_rows": None, "anchor": 0.0},
}
"""Values of ``LINE_COLUMNS`` that need no word where a whole table has them."""


def _treatment(shared: dict[str, Any], varying: Sequence[int]) -> str:
    """A line of a title about what all students of a table have, unless it is the plain way."""
    names = [
        name
        for name, plain in PLAIN.items()
        if name in shared and LINE_COLUMNS.index(name) not in varying and shared[name] != plain
    ]
    if "label_filter" in names:
        names.insert(names.index("label_filter") + 1, "label_keep")
    parts = (f"{name.replace('_', ' ')} {shown_value(name, shared[name])}" for name in names)
    return f"\n{', '.join(parts)}" if names else ""


def _shown(setting: dict[str, Any], name: str) -> str:
    """A number that all rows of a table share; else it was chosen for each."""
    return f"{setting[name]:g}" if name in setting else "chosen"


def _models(setting: dict[str, Any]) -> str:
    """The models from the weak one to the student, with the rule of an ensemble."""
    chain = setting["chain"] or f"{setting['weak']}{LINKS}{setting['strong']}"
    weak, *students = chain.split(LINKS)
    combined = f" ({setting['combine']})" if MEMBERS in weak else ""
    return " → ".join([f"{weak}{combined}", *students])


def _caption(
    rows: list[dict[str, Any]], controls: list[dict[str, Any]], all_rows: list[dict[str, Any]]
) -> str:
    weak, ceiling = (_by_model(rows, f"{of}_key", f"{of}_accuracy") for of in ("weak", "ceiling"))
    seeds = len({row["seed"] for row in rows})
    weak_seeds = len({row["weak_seed"] for row in rows})
    of_weak = f" × {weak_seeds} of weak models" if weak_seeds > 1 and _crossed(rows) else ""
    tested = {row["test_rows"] for row in rows if row["test_rows"] is not None}
    incomplete = sum(row["status"] != "done" for row in all_rows)
    incomplete_line = (
        f"\n{incomplete} of {len(all_rows)} cells are incomplete" if incomplete else ""
    )
    names = json.loads(next((row["classes"] for row in rows if row.get("classes")), "[]"))
    more = f" and {len(names) - CLASSES} more" if len(names) > CLASSES else ""
    listed = escape(", ".join(map(visible, names[:CLASSES])))
    classes = f"\nclasses {listed}{more}" if names else ""
    shorter = rows[0]["shorter_answer_accuracy"]
    baseline = "" if shorter is None else f"   shorter answer {percent([shorter])}"
    compared = "".join(
        f"   {name} {percent([r['student_accuracy'] for r in controls if r['control'] == name])}"
        for name in dict.fromkeys(row["control"] for row in controls)
    )
    controls_line = f"controls:{compared}\n" if compared else ""
    return (
        f"weak {percent(weak)}   ceiling {percent(ceiling)}{baseline}\n"
        f"{_without_gap(weak, ceiling)}{controls_line}"
        f"{seeds} seed{'s' if seeds > 1 else ''}{of_weak}"
        f"{' (mean ± standard deviation between seeds)' if seeds > 1 else ''}, "
        f"{', '.join(map(str, sorted(tested))) or 'no'} test rows{classes}{incomplete_line}"
    )


def _crossed(rows: list[dict[str, Any]]) -> bool:
    """Whether students of one seed have weak models of several."""
    return len({(row["seed"], row["weak_seed"]) for row in rows}) > len({r["seed"] for r in rows})


def _without_gap(weak: Sequence[float | None], ceiling: Sequence[float | None]) -> str:
    """A line where there is nothing to recover, so that a ``pgr`` near 1 is not read as success."""
    scores = [[score for score in of if score is not None] for of in (weak, ceiling)]
    if not all(scores) or np.mean(scores[0]) < np.mean(scores[1]):
        return ""
    return (
        "the ceiling is not above the weak model: there is no gap to recover, and a pgr means "
        "nothing\n"
    )


def _by_model(rows: list[dict[str, Any]], key: str, score: str) -> list[float | None]:
    """One score per model, so that a model shared by several cells counts once."""
    return list({row[key]: row[score] for row in rows}.values())


def percent(scores: Sequence[float | None]) -> str:
    """Mean and standard deviation in percent: ``71.3 ±0.4``; one score ``71.3``; none ``–``.

    Args:
        scores: fractions in [0, 1], or None where missing.
    """
    present = [100.0 * score for score in scores if score is not None]
    if not present:
        return "–"
    if len(present) == 1:
        return f"{present[0]:.1f}"
    return f"{np.mean(present):.1f} ±{np.std(present, ddof=1):.1f}"
