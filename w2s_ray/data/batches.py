"""Which rows meet in which batch: pure functions, the same at any number of workers.

The optimizer's batch is fixed by (seed, epoch, row ids). How it is cut into micro-batches and
spread over ranks is execution: the weights of a batch sum to 1 however it is cut.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.tokens import Tokens
from w2s_ray.order import order

Indices = NDArray[np.int64]


def epoch_order(row_ids: Sequence[str], seed: int, epoch: int) -> Indices:
    """(n,) the rows in the order in which epoch ``epoch`` (from 0) visits them."""
    return order(row_ids, seed, "epoch", epoch)


def optimizer_batches(visits: Indices, batch_size: int) -> Iterator[Indices]:
    """The rows of each optimizer step; the last may hold fewer than ``batch_size``."""
    for start in range(0, len(visits), batch_size):
        yield visits[start : start + batch_size]


def rank_rows(
    batch: Indices, rank: int, world: int, micro_batch_size: int, lengths: Indices
) -> list[tuple[Indices, NDArray[np.float32]]]:
    """This rank's micro-batches of one optimizer batch, as (rows, weights).

    Rows of like length share a micro-batch. All ranks get equally many micro-batches of equal
    sizes, as ZeRO needs: where rows run out, the batch's shortest row stands in with weight 0.
    One rank alone needs none. Real rows weigh 1 / size of the whole batch.

    Args:
        batch: row indices of the optimizer batch.
        micro_batch_size: most rows of a micro-batch.
        lengths: (n,) tokens of every row of the data set, for sorting.
    """
    rows = batch[np.argsort(-lengths[batch], kind="stable")]
    each = -(-len(rows) // world)
    filled = np.concatenate([rows, np.repeat(rows[-1:], each * world - len(rows))])
    weights = np.zeros(len(filled), dtype=np.float32)
    weights[: len(rows)] = 1.0 / len(rows)
    mine, weights = filled[rank::world], weights[rank::world]
    return [
        (mine[start : start + micro_batch_size], weights[start : start + micro_batch_size])
        for start in range(0, each, micro_batch_size)
    ]


def length_batches(tokens: Tokens, token_budget: int) -> list[Indices]:
    """All rows in batches for inference: longest first, each of at most ``token_budget`` padded
    tokens (or of one row), so that memory is highest at the start and padding is small."""
    by_length = np.argsort(-tokens.row_lengths, kind="stable")
    batches: list[Indices] = []
    start = 0
    while start < len(by_length):
        widest = max(1, int(tokens.row_lengths[by_length[start]]))
        rows = max(1, token_budget // (widest * tokens.per_row))
        batches.append(by_length[start : start + rows])
        start += rows
    return batches


def pad(tokens: Tokens, rows: Indices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The texts of ``rows`` padded on the right with 0: input_ids (b·m, T), lengths (b·m,).

    Texts i·m … i·m+m−1 belong to row i. Lengths, never ids, tell where a text ends.
    """
    m = tokens.per_row
    texts = (rows[:, None] * m + np.arange(m)).ravel()
    starts, ends = tokens.offsets[texts], tokens.offsets[texts + 1]
    lengths = ends - starts
    input_ids = np.zeros((len(texts), int(lengths.max())), dtype=np.int64)
    for line, (start, end) in enumerate(zip(starts, ends, strict=True)):
        input_ids[line, : end - start] = tokens.ids[start:end]
    return input_ids, lengths
