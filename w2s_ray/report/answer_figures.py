"""Figures of answers: accuracy against axes, differences against the labels' confidence.

A figure shows one slice of the grid: every axis that it does not draw is at its first value in the
study, which the caption names.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from w2s_ray.report.answers import Answer, Difference
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.settings import LOSS, SEEDS, Row, Setting
from w2s_ray.report.slices import by, narrowed, slice_of, uneven
from w2s_ray.store.axis_columns import AXES


def rate_figure(rows: Sequence[Row], query: str) -> Figure | None:
    """Accuracy against the learning rate, a line for each loss; None with one rate."""
    students = [row for row in rows if not row["control"] and row["status"] == "done"]
    slice_, at = narrowed(students, _axes_of, (*LOSS, *SEEDS, "learning_rate", "control"))
    if len({row["learning_rate"] for row in slice_}) < 2:
        return None
    lines, counts = [], []
    for loss, own in by(slice_, lambda row: Setting(row, ()).name).items():
        of_rate = by(own, lambda row: row["learning_rate"])
        rates = sorted(of_rate)
        counts.append([len(of_rate[rate]) for rate in rates])
        dots = [(row["learning_rate"], row["student_accuracy"]) for row in own]
        means = [fmean(row["student_accuracy"] for row in of_rate[rate]) for rate in rates]
        lines.append(Line(loss, rates, means, dots=dots))
    return Figure(
        "accuracy-by-rate",
        "Student accuracy against the learning rate; dots are seeds"
        + (f" ({at})." if at else ".")
        + uneven(counts),
        "lines",
        Axis("learning rate", is_log=True),
        Axis("accuracy, %", kind="percent"),
        tuple(lines),
        f"Accuracy of {len(lines)} losses at {len(lines[0].x)} learning rates.",
        query,
    )


def _axes_of(row: Row) -> dict[str, Any]:
    return {axis.name: row[axis.name] for axis in AXES}


DRAWN = {
    "noise_ratio": ("the share of perturbed weak labels", Axis("noise ratio")),
    "label_temperature": ("the temperature of the weak labels", Axis("label temperature")),
    "confidence_weight": ("the weight of the confidence term", Axis("confidence weight")),
    "label_keep": ("the share of labels that a filter keeps", Axis("share kept")),
    "train_rows": ("the number of rows learned from", Axis("rows", is_log=True)),
    "readout_block": ("the block that last layers read", Axis("block")),
    "weight_decay": ("weight decay", Axis("weight decay")),
    "anchor": ("the anchor's weight", Axis("anchor")),
    "epochs": ("training epochs", Axis("epochs")),
}
"""Axes that a figure of their own is drawn of, where they vary: what they are, and the x axis."""


def axis_figures(answers: Sequence[Answer], query: str) -> Iterator[Figure]:
    """Accuracy against each numeric axis that varies."""
    for axis, (what, x) in DRAWN.items():
        if any(axis in of.setting.axes for of in answers):
            figure = _against(answers, axis, what, x, query)
            if figure is not None:
                yield figure


def _against(answers: Sequence[Answer], axis: str, what: str, x: Axis, query: str) -> Figure | None:
    known = [
        of
        for of in answers
        if of.student is not None
        and not of.setting.axes["control"]
        and of.setting.axes[axis] is not None
        and (axis != "label_keep" or of.setting.axes["label_filter"] != "none")
    ]
    slice_, at = slice_of(known, axis)
    if len({of.setting.axes[axis] for of in slice_}) < 2:
        return None
    lines = []
    for loss, own in by(slice_, lambda of: of.setting.name).items():
        ordered = sorted(own, key=lambda of: of.setting.axes[axis])
        scores = [of.student for of in ordered if of.student is not None]
        lines.append(
            Line(
                loss,
                [of.setting.axes[axis] for of in ordered],
                [score.estimate.mean for score in scores],
                [score.interval.low for score in scores],
                [score.interval.high for score in scores],
                [(of.setting.axes[axis], value) for of in ordered for value in of.by_seed],
            )
        )
    return Figure(
        f"accuracy-by-{axis.replace('_', '-')}",
        f"Student accuracy against {what}, with 95 % intervals over rows and seeds; dots are seeds"
        + (f" ({at})." if at else "."),
        "lines",
        x,
        Axis("accuracy, %", kind="percent"),
        tuple(lines),
        f"Student accuracy against {what} for {len(lines)} losses.",
        query,
    )


def phase_figure(differences: Sequence[Difference], query: str) -> Figure | None:
    """Differences from the baseline against how far the weak labels are from uniform."""
    known = [of for of in differences if of.confidence is not None]
    slice_, at = slice_of(known, "label_temperature")
    if len({round(of.confidence or 0.0, 4) for of in slice_}) < 2:
        return None
    lines = []
    for loss, own in by(slice_, lambda of: of.setting.name).items():
        ordered = sorted(own, key=lambda of: of.confidence or 0.0)
        intervals = [of.comparison.estimate.interval() for of in ordered]
        lines.append(
            Line(
                loss,
                [of.confidence or 0.0 for of in ordered],
                [of.comparison.estimate.mean for of in ordered],
                [low for low, _ in intervals],
                [high for _, high in intervals],
            )
        )
    baseline = slice_[0].baseline.name
    return Figure(
        "difference-by-confidence",
        f"Accuracy minus that of {baseline} against the mean distance of the learned labels from "
        "uniform, with 95 % intervals" + (f" ({at})." if at else "."),
        "differences",
        Axis("mean distance of the labels from uniform"),
        Axis("difference, points", kind="points"),
        tuple(lines),
        f"Differences of {len(lines)} losses from {baseline} at growing confidence of the teacher.",
        query,
    )


def misfit_figure(rows: Sequence[Row], query: str) -> Figure | None:
    """Gain against forward misfit, a dot for each student; the theory draws the line y = x."""
    students = [
        row
        for row in rows
        if not row["control"] and row["gain"] is not None and row["misfit_forward"] is not None
    ]
    if not students:
        return None
    lines = tuple(
        Line(loss, [row["misfit_forward"] for row in own], [row["gain"] for row in own])
        for loss, own in by(students, lambda row: Setting(row, ()).name).items()
    )
    return Figure(
        "gain-by-misfit",
        "Gain over the weak model against misfit with it, on the test rows; the line is gain = "
        "misfit. Cross-entropies are of clipped probabilities.",
        "scatter",
        Axis("misfit, nats"),
        Axis("gain, nats"),
        lines,
        f"{len(students)} students of {len(lines)} losses.",
        query,
    )
