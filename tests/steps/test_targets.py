"""A student's labels are the stored ones at its temperature, then with its noise, then treated."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.testing.steps import a_step, config_of
from w2s_ray.contents import read_parquet, write_content
from w2s_ray.data.labels import labels_table
from w2s_ray.objectives.noise import apply_noise
from w2s_ray.objectives.temperature import at_temperature
from w2s_ray.order import hashes
from w2s_ray.plan.configs import LabelTreatment, Noise, StudentConfig, WeakConfig
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
    write_content(tmp_path / SOFT_LABELS, labels_table(ids, weak[shuffled]))
    rows = pa.table({"row_id": IDS, "label": pa.array([0] * len(IDS), pa.int64())})
    artifact: Any = SimpleNamespace(table=lambda name: read_parquet(tmp_path / name))
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
    write_content(tmp_path / SOFT_LABELS, labels_table(pa.chunked_array([IDS]), weak))
    truth = np.arange(len(IDS)) % classes
    rows = pa.table({"row_id": IDS, "label": pa.array(truth, pa.int64())})
    artifact: Any = SimpleNamespace(table=lambda name: read_parquet(tmp_path / name))
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


def test_rows_that_are_left_out_are_never_learned_and_seeds_share_labels_without_noise(
    tmp_path: Path,
) -> None:
    weak = np.random.default_rng(0).dirichlet(np.ones(3), len(IDS)).astype(np.float32)
    write_content(tmp_path / SOFT_LABELS, labels_table(pa.chunked_array([pa.array(IDS)]), weak))
    truth = np.arange(len(IDS)) % 3
    rows = pa.table({"row_id": IDS, "label": pa.array(truth, pa.int64())})
    artifact: Any = SimpleNamespace(table=lambda name: read_parquet(tmp_path / name))
    left_out = np.arange(len(IDS)) < 8
    targets = Targets(rows, 3, lambda key: {"labels": artifact}[key], per_row=1, left_out=left_out)
    config = config_of("student")
    assert isinstance(config, StudentConfig)

    def learned(**changes: Any) -> Any:
        step = a_step("student", "s", inputs={"label": "labels"})
        return targets.of(replace(step, config=replace(config, **changes)))

    half = LabelTreatment(filter_by="confidence", keep=0.5, example_weight="confidence")
    one, other = learned(seed=1, labels=half), learned(seed=2, labels=half)
    assert one.rows is other.rows and one.soft_labels is other.soft_labels
    assert len(one.rows) == 16 and one.rows.min() >= 8 and one.weights.mean() == pytest.approx(1)
    np.testing.assert_array_equal(one.soft_labels, weak[one.rows])
    assert one.facts["trained_rows"] == 16
    noisy = [learned(seed=s, labels=half, noise=Noise(0.5, -1.0)).soft_labels for s in (1, 2)]
    assert (noisy[0] != noisy[1]).any()
    targets_of_none = Targets(
        rows, 3, lambda key: {"labels": artifact}[key], left_out=np.ones(len(IDS), dtype=np.bool_)
    )
    step = replace(a_step("student", "s", inputs={"label": "labels"}), config=config)
    with pytest.raises(ValueError, match="answers of all 40 pairs are the same tokens"):
        targets_of_none.of(step)
    plain = learned(seed=1)
    np.testing.assert_array_equal(plain.rows, np.arange(8, len(IDS)))
    top = weak[8:].argmax(axis=1)
    assert plain.facts["learned_label_accuracy"] == pytest.approx((top == truth[8:]).mean())
    # The weak model learns the truth of the rows that do not calibrate it.
    step = replace(a_step("weak", "w"), config=WeakConfig({}, config.training, 0, 0.1))
    supervision = targets.of(step)
    held = set(np.argsort(hashes(IDS, "calibration"))[:4])
    assert set(supervision.rows) == set(range(8, len(IDS))) - held
    np.testing.assert_array_equal(supervision.soft_labels.argmax(axis=1), truth[supervision.rows])


@pytest.fixture
def targets_and_weak(tmp_path: Path) -> tuple[Targets, np.ndarray[Any, Any]]:
    """Targets on 40 rows of three classes, and the weak labels of these."""
    weak = np.random.default_rng(0).dirichlet(np.ones(3), len(IDS)).astype(np.float32)
    write_content(tmp_path / SOFT_LABELS, labels_table(pa.chunked_array([pa.array(IDS)]), weak))
    truth = np.arange(len(IDS)) % 3
    rows = pa.table({"row_id": IDS, "label": pa.array(truth, pa.int64())})
    artifact: Any = SimpleNamespace(table=lambda name: read_parquet(tmp_path / name))
    return Targets(rows, 3, lambda key: {"labels": artifact}[key], per_row=1), weak


def a_student(**changes: Any) -> Any:
    config = config_of("student")
    assert isinstance(config, StudentConfig)
    step = a_step("student", "s", inputs={"label": "labels"})
    return replace(step, config=replace(config, **changes))


@pytest.mark.parametrize("shuffled", [False, True])
def test_labels_before_noise_are_those_of_the_same_student_without_it(
    targets_and_weak: tuple[Targets, np.ndarray[Any, Any]], shuffled: bool
) -> None:
    targets, _ = targets_and_weak
    labels = LabelTreatment(temperature=0.5, shuffled=shuffled)
    noise = Noise(0.4, -1.0)
    noised = targets.noise_of(a_student(seed=3, noise=noise, labels=labels))
    assert noised is not None and targets.noise_of(a_student(seed=3, labels=labels)) is None
    clean = targets.of(a_student(seed=3, labels=labels)).soft_labels
    learned = targets.of(a_student(seed=3, noise=noise, labels=labels)).soft_labels
    np.testing.assert_array_equal(noised.before, clean)
    np.testing.assert_array_equal(noised.after, learned)
    lowest = np.argsort(hashes(IDS, 3, "noise"), kind="stable")[: round(0.4 * len(IDS))]
    assert set(np.flatnonzero(noised.noisy)) == set(lowest)
    changed = (noised.before.argmax(axis=1) != noised.after.argmax(axis=1)).nonzero()[0]
    assert set(changed) == set(lowest)


def test_shuffled_labels_are_the_weak_ones_in_an_order_of_the_seed(
    targets_and_weak: tuple[Targets, np.ndarray[Any, Any]],
) -> None:
    targets, weak = targets_and_weak
    first, again, other = (
        targets.of(a_student(seed=seed, labels=LabelTreatment(shuffled=True))).soft_labels
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != weak).any()
    for labels in (first, other):
        np.testing.assert_array_equal(np.sort(labels, axis=0), np.sort(weak, axis=0))


def test_facts_are_of_the_rows_that_a_filter_leaves(
    targets_and_weak: tuple[Targets, np.ndarray[Any, Any]],
) -> None:
    targets, weak = targets_and_weak
    half = LabelTreatment(filter_by="confidence", keep=0.5)
    found = targets.of(a_student(labels=half))
    truth = (np.arange(len(IDS)) % 3)[found.rows]
    expected = (weak[found.rows].argmax(axis=1) == truth).mean()
    assert found.facts["learned_label_accuracy"] == pytest.approx(expected)
    others = np.setdiff1d(np.arange(len(IDS)), found.rows)
    spread = np.abs(weak - 1 / 3).max(axis=1)
    assert spread[found.rows].min() >= spread[others].max()
