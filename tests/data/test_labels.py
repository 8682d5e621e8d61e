"""Soft labels find their rows by id, in whatever order either of them stands."""

import numpy as np
import pyarrow as pa
import pytest

from w2s_ray.data.labels import as_column, as_matrix, join, one_hot, positions

ROWS = pa.table({"row_id": ["a", "b", "c"], "label": [2, 0, 1]})
PROBS = np.array([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]], dtype=np.float32)


def test_a_matrix_survives_as_a_column():
    column = pa.chunked_array([as_column(PROBS[:2]), as_column(PROBS[2:])])
    assert as_matrix(column).dtype == np.float32
    np.testing.assert_array_equal(as_matrix(column), PROBS)


def test_labels_are_stored_in_32_bits_whatever_they_were_computed_in():
    column = as_column(PROBS.astype(np.float64))
    assert column.type == pa.list_(pa.float32())
    np.testing.assert_array_equal(as_matrix(pa.chunked_array([column])), PROBS)
    assert one_hot(ROWS, 3)["probs"].type == pa.list_(pa.float32())


def test_labels_are_joined_by_id_and_not_by_place():
    labels = pa.table({"row_id": ["c", "x", "a", "b"], "probs": as_column(PROBS[[2, 0, 0, 1]])})
    np.testing.assert_array_equal(as_matrix(join(ROWS, labels)["probs"]), PROBS)


def test_a_row_without_label_and_a_label_given_twice_are_refused():
    with pytest.raises(ValueError, match=r"1 of 3 rows are missing, e\.g\. \['c'\]"):
        positions(["a", "b", "c"], ["b", "a"])
    with pytest.raises(ValueError, match=r"4 of 4 rows are missing, e\.g\. \['a', 'b', 'c'\]$"):
        positions(["a", "b", "c", "d"], [])
    with pytest.raises(ValueError, match="1 row ids stand twice among 3"):
        positions(["a"], ["a", "b", "a"])


def test_true_labels_are_certain():
    expected = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert as_matrix(one_hot(ROWS, 3)["probs"]).tolist() == expected
