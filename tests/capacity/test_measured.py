"""Predicted peaks are those of real processes; `benchmarks/memory.py` has larger models."""

import pytest

from benchmarks.memory import Point, measured

# A CPU without instructions for bf16 multiplies fifty times slower than in fp32: few tokens.
POINTS = [Point("small", "bf16", stage, 1, tokens=48, row=24) for stage in (None, 2, 3)]


@pytest.mark.groups
def test_peaks_are_as_predicted() -> None:
    for point, seen in zip(POINTS, measured(POINTS), strict=True):
        predicted = point.predicted().total
        assert predicted == pytest.approx(seen["peak"], rel=0.1), (point.name, seen)
