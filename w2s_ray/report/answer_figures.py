"""Figures of answers: accuracy against rate and noise, differences against the labels' confidence.

A figure shows one slice of the grid: every axis that it does not draw is at its first value in the
study, which the caption names.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from w2s_ray.report.answers import Answer, Difference
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.sentences import shown_value, varying_axes, where
from w2s_ray.report.settings import Row, Setting

_MODELS = ("data", "weak", "strong", "chain", "combine")
_OF_LOSS = ("loss", "loss_parameters")


def rate_figure(rows: Sequence[Row], query: str) -> Figure | None:
    """Accuracy against the learning rate, a line for each loss; None with one rate."""
    students = [row for row in rows if not row["control"] and row["status"] == "done"]
    names = [
        name
        for name in ("noise_ratio", "label_temperature", "trainable", "epochs", *_MODELS)
        if len({str(row[name]) for row in students}) > 1
    ]
    first = {name: _first([row[name] for row in students]) for name in names}
    slice_ = [row for row in students if all(row[name] == first[name] for name in names)]
    if len({row["learning_rate"] for row in slice_}) < 2:
        return None
    lines = []
    for loss, own in _by(slice_, lambda row: Setting(row, ()).name).items():
        of_rate = _by(own, lambda row: row["learning_rate"])
        rates = sorted(of_rate)
        dots = [(row["learning_rate"], row["student_accuracy"]) for row in own]
        means = [fmean(row["student_accuracy"] for row in of_rate[rate]) for rate in rates]
        lines.append(Line(loss, rates, means, dots=dots))
    at = where(first, names)
    return Figure(
        "accuracy-by-rate",
        "Student accuracy against the learning rate; dots are seeds" + (f" ({at})." if at else "."),
        "lines",
        Axis("learning rate", is_log=True),
        Axis("accuracy, %", kind="percent"),
        tuple(lines),
        f"Accuracy of {len(lines)} losses at {len(lines[0].x)} learning rates.",
        query,
    )


def noise_figure(answers: Sequence[Answer], query: str) -> Figure | None:
    """Accuracy against the share of perturbed labels; None with one noise ratio."""
    return _against(
        answers,
        "noise_ratio",
        "accuracy-by-noise",
        "Student accuracy against the share of perturbed weak labels",
        Axis("noise ratio"),
        query,
    )


def temperature_figure(answers: Sequence[Answer], query: str) -> Figure | None:
    """Accuracy against the temperature of the weak labels; None with one."""
    return _against(
        answers,
        "label_temperature",
        "accuracy-by-temperature",
        "Student accuracy against the temperature of the weak labels",
        Axis("label temperature"),
        query,
    )


def _against(
    answers: Sequence[Answer], axis: str, name: str, caption: str, x: Axis, query: str
) -> Figure | None:
    known = [of for of in answers if not of.setting.axes["control"] and of.student is not None]
    slice_, at = _slice(known, axis)
    if len({of.setting.axes[axis] for of in slice_}) < 2:
        return None
    lines = []
    for loss, own in _by(slice_, lambda of: of.setting.name).items():
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
        name,
        f"{caption}, with 95 % intervals over rows and seeds; dots are seeds"
        + (f" ({at})." if at else "."),
        "lines",
        x,
        Axis("accuracy, %", kind="percent"),
        tuple(lines),
        f"{caption} for {len(lines)} losses.",
        query,
    )


def phase_figure(differences: Sequence[Difference], query: str) -> Figure | None:
    """Differences from the baseline against how far the weak labels are from uniform."""
    known = [of for of in differences if of.confidence is not None]
    slice_, at = _slice(known, "label_temperature")
    if len({round(of.confidence or 0.0, 4) for of in slice_}) < 2:
        return None
    lines = []
    for loss, own in _by(slice_, lambda of: of.setting.name).items():
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
        for loss, own in _by(students, lambda row: Setting(row, ()).name).items()
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


def _slice(of: Sequence[Any], axis: str) -> tuple[list[Any], str]:
    """Those whose other axes are at their first value, and these values in words."""
    names = [
        name
        for name in varying_axes([one.setting.axes for one in of])
        if name not in (axis, *_OF_LOSS, "control")
    ]
    first = {name: _first([one.setting.axes[name] for one in of]) for name in names}
    kept = [one for one in of if all(one.setting.axes[name] == first[name] for name in names)]
    return kept, where(first, names)


def _first(values: Sequence[Any]) -> Any:
    """The value of no noise and no temperature where there are such, else the first."""
    return 1.0 if 1.0 in values and 0.0 not in values else min(values, key=_order)


def _order(value: Any) -> tuple[bool, Any]:
    return value is None, shown_value(value) if isinstance(value, str) else value


def _by(of: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for one in of:
        groups[key(one)].append(one)
    return groups
