"""Scores of single rows: the fast way of two classes is the general one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.report.row_scores import _right, _right_of_two

PROBABILITIES = st.one_of(st.floats(0.0, 1.0), st.just(0.5), st.floats(0.4999999, 0.5000001))


@given(st.lists(st.tuples(PROBABILITIES, st.integers(0, 1)), min_size=1))
def test_two_classes_are_scored_as_any_number_is(rows: list[tuple[float, int]]) -> None:
    of_one = np.array([p for p, _ in rows])
    labels = np.array([label for _, label in rows])
    probs = np.column_stack([1.0 - of_one, of_one])
    np.testing.assert_array_equal(_right_of_two(probs, labels), _right(probs, labels))
    swapped = probs[:, ::-1]
    np.testing.assert_array_equal(_right_of_two(swapped, 1 - labels), _right(probs, labels))
