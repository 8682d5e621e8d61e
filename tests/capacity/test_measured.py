"""Predicted peaks are those of real processes; `benchmarks/memory.py` has larger models."""

import pytest

from benchmarks.memory import Point, measured

POINTS = [
    Point("small", "bf16", None, 1),
    Point("small", "bf16", 2, 1),
    Point("small", "bf16", 3, 1),
]


@pytest.mark.groups
def test_peaks_are_as_predicted() -> None:
    for point, seen in zip(POINTS, measured(POINTS), strict=True):
        predicted = point.predicted().total
        assert predicted == pytest.approx(seen["peak"], rel=0.1), (point.name, seen)
