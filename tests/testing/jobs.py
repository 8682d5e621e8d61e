"""A small training job on made-up rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.testing.specs import TINY_MODEL, tiny_config
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.training.engine import Adam
from w2s_ray.training.job import TrainJob

MODEL = ModelSpec.model_validate({**TINY_MODEL, "config": tiny_config(32)})


def labelled_rows(n: int, per_row: int = 2, seed: int = 0) -> tuple[pa.Table, NDArray[np.float32]]:
    """Random rows and their soft labels, (n, 2) float32."""
    rng = np.random.default_rng(seed)
    words = ["the", "cat", "dogs", "run", "runs", "in", "a!", "very long garden"]

    def text() -> str:
        return " ".join(rng.choice(words, rng.integers(1, 9)))

    def answers() -> list[str]:
        while len(set(texts := [text() for _ in range(per_row)])) < per_row:
            pass  # the margin of two equal texts would be rounding alone
        return texts

    probs = rng.uniform(0.05, 0.95, n).astype(np.float32)
    table = pa.table(
        {
            "row_id": [f"{seed}-{i:03d}" for i in range(n)],
            "prompt": [text() + " " if per_row == 2 else "" for _ in range(n)],
            "answers": [answers() for _ in range(n)],
            "label": rng.integers(0, 2, n),
        }
    )
    return table, np.stack([1 - probs, probs], axis=1)


def rows(n: int, per_row: int = 2, seed: int = 0) -> pa.Table:
    """Random rows without soft labels."""
    return labelled_rows(n, per_row, seed)[0]


def job(**changes: Any) -> TrainJob:
    """27 rows in batches of 8, twice: the last batch of an epoch is short."""
    per_row = changes.pop("per_row", 2)
    table, soft_labels = labelled_rows(27, per_row)
    base = TrainJob(
        name="test",
        model=MODEL,
        rows=table,
        soft_labels=soft_labels,
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
