"""A small training job on made-up rows."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from tests.testing.specs import TINY_MODEL, tiny_config
from w2s_ray.data.labels import as_column
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.training.engine import Adam
from w2s_ray.training.job import TrainJob

MODEL = ModelSpec.model_validate({**TINY_MODEL, "config": tiny_config(32)})


def rows(n, per_row=2, seed=0):
    rng = np.random.default_rng(seed)
    words = ["the", "cat", "dogs", "run", "runs", "in", "a!", "very long garden"]

    def text():
        return " ".join(rng.choice(words, rng.integers(1, 9)))

    def answers():
        while len(set(found := [text() for _ in range(per_row)])) < per_row:
            pass  # of two equal ones neither is the better: their margin is rounding alone
        return found

    probs = rng.uniform(0.05, 0.95, n).astype(np.float32)
    return pa.table(
        {
            "row_id": [f"{seed}-{i:03d}" for i in range(n)],
            "prompt": [text() + " " if per_row == 2 else "" for _ in range(n)],
            "answers": [answers() for _ in range(n)],
            "label": rng.integers(0, 2, n),
            "probs": as_column(np.stack([1 - probs, probs], axis=1)),
        }
    )


def job(**changes):
    """27 rows in batches of 8, twice: the last batch of an epoch is short."""
    per_row = changes.pop("per_row", 2)
    base = TrainJob(
        name="test",
        model=MODEL,
        rows=rows(27, per_row),
        test=rows(10, per_row, seed=1),
        num_classes=2,
        per_row=per_row,
        objective=Objective("reverse_kl", confidence_weight=0.5),
        trainable="full",
        lora=Lora(),
        seed=3,
        epochs=2,
        batch_size=8,
        learning_rate=1e-3,
        schedule="cosine",
        adam=Adam(clip_norm=1.0),
        max_length_tokens=64,
        precision="fp32",
        keep_weights=True,
    )
    return replace(base, **changes)
