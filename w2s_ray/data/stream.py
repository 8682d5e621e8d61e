"""Training batches from Ray Data: what ``batches`` prescribes, packed ahead of a group of workers.

The same pure functions as in one process decide beforehand which rows form a micro-batch, at which
rank and with which weights. Only this small list of row numbers is a Ray data set; tasks of Ray
Data turn its entries into packed arrays, some steps ahead of the worker, out of one copy of tokens
and soft labels in the object store. Each rank reads a data set of its own: Ray Data splits by
blocks, which would not keep the rows of one batch together.

No task here reserves a CPU, since the workers of a group may have reserved them all.
(``from_arrow`` inspects its tables in a task of one CPU, which would deadlock.) A packing task with
a reservation would hold it while it waits for its reader, so the task of the rank that all others
wait for might never start.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import DataContext, Dataset, ExecutionOptions, TaskPoolStrategy
from ray.data.read_api import from_blocks

from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches, pack
from w2s_ray.data.tokens import Tokens

TASKS_AT_ONCE = 2  # of each rank
MICRO_BATCHES_PER_TASK = 32

Source = ray.ObjectRef[tuple[Tokens, NDArray[np.float32]]]


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch of b rows of m texts each, packed into one line of T tokens.

    Attributes:
        input_ids: (T,) int64.
        segments: (b, 1 + m) int64, the number of tokens of each prompt and answer.
        soft_labels: (b, K) float32.
        weights: (b,) float32.
    """

    input_ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    soft_labels: NDArray[np.float32]
    weights: NDArray[np.float32]


def rank_dataset(
    source: Source,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    token_budget: int,
    rank: int,
    world: int,
    start: int = 0,
    row_weights: NDArray[np.float32] | None = None,
) -> Dataset:
    """A lazy data set of the micro-batches of one rank, one row each, in the order of training.

    Args:
        source: what ``put`` returned for the n rows and their soft labels; shared by all ranks.
        token_budget: most tokens of a micro-batch.
        start: optimizer steps to skip at the beginning.
        row_weights: (n,) of the rows, with mean 1; None: all 1.
    """
    tokens, _ = ray.get(source)
    batches = [
        (epoch, step, batch)
        for epoch in range(epochs)
        for step, batch in enumerate(
            optimizer_batches(epoch_order(tokens.row_ids, seed, epoch), batch_size)
        )
    ]
    planned = [
        (epoch, step, rows, weights)
        for epoch, step, batch in batches[start:]
        for rows, weights in micro_batches(
            batch, tokens.row_lengths, token_budget, rank, world, row_weights
        )
    ]
    table = pa.table(
        {
            "epoch": pa.array([epoch for epoch, _, _, _ in planned], pa.int64()),
            "step": pa.array([step for _, step, _, _ in planned], pa.int64()),
            "rows": pa.array([rows for _, _, rows, _ in planned], pa.list_(pa.int64())),
            "weights": pa.array([w for _, _, _, w in planned], pa.list_(pa.float32())),
        }
    )
    blocks = [
        table.slice(first, MICRO_BATCHES_PER_TASK).combine_chunks()
        for first in range(0, table.num_rows, MICRO_BATCHES_PER_TASK)
    ]
    DataContext.get_current().enable_progress_bars = False
    dataset: Dataset = from_blocks(blocks).map_batches(
        partial(_pack_block, source=source),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0,
        compute=TaskPoolStrategy(size=TASKS_AT_ONCE),
    )
    return dataset


def put(tokens: Tokens, soft_labels: NDArray[np.float32]) -> Source:
    """Puts tokens and the (n, K) soft labels of the same rows into the object store."""
    return ray.put((tokens, soft_labels))


def in_order() -> ExecutionOptions:
    """The options under which Ray Data keeps the order of rows; it does not by itself."""
    return ExecutionOptions(preserve_order=True)


def optimizer_steps(blocks: Iterable[pa.Table]) -> Iterator[list[MicroBatch]]:
    """Yields the micro-batches of each optimizer step, from the blocks of a ``rank_dataset``."""
    entries = (entry for block in blocks for entry in _entries(block))
    for _, group in groupby(entries, key=lambda entry: entry[0]):
        yield [micro_batch for _, micro_batch in group]


def _entries(block: pa.Table) -> Iterator[tuple[tuple[int, int], MicroBatch]]:
    """Yields (epoch, step) and the micro-batch of each row of a block."""
    columns: Mapping[str, Any] = {name: block[name].combine_chunks() for name in block.column_names}
    for row in range(block.num_rows):
        values = {name: column[row] for name, column in columns.items()}
        ids, segments, labels, weights = (
            values[name].values.to_numpy()
            for name in ("input_ids", "segments", "soft_labels", "weights")
        )
        yield (
            (values["epoch"].as_py(), values["step"].as_py()),
            MicroBatch(
                input_ids=ids.astype(np.int64),
                segments=segments.reshape(len(weights), -1).copy(),
                soft_labels=labels.reshape(len(weights), -1).copy(),
                weights=weights.copy(),
            ),
        )


def _pack_block(block: pa.Table, source: Source) -> pa.Table:
    """Replaces row numbers by packed tokens and soft labels, flat in list columns."""
    tokens, soft_labels = ray.get(source)
    arrays: dict[str, list[NDArray[Any]]] = {"input_ids": [], "segments": [], "soft_labels": []}
    for rows in block["rows"].combine_chunks():
        indices = rows.values.to_numpy()
        input_ids, segments = pack(tokens, indices)
        arrays["input_ids"].append(input_ids.astype(np.int32))
        arrays["segments"].append(segments.ravel())
        arrays["soft_labels"].append(soft_labels[indices].ravel())
    kinds = {"input_ids": pa.int32(), "segments": pa.int64(), "soft_labels": pa.float32()}
    columns = {name: _lists(values, kinds[name]) for name, values in arrays.items()}
    return pa.table({name: block[name] for name in ("epoch", "step", "weights")} | columns)


def _lists(values: list[NDArray[Any]], kind: pa.DataType) -> pa.Array:
    """Flat arrays as a list column."""
    offsets = np.cumsum([0, *map(len, values)])
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), pa.array(np.concatenate(values), kind)
    )
