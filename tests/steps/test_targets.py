"""A student's labels are the stored ones at its temperature, then with its noise."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.testing.steps import a_step, config_of
from w2s_ray.data.labels import write_soft_labels
from w2s_ray.objectives.noise import apply_noise
from w2s_ray.objectives.temperature import at_temperature
from w2s_ray.order import hashes
from w2s_ray.plan.configs import LabelTreatment, Noise, StudentConfig
from w2s_ray.steps.targets import Targets
from w2s_ray.store.names import SOFT_LABELS

IDS = [f"row {n}" for n in range(40)]


@pytest.mark.parametrize("classes", [2, 5])
def test_temperature_comes_before_noise_and_labels_are_joined_by_id(
    tmp_path: Path, classes: int
) -> None:
    weak = np.random.default_rng(0).dirichlet(np.ones(classes), len(IDS)).astype(np.float32)
    shuffled = np.random.default_rng(1).permutation(len(IDS))
    ids = pa.chunked_array([pa.array(IDS).take(pa.array(shuffled))])
    write_soft_labels(tmp_path / SOFT_LABELS, ids, weak[shuffled])
    rows = pa.table({"row_id": IDS, "label": pa.array([0] * len(IDS), pa.int64())})
    artifact: Any = SimpleNamespace(folder=tmp_path)
    targets = Targets(rows, classes, lambda key: {"labels": artifact}[key])
    config = config_of("student")
    assert isinstance(config, StudentConfig)

    def labels(temperature: float, *noise: float) -> Any:
        wanted = replace(config, noise=Noise(*noise), labels=LabelTreatment(temperature))
        step = replace(a_step("student", "s"), config=wanted, inputs={"label": "labels"})
        return targets.of(step).soft_labels

    np.testing.assert_array_equal(labels(1.0), weak)
    np.testing.assert_array_equal(labels(0.5), at_temperature(weak, 0.5))
    sharp = at_temperature(weak, 0.1)
    noisy = apply_noise(sharp, hashes(IDS, 0, "noise"), 0.5, 0.0)
    np.testing.assert_array_equal(labels(0.1, 0.5, 0.0), noisy)
    # Noise that erases labels leaves no trace of the temperature in its rows.
    assert (noisy == np.float32(1 / classes)).all(axis=1).sum() == len(IDS) / 2
