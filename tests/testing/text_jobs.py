"""Small jobs that train a language model on text, of each objective."""

from dataclasses import replace
from typing import Any

import numpy as np

from tests.testing.jobs import MODEL
from w2s_ray.spec.schema import Lora
from w2s_ray.training.engine import Adam
from w2s_ray.training.text_job import Dpo, Sft, TextJob, Wspo

ROWS = 11
WORDS = ["the", "cat", "dogs", "run", "runs", "in", "a!", "very long garden"]
EVERY: list[Sft | Dpo | Wspo] = [Sft(), Dpo(0.5), Wspo(0.3, ())]


def job(objective: Sft | Dpo | Wspo = EVERY[0], **changes: Any) -> TextJob:
    """11 rows in batches of 4, twice: 6 optimizer steps, some of 3 rows."""
    rng = np.random.default_rng(0)
    per_row = 2 if isinstance(objective, Dpo) else 1
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 7))) for _ in range(3 * ROWS)]
    answers = [(texts[3 * i + 1], "not " + texts[3 * i + 2])[:per_row] for i in range(ROWS)]
    if isinstance(objective, Wspo):
        ratios = [rng.normal(size=len(a.encode()) + 1).astype(np.float32) for (a,) in answers]
        objective = replace(objective, weak_log_ratios=ratios)
    base = TextJob(
        name="test",
        model=MODEL,
        initial=None,
        row_ids=tuple(f"r{i}" for i in range(ROWS)),
        prompts=tuple(f"{text}: " for text in texts[::3]),
        answers=tuple(answers),
        objective=objective,
        trainable="full",
        lora=None,
        seed=3,
        epochs=2,
        batch_size=4,
        learning_rate=1e-3,
        schedule="cosine",
        warmup=0.1,
        adam=Adam(clip_norm=1.0),
        max_length_tokens=128,
        precision="fp32",
        render="transcript",
    )
    return replace(base, **changes)


def lora(settings: TextJob) -> TextJob:
    return replace(settings, trainable="lora", lora=Lora(rank=2), learning_rate=1e-2)
