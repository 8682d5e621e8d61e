"""Values of a test's parameters, of which ``make ci`` runs a share and ``make test-all`` all."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def share(values: Iterable[Any], every: int) -> list[Any]:
    """All of the values; the first is run by ``make ci``, and each ``every``-th from there."""
    return [
        pytest.param(value, marks=[] if place % every == 0 else [pytest.mark.slow])
        for place, value in enumerate(values)
    ]


def alternating(values: Iterable[Any], ways: Sequence[Any]) -> list[Any]:
    """Each value in each of the ways; ``make ci`` runs each value in one of them, by turns."""
    return [
        pytest.param(value, way, marks=[] if place % len(ways) == turn else [pytest.mark.slow])
        for place, value in enumerate(values)
        for turn, way in enumerate(ways)
    ]
