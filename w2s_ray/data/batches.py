"""Which rows meet in which batch: pure functions, the same at any number of workers.

The optimizer's batch is fixed by (seed, epoch, row ids). How it is cut into micro-batches and
spread over ranks is execution: the weights of a batch sum to 1 however it is cut. A micro-batch is
one line of tokens, row after row, without any padding; what bounds it is a budget of tokens.
"""

from collections.abc import Iterator, Sequence
from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.tokens import Tokens
from w2s_ray.order import order

Indices = NDArray[np.int64]
MicroBatches = list[tuple[Indices, NDArray[np.float32]]]


def epoch_order(row_ids: Sequence[str], seed: int, epoch: int) -> Indices:
    """(n,) the rows in the order in which epoch ``epoch`` (from 0) visits them."""
    return order(row_ids, seed, "epoch", epoch)


def optimizer_batches(visits: Indices, batch_size: int) -> Iterator[Indices]:
    """The rows of each optimizer step; the last may hold fewer than ``batch_size``."""
    for start in range(0, len(visits), batch_size):
        yield visits[start : start + batch_size]


def micro_batches(
    batch: Indices, lengths: Indices, token_budget: int, rank: int = 0, world: int = 1
) -> MicroBatches:
    """This rank's micro-batches of one optimizer batch, as (rows, weights).

    There are as few as the budget allows, of nearly equal numbers of tokens, and equally many at
    every rank, as ZeRO needs: where rows run out, the batch's shortest row stands in with weight
    0. One rank alone needs none. Real rows weigh 1 / size of the whole batch.

    Args:
        batch: row indices of the optimizer batch.
        lengths: (n,) tokens of every row of the data set.
        token_budget: most tokens of a micro-batch; a longer row is one by itself.
    """
    rows = batch[np.argsort(-lengths[batch], kind="stable")]
    weight = np.float32(1.0 / len(rows))
    bins = _bins([int(length) for length in lengths[rows]], token_budget, world)
    found: MicroBatches = []
    for places in bins[rank::world]:
        weights = np.full(max(1, len(places)), weight if places else 0.0, dtype=np.float32)
        found.append((rows[places] if places else rows[-1:], weights))
    return found


def _bins(lengths: Sequence[int], budget: int, multiple: int) -> list[list[int]]:
    """Places of ``lengths`` (longest first) in bins, a multiple of ``multiple``: as few as hold no
    more than the budget, the fullest first."""
    within = [length for length in lengths if length <= budget]
    least = len(lengths) - len(within) + -(-sum(within) // budget)
    count = multiple * -(-least // multiple)
    while True:
        bins = _spread(lengths, count)
        if all(len(places) <= 1 or sum(lengths[p] for p in places) <= budget for places in bins):
            return bins
        count += multiple


def _spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Each length in turn goes to the bin that holds least (Graham's rule, within 4/3 of even)."""
    filled: list[tuple[int, int, list[int]]] = [(0, number, []) for number in range(count)]
    heapify(filled)
    for place, length in enumerate(lengths):
        load, number, places = filled[0]
        heapreplace(filled, (load + length, number, [*places, place]))
    return [places for _, _, places in sorted(filled, key=lambda entry: (-entry[0], entry[1]))]


def length_batches(lengths: Indices, token_budget: int) -> list[Indices]:
    """All rows in batches for inference: longest first, each of at most ``token_budget`` tokens
    (or of one row), so that memory is highest at the start.

    Args:
        lengths: (n,) tokens of every row.
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
    """The rows as one line: input_ids (T,), segments (b, 1 + m), as in ``Tokens``."""
    starts, lengths = tokens.starts[rows], tokens.row_lengths[rows]
    pieces = [tokens.ids[s : s + n] for s, n in zip(starts, lengths, strict=True)]
    return np.concatenate(pieces).astype(np.int64), tokens.segments[rows]
