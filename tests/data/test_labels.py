"""Soft labels are matched to rows by id, in whatever order the rows and the file are."""

import numpy as np
import pyarrow as pa
import pytest

from w2s_ray.contents import read_parquet, write_content
from w2s_ray.data.labels import labels_table, one_hot, positions, soft_labels_of

SOFT_LABELS = np.array([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]], dtype=np.float32)


def test_soft_labels_survive_the_file_bit_for_bit(tmp_path):
    row_ids = pa.chunked_array([["a", "b"], ["c"]])
    write_content(tmp_path / "file", labels_table(row_ids, SOFT_LABELS))
    stored = soft_labels_of(read_parquet(tmp_path / "file"), ["a", "b", "c"])
    assert stored.dtype == np.float32 and stored.flags.c_contiguous
    np.testing.assert_array_equal(stored, SOFT_LABELS)


def test_labels_are_lists_of_float32():
    """Probabilities come in float64 from the softmax."""
    table = labels_table(pa.chunked_array([["a", "b", "c"]]), np.full((3, 2), 0.1))
    assert table.schema.names == ["row_id", "probs"]
    assert table.schema.field("probs").type == pa.list_(pa.float32())
    np.testing.assert_array_equal(soft_labels_of(table, ["c"]), np.float32([[0.1, 0.1]]))


def test_labels_are_joined_by_id_and_not_by_position():
    row_ids = pa.chunked_array([["c", "x", "a", "b"]])
    table = labels_table(row_ids, SOFT_LABELS[[2, 0, 0, 1]])
    np.testing.assert_array_equal(soft_labels_of(table, ["a", "b", "c"]), SOFT_LABELS)


def test_a_row_without_label_is_refused():
    table = labels_table(pa.chunked_array([["a", "b", "c"]]), SOFT_LABELS)
    with pytest.raises(ValueError, match=r"1 of 2 rows are missing, e\.g\. \['x'\]"):
        soft_labels_of(table, ["a", "x"])


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
