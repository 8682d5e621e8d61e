"""However a batch is cut up and spread, the same rows meet in it and weigh the same."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_ray.data.batches import epoch_order, length_batches, optimizer_batches, pad, rank_rows
from w2s_ray.data.tokens import Tokens


def tokens_of(lengths: list[list[int]]) -> Tokens:
    """Rows of texts of these lengths; every token is 0 but the last of a text, its number + 1."""
    sizes = np.array(lengths, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes.ravel())]).astype(np.int64)
    ids = np.zeros(offsets[-1], dtype=np.int32)
    ids[offsets[1:] - 1] = np.arange(1, sizes.size + 1)
    row_ids = [f"row{i}" for i in range(len(lengths))]
    return Tokens(row_ids, ids, offsets, np.zeros(len(lengths), np.int64), sizes.shape[1], 0)


sizes = st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=2), min_size=1, max_size=40)


@settings(deadline=None)
@given(sizes, st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_ranks_and_micro_batches_make_up_the_batch_whatever_their_number(
    lengths, world, micro, seed
):
    row_lengths = np.array(lengths).max(axis=1)
    batch = np.random.default_rng(seed).permutation(len(lengths))
    shares = [rank_rows(batch, rank, world, micro, row_lengths) for rank in range(world)]

    shapes = [[len(rows) for rows, _ in share] for share in shares]
    assert all(shape == shapes[0] for shape in shapes)
    assert max(shapes[0]) <= micro
    placed = [
        (int(row), float(weight))
        for share in shares
        for rows, weights in share
        for row, weight in zip(rows, weights, strict=True)
    ]
    assert Counter(row for row, weight in placed if weight) == Counter(batch.tolist())
    assert {weight for _, weight in placed} <= {0.0, float(np.float32(1 / len(batch)))}
    assert sum(weight for _, weight in placed) == pytest.approx(1.0, abs=1e-6)
    assert len(placed) - len(batch) < world  # stand-ins; none for one rank alone
    assert all(weights.dtype == np.float32 for share in shares for _, weights in share)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_visits_every_row_once_and_keeps_the_last_few(n, batch_size, epoch):
    row_ids = [f"{i:016x}" for i in range(n)]
    visits = epoch_order(row_ids, 3, epoch)
    batches = list(optimizer_batches(visits, batch_size))
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    assert len(batches) == -(-n // batch_size)
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_an_epoch_follows_row_ids_seed_and_number_but_not_the_order_of_the_table():
    row_ids = [f"{i:016x}" for i in range(100)]
    visited = [row_ids[i] for i in epoch_order(row_ids, 0, 0)]
    backward = row_ids[::-1]
    assert [backward[i] for i in epoch_order(backward, 0, 0)] == visited
    for seed, epoch in ((0, 1), (1, 0)):
        assert [row_ids[i] for i in epoch_order(row_ids, seed, epoch)] != visited


@settings(deadline=None)
@given(sizes, st.integers(1, 300))
def test_batches_for_inference_hold_every_row_once_within_the_budget(lengths, budget):
    tokens = tokens_of(lengths)
    batches = length_batches(tokens, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    widths = [int(tokens.row_lengths[rows].max()) for rows in batches]
    assert widths == sorted(widths, reverse=True)
    for rows, width in zip(batches, widths, strict=True):
        assert len(rows) == 1 or len(rows) * 2 * width <= budget
        assert pad(tokens, rows)[0].shape == (2 * len(rows), width)


@settings(deadline=None)
@given(sizes, st.integers(0, 2**32))
def test_padding_is_on_the_right_and_lengths_find_the_last_token(lengths, seed):
    tokens = tokens_of(lengths)
    rows = np.random.default_rng(seed).integers(0, len(lengths), 7)
    input_ids, found = pad(tokens, rows)
    assert input_ids.dtype == found.dtype == np.int64
    assert found.tolist() == np.array(lengths)[rows].ravel().tolist()
    last = input_ids[np.arange(len(found)), found - 1]
    assert last.tolist() == (rows[:, None] * 2 + np.array([1, 2])).ravel().tolist()
    assert input_ids.sum() == last.sum()
