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


@pytest.mark.parametrize("classes", [2, 5])
def test_validation_rows_are_never_trained_on_and_the_same_for_all(
    tmp_path: Path, classes: int
) -> None:
    weak = np.random.default_rng(0).dirichlet(np.ones(classes), len(IDS)).astype(np.float32)
    write_soft_labels(tmp_path / SOFT_LABELS, pa.chunked_array([IDS]), weak)
    truth = np.arange(len(IDS)) % classes
    rows = pa.table({"row_id": IDS, "label": pa.array(truth, pa.int64())})
    artifact: Any = SimpleNamespace(folder=tmp_path)
    targets = Targets(rows, classes, lambda key: artifact)
    student = config_of("student")
    assert isinstance(student, StudentConfig)
    student = replace(student, noise=Noise(0.5, 0.0), labels=LabelTreatment(0.5))

    def supervision(config: Any, of: Targets = targets) -> Any:
        return of.of(replace(a_step("student", "s"), config=config, inputs={"label": "labels"}))

    whole = supervision(student)
    assert whole.validation is None
    before: set[int] = set()
    for count in (1, 10, 39):
        cut = supervision(replace(student, validation_rows=count))
        held = cut.validation
        assert set(held.rows) | set(cut.rows) == set(range(len(IDS)))
        assert len(held.rows) == count and len(cut.rows) == len(IDS) - count
        assert before <= set(held.rows)  # fewer are a part of more
        before = set(held.rows)
        # Temperature and noise come before the cut: no row's label depends on it.
        np.testing.assert_array_equal(cut.soft_labels, whole.soft_labels[cut.rows])
        np.testing.assert_array_equal(held.held_out.soft_labels, whole.soft_labels[held.rows])
        np.testing.assert_array_equal(held.held_out.labels, truth[held.rows])
        other = supervision(replace(student, seed=9, validation_rows=count))
        np.testing.assert_array_equal(other.validation.rows, held.rows)
    lowest = np.argsort(hashes(IDS, "validation"))[:10]
    ten = supervision(replace(student, validation_rows=10)).validation
    assert list(ten.rows) == sorted(lowest)
    with pytest.raises(ValueError, match=r"validation\.rows: given 40, expected less than 40"):
        supervision(replace(student, validation_rows=40))
    # A ceiling trains on other rows, all of them, and is scored on these with their true labels.
    others = pa.table({"row_id": ["a", "b"], "label": pa.array([0, 1], pa.int64())})
    ceiling = Targets(others, classes, lambda key: artifact, rows)
    scored = supervision(replace(config_of("ceiling"), validation_rows=10), ceiling)
    assert list(scored.rows) == [0, 1]
    np.testing.assert_array_equal(scored.validation.rows, ten.rows)
    np.testing.assert_array_equal(
        scored.validation.held_out.soft_labels, np.eye(classes)[truth[ten.rows]]
    )
