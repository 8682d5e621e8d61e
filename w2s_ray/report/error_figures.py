"""Figures of errors and calibration: by the weak model's confidence, and by the student's own."""

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from w2s_ray.report.answers import Answer
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.row_scores import RowScores
from w2s_ray.report.settings import Row
from w2s_ray.report.slices import by, slice_of, uneven

BINS = 10  # of confidence, equally wide
FEWEST = 20  # answers in a bin that is drawn


def decile_figure(answers: Sequence[Answer], rate: str, query: str) -> Figure | None:
    """Correction or inheritance of the weak model's errors by decile of its confidence.

    Args:
        rate: ``error_correction`` or ``error_inheritance``.
    """
    known = [of for of in answers if of.student is not None and not of.setting.axes["control"]]
    slice_ = slice_of(known)
    lines, counts = [], []
    for loss, own in by(slice_.kept, lambda of: of.setting.name).items():
        rates = [pair for of in own for row in of.setting.done for pair in _deciles(row, rate)]
        points = by(rates, lambda pair: pair[0])
        x = sorted(points)
        if x:
            lines.append(Line(loss, x, [fmean(value for _, value in points[at]) for at in x]))
            counts.append([len(points[at]) for at in x])
    if not lines:
        return None
    what = {
        "error_correction": "Share of the weak model's errors that students correct",
        "error_inheritance": "Share of the weak model's errors that students repeat",
    }[rate]
    return Figure(
        rate.replace("_", "-"),
        f"{what}, by decile of the weak model's confidence, mean over seeds{slice_.note}"
        + uneven(counts),
        "lines",
        Axis("decile of the weak model's confidence"),
        Axis("share, %", kind="percent"),
        tuple(lines),
        f"{what} for {len(lines)} losses.",
        query,
    )


def _deciles(row: Row, rate: str) -> list[tuple[int, float]]:
    """(decile from 1, rate) of a student; by ranks, since weak models differ in confidence."""
    deciles = json.loads(row["by_weak_confidence"] or "[]")
    total, before, found = sum(of["rows"] for of in deciles), 0, []
    for of in deciles:
        middle = before + of["rows"] / 2.0
        before += of["rows"]
        if of[rate] is not None:
            found.append((min(10, 1 + int(10.0 * middle / total)), of[rate]))
    return found


def reliability_figure(answers: Sequence[Answer], scores: RowScores) -> Figure | None:
    """Accuracy against confidence, all seeds of a setting together."""
    known = [of for of in answers if of.student is not None and not of.setting.axes["control"]]
    slice_ = slice_of(known)
    lines = []
    for of in slice_.kept:
        x, y = _reliability(of.setting.done, of.setting.axes["data"], scores)
        if x:
            lines.append(Line(of.setting.name, x, y))
    if not lines:
        return None
    return Figure(
        "reliability",
        f"Accuracy against the probability of the student's top class in {BINS} bins, seeds "
        f"together; bins with fewer than {FEWEST} answers are left out{slice_.note} Recalibrated "
        "cross-entropies are in the results.",
        "reliability",
        Axis("confidence"),
        Axis("accuracy"),
        tuple(lines),
        f"Reliability of {len(lines)} losses.",
    )


def _reliability(
    rows: Sequence[Row], data: str, scores: RowScores
) -> tuple[list[float], list[float | None]]:
    keys = [row["key"] for row in rows if scores.has(row["key"])]
    if not keys:
        return [], []
    confidence = np.concatenate([scores.probs(key, data).max(axis=1) for key in keys])
    right = np.concatenate([scores.right(key, data) for key in keys])
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    x: list[float] = []
    y: list[Any] = []
    for index in range(BINS):
        inside = bins == index
        if inside.sum() >= FEWEST:
            x.append(float(confidence[inside].mean()))
            y.append(float(right[inside].mean()))
    return x, y
