"""The stream of Ray Data is, array for array, what the pure functions prescribe."""

import numpy as np
import pytest

from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches, pack
from w2s_ray.data.stream import in_order, optimizer_steps, put, rank_dataset
from w2s_ray.data.tokens import Tokens

ROWS, EPOCHS, BATCH, BUDGET, SEED = 203, 2, 8, 150, 5


def tokens() -> Tokens:
    random = np.random.default_rng(0)
    segments = random.integers(1, 40, (ROWS, 3))
    return Tokens(
        row_ids=[f"{row:016x}" for row in range(ROWS)],
        ids=random.integers(0, 1000, segments.sum(), dtype=np.int32),
        segments=segments,
        truncated=0,
    )


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("rank", [0, 1])
def test_stream_equals_prescription(rank: int) -> None:
    rows = tokens()
    labels = np.random.default_rng(1).random((ROWS, 2), dtype=np.float32)
    # One rank streams weights of rows, as a student with example weights does.
    row_weights = None if rank == 0 else np.random.default_rng(2).random(ROWS, dtype=np.float32)
    dataset = rank_dataset(
        put(rows, labels),
        seed=SEED,
        epochs=EPOCHS,
        batch_size=BATCH,
        token_budget=BUDGET,
        rank=rank,
        world=2,
        row_weights=row_weights,
    )
    dataset.context.execution_options = in_order()
    streamed = list(
        optimizer_steps(dataset.iterator().iter_batches(batch_size=None, batch_format="pyarrow"))
    )
    prescribed = [
        micro_batches(batch, rows.row_lengths, BUDGET, rank, 2, row_weights)
        for epoch in range(EPOCHS)
        for batch in optimizer_batches(epoch_order(rows.row_ids, SEED, epoch), BATCH)
    ]
    assert len(streamed) == len(prescribed) == EPOCHS * -(-ROWS // BATCH)
    assert len({len(step) for step in prescribed}) > 1
    for step, wanted in zip(streamed, prescribed, strict=True):
        for micro_batch, (indices, weights) in zip(step, wanted, strict=True):
            input_ids, segments = pack(rows, indices)
            np.testing.assert_array_equal(micro_batch.input_ids, input_ids)
            np.testing.assert_array_equal(micro_batch.segments, segments)
            np.testing.assert_array_equal(micro_batch.soft_labels, labels[indices])
            np.testing.assert_array_equal(micro_batch.weights, weights)
