"""Which rows calibrate a weak model."""

import numpy as np
import pytest

from w2s_ray.objectives.calibration import held_out


def test_a_tenth_is_held_out_by_hash() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 48, dtype=np.uint64)
    rows = held_out(hashes)
    assert len(rows) == 5 and (np.diff(rows) > 0).all()
    assert set(rows) == set(np.argsort(hashes)[:5])
    with pytest.raises(ValueError, match="9 ground-truth rows, expected at least 10"):
        held_out(hashes[:9])
