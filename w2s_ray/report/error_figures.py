"""Figures of errors and calibration: by the weak model's confidence, and by the student's own."""

import json
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from w2s_ray.report.answers import Answer
from w2s_ray.report.page import Axis, Figure, Line
from w2s_ray.report.row_queries import BINS, FEWEST
from w2s_ray.report.row_scores import RowScores
from w2s_ray.report.settings import Row
from w2s_ray.report.slices import by, slice_of, uneven
from w2s_ray.statistics.decomposition import Array
from w2s_ray.statistics.recalibration import recalibrated


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


def reliability_figures(
    answers: Sequence[Answer], scores: RowScores, raw_query: str, recalibrated_query: str
) -> Iterator[Figure]:
    """Accuracy against confidence, all seeds of a setting together: raw and recalibrated."""
    known = [of for of in answers if of.student is not None and not of.setting.axes["control"]]
    slice_ = slice_of(known)
    forms = (
        ("reliability", "as it is", "", raw_query),
        (
            "reliability-recalibrated",
            "after one temperature for each student, fitted on the other half of the test rows (as "
            "recalibrated_cross_entropy of the results)",
            ", recalibrated",
            recalibrated_query,
        ),
    )
    for name, form, after, query in forms:
        lines = []
        for of in slice_.kept:
            x, y = _reliability(of, scores, recalibrate=bool(after))
            if x:
                lines.append(Line(of.setting.name, x, y))
        if lines:
            yield Figure(
                name,
                f"Accuracy against the probability of the student's top class, {form}, in {BINS} "
                f"bins, seeds together; bins with fewer than {FEWEST} answers are left out"
                f"{slice_.note}",
                "reliability",
                Axis(f"confidence{after}"),
                Axis("accuracy"),
                tuple(lines),
                f"Reliability of {len(lines)} losses{after}.",
                query,
            )


def _reliability(
    of: Answer, scores: RowScores, *, recalibrate: bool
) -> tuple[list[float], list[float | None]]:
    """Mean confidence and accuracy of each bin that has enough answers."""
    data = of.setting.axes["data"]
    keys = [row["key"] for row in of.setting.done if scores.has(row["key"])]
    confidences = [(key, _confidence(scores, key, data, recalibrate)) for key in keys]
    known = [(key, of_key) for key, of_key in confidences if of_key is not None]
    if not known:
        return [], []
    confidence = np.concatenate([of_key for _, of_key in known])
    right = np.concatenate([scores.right(key, data) for key, _ in known])
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    x: list[float] = []
    y: list[Any] = []
    for index in range(BINS):
        inside = bins == index
        if inside.sum() >= FEWEST:
            x.append(float(confidence[inside].mean()))
            y.append(float(right[inside].mean()))
    return x, y


def _confidence(scores: RowScores, key: str, data: str, recalibrate: bool) -> Array | None:
    """(n,) probability of a model's top class; None where it cannot be recalibrated."""
    probs = scores.probs(key, data, exact=recalibrate)
    if not recalibrate:
        top: Array = probs.max(axis=1)
        return top
    rows = scores.rows(data)
    logits = recalibrated(probs, rows.labels, rows.halves)
    if logits is None:
        return None
    shares: Array = 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    return shares
