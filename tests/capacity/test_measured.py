"""Predicted peaks are those of real processes; `benchmarks/memory.py` has larger models."""

import pytest

from benchmarks.memory import Point, measured


# A CPU without instructions for bf16 multiplies fifty times slower than in fp32: few tokens.
@pytest.mark.groups
@pytest.mark.parametrize(
    "stages",
    [[3], pytest.param([None, 2], marks=pytest.mark.slow)],
    ids=["zero3", "plain and zero2"],
)
def test_peaks_are_as_predicted(stages: list[int | None]) -> None:
    points = [Point("small", "bf16", stage, 1, tokens=48, row=24) for stage in stages]
    for point, seen in zip(points, measured(points), strict=True):
        predicted = point.predicted().total
        assert predicted == pytest.approx(seen["peak"], rel=0.1), (point.name, seen)
