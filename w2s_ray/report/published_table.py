"""Published accuracies beside those of a study that has the same setting.

``published.json`` has the tables of docs/protocol.md by the names of data and models in the shipped
specs. One published number is one run on so many test rows, so it has a sampling error of its own.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from w2s_ray.report.answers import Answer
from w2s_ray.report.page import Cell, Table, TableColumn
from w2s_ray.report.sentences import models
from w2s_ray.statistics.power import published_resolution
from w2s_ray.statistics.proportions import wilson

_SAME = ("data", "weak", "strong", "loss", "noise_ratio")


def published_table(answers: Sequence[Answer], query: str) -> Table | None:
    """A row for each setting that was published; None if none was."""
    known = _published()
    by_setting = {tuple(of[name] for name in _SAME): of["accuracy"] for of in known["accuracies"]}
    rows = []
    for answer in answers:
        axes = answer.setting.axes
        value = by_setting.get(tuple(axes[name] for name in _SAME))
        if value is None or answer.student is None or not _is_setting(answer, known["setting"]):
            continue
        share = value / 100.0
        ours = answer.student
        rows.append(
            (
                Cell(text=models(axes)),
                Cell(text=answer.setting.name),
                Cell(axes["noise_ratio"]),
                Cell(share, *wilson(share, known["test_rows"])),
                Cell(ours.estimate.mean, ours.interval.low, ours.interval.high),
                Cell(ours.estimate.mean - share),
            )
        )
    if not rows:
        return None
    gap = published_resolution(known["test_rows"])
    return Table(
        "published",
        f"Accuracies published in {known['source']}, and here",
        (
            TableColumn("models"),
            TableColumn("loss"),
            TableColumn("noise ratio", "number"),
            TableColumn("published, %", "percent"),
            TableColumn("here, %", "percent"),
            TableColumn("difference, points", "points"),
        ),
        tuple(rows),
        query,
        (
            f"A published number is one run on {known['test_rows']:,} rows; its interval is of "
            "these rows alone. Two published models that decide 5 % of the rows differently can be "
            f"told apart from {100 * gap:.1f} points upwards (80 % power). Data and models are "
            "matched by the names of the shipped specs.",
        ),
    )


def _is_setting(answer: Answer, setting: dict[str, Any]) -> bool:
    """Whether the students were trained as the published ones."""
    axes = answer.setting.axes
    if axes["control"] or axes["chain"]:
        return False
    return all(row[name] == value for row in answer.setting.done for name, value in setting.items())


@cache
def _published() -> dict[str, Any]:
    content = files("w2s_ray.report").joinpath("published.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(content)
    return found
