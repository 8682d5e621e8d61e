"""Two workers with DeepSpeed, fed by Ray Data, train the model that one process trains.

ZeRO-3 does so in ``tests/faults``.
"""

import contextlib
import os
import sys
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ray import cloudpickle

from tests.testing.steps import a_step
from w2s_ray.cluster.tune_run import run
from w2s_ray.objectives.objective import Objective
from w2s_ray.plan.step import Step
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.store.artifacts import Store
from w2s_ray.training.engine import Adam
from w2s_ray.training.fit import fit
from w2s_ray.training.job import TrainJob

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MODEL = {
    "init": "random",
    "architecture": "llama",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}


def rows(count: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    words = np.array(["a", "cat", "sees", "the", "long-haired", "dogs", "."])

    def text() -> str:
        return " ".join(random.choice(words, random.integers(1, 9)))

    return pa.table(
        {
            "row_id": [f"{seed}-{row}" for row in range(count)],
            "prompt": [text() + " " for _ in range(count)],
            "answers": [[text(), text()] for _ in range(count)],
            "label": random.integers(0, 2, count),
        }
    )


def job(name: str, execution: Any) -> TrainJob:
    """27 rows in batches of 8: the last batch of an epoch is short and does not divide by 2."""
    return TrainJob(
        name=name,
        model=ModelSpec.model_validate(MODEL),
        rows=rows(27, seed=0),
        soft_labels=np.random.default_rng(2).dirichlet([1, 1], 27).astype(np.float32),
        test=rows(9, seed=1),
        num_classes=2,
        per_row=2,
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
        execution=execution,
    )


class Fragile(Objective):
    """An objective during which the second worker's process dies, once."""

    died = Path()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            with contextlib.suppress(FileExistsError):
                self.died.touch(exist_ok=False)
                os._exit(1)
        return super().__call__(*arguments, **options)


def execute(step: Step, store: Store, context: Any) -> dict[str, Any]:
    """Trains the job; a step of one process only keeps its process warm."""
    with store.draft(step.identity, {}) as draft:
        if step.execution.workers > 1:
            training = job(step.key, step.execution)
            if step.key == "zero2":
                Fragile.died = Path(store.uri) / "died"
                training = replace(training, objective=Fragile(*astuple(training.objective)))
            draft.metrics.update(context.fit(training, draft.folder, context.progress))
    return dict(draft.metrics)


def numbers(folder: Path) -> tuple[Any, Any]:
    """Losses of the steps; probabilities of the test rows."""
    loss = pq.read_table(folder / "curve.parquet")["loss"].to_numpy()
    return loss, np.stack(pq.read_table(folder / "test.parquet")["probs"].to_numpy())


def step(key: str, needed: str | None = None, **execution: Any) -> Step:
    inputs = {"after": needed} if needed else {}
    defaults = {"workers": 1, "cpus_per_worker": 1.5, "gpus_per_worker": 0.0}
    return a_step("student", key, inputs=inputs, **{**defaults, **execution})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_two_workers_train_as_one(tmp_path: Path) -> None:
    """The group takes all CPUs of the cluster, so the warm process of the step before must go."""
    (tmp_path / "alone").mkdir()
    metrics = fit(job("alone", {}), tmp_path / "alone")
    loss, probs = numbers(tmp_path / "alone")
    todo = {
        "one": step("one"),
        "zero2": step("zero2", "one", workers=2, zero_stage=2, micro_batch_tokens=150),
    }
    told: list[str] = []
    schedule = run(
        todo,
        str(tmp_path / "store"),
        execute=execute,
        on_event=lambda event, step, numbers: told.append(f"{event} {step.key}"),
    )
    assert schedule.done == set(todo)
    assert (tmp_path / "store/died").exists()
    assert "progress zero2" in told
    store = Store.open(tmp_path / "store")
    artifact = store.artifact("zero2")
    their_loss, their_probs = numbers(artifact.folder)
    np.testing.assert_allclose(their_loss, loss, atol=1e-5)
    assert abs((their_loss - loss).mean()) < 2e-6
    np.testing.assert_allclose(their_probs, probs, atol=1e-5)
    assert (artifact.folder / "model.safetensors").exists()
    assert artifact.record["metrics"]["steps"] == metrics["steps"]
    assert list((tmp_path / "store").glob(".ray/*/*")) == []
