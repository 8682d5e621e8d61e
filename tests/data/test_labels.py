"""Soft labels are matched to rows by id, in whatever order the rows and the file are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_ray.data.labels import one_hot, positions, read_soft_labels, write_soft_labels

SOFT_LABELS = np.array([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]], dtype=np.float32)


def test_soft_labels_survive_the_file_bit_for_bit(tmp_path):
    row_ids = pa.chunked_array([["a", "b"], ["c"]])
    write_soft_labels(tmp_path / "file", row_ids, SOFT_LABELS)
    stored = read_soft_labels(tmp_path / "file", ["a", "b", "c"])
    assert stored.dtype == np.float32 and stored.flags.c_contiguous
    np.testing.assert_array_equal(stored, SOFT_LABELS)


def test_the_file_holds_lists_of_float32(tmp_path):
    """Probabilities come in float64 from the softmax."""
    write_soft_labels(tmp_path / "file", pa.chunked_array([["a", "b", "c"]]), np.full((3, 2), 0.1))
    schema = pq.read_schema(tmp_path / "file")
    assert schema.names == ["row_id", "probs"]
    assert schema.field("probs").type == pa.list_(pa.float32())
    np.testing.assert_array_equal(
        read_soft_labels(tmp_path / "file", ["c"]), np.float32([[0.1, 0.1]])
    )


def test_labels_are_joined_by_id_and_not_by_position(tmp_path):
    row_ids = pa.chunked_array([["c", "x", "a", "b"]])
    write_soft_labels(tmp_path / "file", row_ids, SOFT_LABELS[[2, 0, 0, 1]])
    np.testing.assert_array_equal(read_soft_labels(tmp_path / "file", ["a", "b", "c"]), SOFT_LABELS)


def test_a_row_without_label_is_refused(tmp_path):
    write_soft_labels(tmp_path / "file", pa.chunked_array([["a", "b", "c"]]), SOFT_LABELS)
    with pytest.raises(ValueError, match=r"1 of 2 rows are missing, e\.g\. \['x'\]"):
        read_soft_labels(tmp_path / "file", ["a", "x"])


def test_an_absent_id_and_an_id_given_twice_are_refused():
    with pytest.raises(ValueError, match=r"1 of 3 rows are missing, e\.g\. \['c'\]"):
        positions(["a", "b", "c"], ["b", "a"])
    with pytest.raises(ValueError, match=r"4 of 4 rows are missing, e\.g\. \['a', 'b', 'c'\]$"):
        positions(["a", "b", "c", "d"], [])
    with pytest.raises(ValueError, match="1 row ids occur twice among 3"):
        positions(["a"], ["a", "b", "a"])


def test_true_labels_are_certain():
    assert one_hot(np.array([2, 0, 1]), 3).dtype == np.float32
    assert one_hot(np.array([2, 0, 1]), 3).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
