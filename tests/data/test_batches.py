"""However a batch is cut up and spread, the same rows meet in it and weigh the same."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_ray.data.batches import (
    epoch_order,
    length_batches,
    micro_batches,
    optimizer_batches,
    pack,
)
from w2s_ray.data.tokens import Tokens

row_lengths = st.lists(st.integers(1, 30), min_size=1, max_size=40).map(np.array)
budgets = st.integers(1, 300)


@given(row_lengths, budgets, st.integers(1, 9), st.integers(0, 2**32))
def test_ranks_and_micro_batches_make_up_the_batch_whatever_their_number(
    lengths, budget, world, seed
):
    visits = np.random.default_rng(seed).permutation(len(lengths))
    batch = visits[: max(1, len(visits) - seed % 3)]  # rows outside the batch play no part
    shares = [micro_batches(batch, lengths, budget, rank, world) for rank in range(world)]

    assert len({len(share) for share in shares}) == 1
    parts = [part for share in shares for part in share]
    assert all(len(rows) == len(weights) > 0 for rows, weights in parts)
    assert all(weights.dtype == np.float32 for _, weights in parts)
    assert all(len(rows) == 1 or lengths[rows].sum() <= budget for rows, _ in parts)
    placed = [
        (int(row), float(weight))
        for rows, weights in parts
        for row, weight in zip(rows, weights, strict=True)
    ]
    assert Counter(row for row, weight in placed if weight) == Counter(batch.tolist())
    assert {weight for _, weight in placed} <= {0.0, float(np.float32(1 / len(batch)))}
    assert sum(weight for _, weight in placed) == pytest.approx(1.0, abs=1e-6)
    stand_ins = [row for row, weight in placed if not weight]
    assert len(stand_ins) < world  # none for one rank alone
    assert all(lengths[row] == lengths[batch].min() for row in stand_ins)

    again = [micro_batches(batch, lengths, budget, rank, world) for rank in range(world)]
    for (rows, weights), (same, as_heavy) in zip(parts, (p for s in again for p in s), strict=True):
        assert rows.tolist() == same.tolist() and weights.tolist() == as_heavy.tolist()


@given(row_lengths, budgets, st.integers(1, 9))
def test_micro_batches_are_few(lengths, budget, world):
    """One a rank if the budget allows; never one more a rank than the budget could force."""
    batch = np.arange(len(lengths))
    assert len(micro_batches(batch, lengths, int(lengths.sum()), 0, world)) == 1
    count = len(micro_batches(batch, lengths, budget, 0, world))
    within = lengths[lengths <= budget]
    alone = len(lengths) - len(within)  # longer than the budget, each by itself
    assert count >= -(-(alone + within.sum() / budget) // world)
    # If k bins do not do, one of several rows is above the budget, and by Graham's bound no more
    # than the even share and its own last, shortest row: budget < sum / k + (1 - 1 / k) longest.
    if not alone:
        fewer = (count - 1) * world
        assert fewer == 0 or budget < lengths.sum() / fewer + (1 - 1 / fewer) * lengths.max()


def test_a_micro_batch_more_is_made_where_the_even_share_does_not_fit():
    """18 tokens fit two budgets of 10, three rows of 6 do not."""
    for budget, counts in ((10, [1, 1, 1]), (12, [2, 1]), (18, [3])):
        parts = micro_batches(np.arange(3), np.array([6, 6, 6]), budget)
        assert [len(rows) for rows, _ in parts] == counts
    assert len(micro_batches(np.arange(5), np.full(5, 6), 10, 0, 2)) == 3  # 6 bins, 3 a rank


def test_one_process_alone_sees_the_whole_batch():
    lengths = np.arange(1, 21)
    alone = micro_batches(np.arange(20), lengths, 50)
    assert sorted(row for rows, _ in alone for row in rows) == list(range(20))


def test_rows_of_one_length_keep_their_order():
    draw = np.random.default_rng(0)
    lengths, batch = np.full(200, 7), draw.permutation(200)
    ((rows, _),) = micro_batches(batch, lengths, 10**9)
    assert rows.tolist() == batch.tolist()
    assert np.concatenate(length_batches(lengths, 70)).tolist() == list(range(200))
    two = draw.integers(3, 5, 5000)
    in_order = sorted(range(5000), key=lambda row: -two[row])  # stable by definition
    assert np.concatenate(length_batches(two, 70)).tolist() == in_order


@given(row_lengths, st.integers(1, 9))
def test_the_fullest_micro_batch_is_near_an_even_share(lengths, world):
    """Graham 1969: at most the even share and (1 - 1 / m) of the row that came to it last."""
    batch = np.arange(len(lengths))
    parts = [part for r in range(world) for part in micro_batches(batch, lengths, 10**9, r, world)]
    loads = [int((lengths[rows] * (weights > 0)).sum()) for rows, weights in parts]
    fullest = parts[int(np.argmax(loads))][0]
    assert loads == sorted(loads, reverse=True)
    assert max(loads) <= lengths.sum() / world + (1 - 1 / world) * lengths[fullest].min() + 1e-9


@settings(max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=7).map(np.array), st.integers(2, 3))
def test_the_fullest_micro_batch_is_within_a_third_of_the_best(lengths, world):
    """Graham 1969: longest first is within 4/3 - 1/(3 m) of the best of all divisions."""
    batch = np.arange(len(lengths))
    parts = [micro_batches(batch, lengths, 10**9, rank, world)[0] for rank in range(world)]
    found = max(int(lengths[rows].sum()) for rows, _ in parts)
    places = np.array(list(product(range(world), repeat=len(lengths))))
    loads = [np.where(places == number, lengths, 0).sum(axis=1) for number in range(world)]
    best = np.max(loads, axis=0).min()
    assert found <= (4 / 3 - 1 / (3 * world)) * best + 1e-9


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


@given(row_lengths, budgets)
def test_batches_for_inference_hold_every_row_once_within_the_budget(lengths, budget):
    batches = length_batches(lengths, budget)
    visited = np.concatenate(batches)
    assert sorted(visited.tolist()) == list(range(len(lengths)))
    assert lengths[visited].tolist() == sorted(lengths.tolist(), reverse=True)
    for rows, following in zip(batches, [*batches[1:], None], strict=True):
        tokens = lengths[rows].sum()
        assert len(rows) == 1 or tokens <= budget
        if following is not None:  # and none is left out that would have fitted
            assert tokens + lengths[following[0]] > budget


segment_lists = st.integers(1, 3).flatmap(
    lambda m: st.lists(
        st.tuples(st.integers(0, 9), *[st.integers(1, 9)] * m), min_size=1, max_size=20
    )
)


@given(segment_lists, st.integers(0, 2**32))
def test_a_line_is_its_rows_one_after_the_other_and_nothing_else(segments, seed):
    sizes = np.array(segments, dtype=np.int64)
    ids = np.arange(sizes.sum(), dtype=np.int32)  # a token's id is its place
    tokens = Tokens([f"row{i}" for i in range(len(sizes))], ids, sizes, 0)
    rows = np.random.default_rng(seed).integers(0, len(sizes), 7)
    input_ids, found = pack(tokens, rows)
    assert input_ids.dtype == found.dtype == np.int64
    assert found.tolist() == sizes[rows].tolist()
    assert len(input_ids) == sizes[rows].sum()
    ends = sizes.sum(axis=1).cumsum()
    wanted = [place for row in rows for place in range(ends[row] - sizes[row].sum(), ends[row])]
    assert input_ids.tolist() == wanted
