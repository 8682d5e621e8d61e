"""The stream of Ray Data is, array for array, what the pure functions prescribe."""

import numpy as np
import pytest

from w2s_ray.data.batches import epoch_order, optimizer_batches, pad, rank_rows
from w2s_ray.data.stream import in_order, optimizer_steps, put, rank_dataset
from w2s_ray.data.tokens import Tokens

ROWS, EPOCHS, BATCH, MICRO, SEED = 203, 2, 8, 3, 5


def tokens() -> Tokens:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 40, 2 * ROWS)
    return Tokens(
        row_ids=[f"{row:016x}" for row in range(ROWS)],
        ids=random.integers(0, 1000, sizes.sum(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        prompt_lengths=np.zeros(ROWS, dtype=np.int64),
        per_row=2,
        truncated=0,
    )


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("rank", [0, 1])
def test_stream_equals_prescription(rank: int) -> None:
    rows = tokens()
    labels = np.random.default_rng(1).random((ROWS, 2), dtype=np.float32)
    dataset = rank_dataset(
        rows,
        put(rows, labels),
        seed=SEED,
        epochs=EPOCHS,
        batch_size=BATCH,
        micro_batch_size=MICRO,
        rank=rank,
        world=2,
    )
    dataset.context.execution_options = in_order()
    streamed = list(
        optimizer_steps(dataset.iterator().iter_batches(batch_size=None, batch_format="pyarrow"))
    )
    prescribed = [
        rank_rows(batch, rank, 2, MICRO, rows.row_lengths)
        for epoch in range(EPOCHS)
        for batch in optimizer_batches(epoch_order(rows.row_ids, SEED, epoch), BATCH)
    ]
    assert len(streamed) == len(prescribed) == EPOCHS * -(-ROWS // BATCH)
    for step, wanted in zip(streamed, prescribed, strict=True):
        for micro_batch, (indices, weights) in zip(step, wanted, strict=True):
            input_ids, lengths = pad(rows, indices)
            np.testing.assert_array_equal(micro_batch.input_ids, input_ids)
            np.testing.assert_array_equal(micro_batch.lengths, lengths)
            np.testing.assert_array_equal(micro_batch.soft_labels, labels[indices])
            np.testing.assert_array_equal(micro_batch.weights, weights)
