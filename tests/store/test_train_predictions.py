"""The table of training rows: what students saw, beside what all three models make of it."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import compute, parquet
from scipy.special import log_softmax, softmax

from w2s_ray.half_logits import as_lists, of_probabilities, relative
from w2s_ray.store.artifacts import Store
from w2s_ray.store.train_predictions import write_train_predictions


def read(store: Store, study: str = "hh") -> Any:
    with store.open_file(f"train_predictions/{study}.parquet") as file:
        return parquet.read_table(file)


def test_each_model_is_there_once_with_its_rows_and_only_students_with_labels(
    store: Store, study: Any
) -> None:
    made = study(store)
    made.finish_all()
    where = write_train_predictions(store, "hh", made.cells)
    assert where == f"{store.uri}/train_predictions/hh.parquet"
    table = read(store)
    steps = {"weak": "label", "student": "student", "ceiling": "ceiling"}
    rows = {"weak": 4, "student": 3, "ceiling": 4}
    for role, step in steps.items():
        own = table.filter(compute.field("model_role") == role)
        assert set(own["key"].to_pylist()) == {cell["keys"][step] for cell in made.cells}
        for key in set(own["key"].to_pylist()):
            of_key = own.filter(compute.field("key") == key)
            assert of_key.num_rows == rows[role]
            probs = softmax(np.array(of_key["logits"].to_pylist(), dtype=np.float64), axis=1)
            expected = made.predicted(key)["probs"].to_pylist()[-rows[role] :]
            np.testing.assert_allclose(probs, expected, rtol=1e-2)
            labels = of_key["soft_label"].to_pylist()
            assert labels == (expected if role == "student" else [None] * 4)
            noisy = [False, True, False] if role == "student" else [None] * 4
            assert of_key["noisy"].to_pylist() == noisy
    student = table.filter(compute.field("model_role") == "student").slice(0, 3)
    assert student["label"].to_pylist() == [1, 0, 1], "the true classes, joined by row id"
    first, second, third = student["prompt_id"].to_pylist()
    assert first != second and third == student["row_id"].to_pylist()[2]


def test_a_model_without_such_predictions_is_left_out(store: Store, study: Any) -> None:
    made = study(store, seeds=[0])
    cell = made.cells[0]
    for role in ("prepare", "weak", "label"):
        made.finish(role, cell)
    with store.draft(made.step("student", cell), {}) as draft:
        parquet.write_table(made.predicted("x"), draft.folder / "test.parquet")
    write_train_predictions(store, "hh", made.cells)
    assert set(read(store)["model_role"].to_pylist()) == {"weak"}


def test_it_is_rebuilt_byte_for_byte_and_not_written_twice(local: Store, study: Any) -> None:
    made = study(local)
    made.finish_all()
    path = Path(local.uri, "train_predictions/hh.parquet")
    write_train_predictions(local, "hh", made.cells)
    first = path.stat().st_ino, path.read_bytes()
    write_train_predictions(local, "hh", made.cells[::-1])
    assert (path.stat().st_ino, path.read_bytes()) == first
    path.unlink()
    write_train_predictions(local, "hh", made.cells)
    assert path.read_bytes() == first[1]
    assert parquet.ParquetFile(BytesIO(first[1])).num_row_groups == 8


def test_an_empty_study_has_an_empty_table(local: Store, study: Any) -> None:
    write_train_predictions(local, "hh", study(local).cells)
    assert read(local).num_rows == 0


@pytest.mark.parametrize("k", [2, 5])
def test_float16_keeps_differences_to_one_in_2048(k: int) -> None:
    logits = np.random.default_rng(0).normal(scale=20.0, size=(500, k)) + 1e4
    stored = relative(logits).astype(np.float64)
    exact = logits - logits.max(axis=1, keepdims=True)
    np.testing.assert_allclose(stored, exact, rtol=2.0**-11)
    assert (stored.max(axis=1) == 0.0).all()
    assert np.array_equal(stored.argmax(axis=1), logits.argmax(axis=1))
    probs = softmax(logits, axis=1)
    np.testing.assert_allclose(
        log_softmax(of_probabilities(probs).astype(np.float64), axis=1),
        log_softmax(logits, axis=1),
        rtol=2.0**-10,
        atol=1e-3,
    )


def test_extreme_logits_and_certain_labels_stay_finite() -> None:
    assert relative(np.array([[1e30, 0.0]])).tolist() == [[0.0, -65504.0]]
    assert relative(np.array([[1e-9, 0.0]])).tolist() == [[0.0, 0.0]], "too close: a tie"
    certain = of_probabilities(np.array([[1.0, 0.0]]))
    assert np.isfinite(certain).all() and certain[0, 1] < -700
    assert as_lists(certain).to_pylist() == certain.tolist()
