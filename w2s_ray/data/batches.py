"""Which rows form which batch: pure functions, the same at any world size.

The optimizer's batch is fixed by (seed, epoch, row ids). How it is cut into micro-batches and
spread over ranks is execution: the weights of a batch sum to 1 however it is cut. A micro-batch is
one line of tokens, row after row, without padding; its size is bounded by a budget of tokens.
"""

from collections.abc import Iterator, Sequence
from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.tokens import Tokens
from w2s_ray.order import order
from w2s_ray.spec.training import IdenticalPairs

Indices = NDArray[np.int64]
MicroBatches = list[tuple[Indices, NDArray[np.float32]]]


def epoch_order(row_ids: Sequence[str], seed: int, epoch: int) -> Indices:
    """(n,) row indices in the order in which epoch ``epoch`` (from 0) visits them."""
    return order(row_ids, seed, "epoch", epoch)


def trained_rows(identical: NDArray[np.bool_], choice: IdenticalPairs) -> Indices:
    """Indices of the rows that batches are made of.

    A pair whose answers are the same tokens has no gradient, whatever its label: no model can tell
    its answers apart. Kept, it still counts as a row of its batch.

    Args:
        identical: (n,) as ``Tokens.identical``.
        choice: whether such pairs are kept or left out.

    Raises:
        ValueError: no row remains.
    """
    kept = np.arange(len(identical)) if choice == "keep" else np.flatnonzero(~identical)
    if len(identical) and not len(kept):
        raise ValueError(no_pair_remains(len(identical)))
    return kept


def no_pair_remains(pairs: int) -> str:
    """What to do where all of so many pairs have answers of the same tokens."""
    return (
        f"the answers of all {pairs:,} pairs are the same tokens, mostly because they were "
        "truncated, and are left out; raise training.max_length_tokens"
    )


def optimizer_batches(visits: Indices, batch_size: int) -> Iterator[Indices]:
    """Yields the rows of each optimizer step; the last may have fewer than ``batch_size``."""
    for start in range(0, len(visits), batch_size):
        yield visits[start : start + batch_size]


def micro_batches(
    batch: Indices,
    lengths: Indices,
    token_budget: int,
    rank: int = 0,
    world: int = 1,
    row_weights: NDArray[np.float32] | None = None,
) -> MicroBatches:
    """This rank's micro-batches of one optimizer batch, as (rows, weights).

    There are as few as the budget allows, with nearly equal numbers of tokens, and equally many on
    every rank, as ZeRO needs. A rank without a row for one of them gets a filler: the batch's
    shortest row with weight 0. Real rows weigh 1 / size of the whole batch, times their own weight.

    Args:
        batch: row indices of the optimizer batch.
        lengths: (n,) tokens of every row of the data set.
        token_budget: most tokens of a micro-batch; a longer row forms one by itself.
        row_weights: (n,) of every row of the data set, with mean 1; None: all 1.
    """
    rows = batch[np.argsort(-lengths[batch], kind="stable")]
    weight = np.float32(1.0 / len(rows))
    bins = _bins([int(length) for length in lengths[rows]], token_budget, world)
    own: MicroBatches = []
    for members in bins[rank::world]:
        weights = np.full(max(1, len(members)), weight if members else 0.0, dtype=np.float32)
        if row_weights is not None and members:
            weights *= row_weights[rows[members]]
        own.append((rows[members] if members else rows[-1:], weights))
    return own


def _bins(lengths: Sequence[int], budget: int, multiple: int) -> list[list[int]]:
    """Indices of ``lengths`` in as few bins as the budget allows, the fullest bin first.

    Args:
        lengths: longest first.
        multiple: the number of bins is a multiple of this.
    """
    within = [length for length in lengths if length <= budget]
    fewest = len(lengths) - len(within) + -(-sum(within) // budget)
    count = multiple * -(-fewest // multiple)
    while True:
        bins = _spread(lengths, count)
        if all(len(members) <= 1 or sum(lengths[i] for i in members) <= budget for members in bins):
            return bins
        count += multiple


def _spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Puts each length in turn into the emptiest bin (Graham's rule, within 4/3 of even)."""
    loads: list[tuple[int, int, list[int]]] = [(0, number, []) for number in range(count)]
    heapify(loads)
    for index, length in enumerate(lengths):
        load, number, members = loads[0]
        heapreplace(loads, (load + length, number, [*members, index]))
    return [members for _, _, members in sorted(loads, key=lambda entry: (-entry[0], entry[1]))]


def length_batches(lengths: Indices, token_budget: int) -> list[Indices]:
    """All rows in batches for inference, longest first, so that memory is highest at the start.

    Args:
        lengths: (n,) tokens of every row.
        token_budget: most tokens of a batch; a longer row forms one by itself.
    """
    by_length = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[by_length])
    batches: list[Indices] = []
    start = done = 0
    while start < len(by_length):
        stop = max(start + 1, int(np.searchsorted(ends, done + token_budget, side="right")))
        batches.append(by_length[start:stop])
        start, done = stop, int(ends[stop - 1])
    return batches


def pack(tokens: Tokens, rows: Indices) -> tuple[NDArray[np.int64], Indices]:
    """Packs rows into one line: input_ids (T,), segments (b, 1 + m) as in ``Tokens``."""
    starts, lengths = tokens.starts[rows], tokens.row_lengths[rows]
    pieces = [tokens.ids[s : s + n] for s, n in zip(starts, lengths, strict=True)]
    return np.concatenate(pieces).astype(np.int64), tokens.segments[rows]
