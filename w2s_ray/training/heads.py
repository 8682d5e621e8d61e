"""Last-layer training: a linear head on stored, standardised features.

A head at zero on raw features barely moves at the rates that suit it, because their scales differ
by orders of magnitude. So the features are standardised by the training rows' statistics, and the
scaling is folded back into the stored head, which then reads raw features.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from w2s_ray.data.batches import epoch_order, optimizer_batches
from w2s_ray.data.labels import as_matrix
from w2s_ray.models.scorer import LinearScorer
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam, Batch, TorchEngine
from w2s_ray.training.job import (
    threshold_buffer,
    training_metrics,
    write_curve,
    write_predictions,
)
from w2s_ray.training.loop import Progress, train

HEAD = "head.safetensors"


@dataclass(frozen=True)
class HeadJob:
    """A head to train. ``features`` (n, m, H) stand in the order of ``rows`` (with ``probs``)."""

    rows: pa.Table
    test: pa.Table
    features: NDArray[np.float32]
    test_features: NDArray[np.float32]
    num_classes: int
    per_row: int
    objective: Objective
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    adam: Adam


def fit_head(
    job: HeadJob, out: Path, *, progress: Progress = lambda numbers: None
) -> dict[str, Any]:
    """Trains the head and writes ``head.safetensors``, ``test.parquet``, ``curve.parquet``."""
    features = torch.from_numpy(job.features)
    mean, scale = standardisation(features)
    hidden_size = features.shape[2]
    scorer = LinearScorer(hidden_size, job.num_classes, job.per_row)
    engine = TorchEngine(scorer, list(scorer.parameters()), job.adam)
    curve = train(
        engine,
        _stream(job, (features - mean) / scale),
        job.objective,
        total_steps=job.epochs * math.ceil(len(features) / job.batch_size),
        learning_rate=job.learning_rate,
        schedule=job.schedule,
        buffer=threshold_buffer(job.objective, job.rows, job.per_row),
        progress=progress,
    )
    folded = scorer.fold(mean, scale)
    save_file({name: t.contiguous() for name, t in folded.state_dict().items()}, out / HEAD)
    write_predictions(out / "test.parquet", job.test, head_logits(out, job.test_features))
    write_curve(out / "curve.parquet", curve)
    return training_metrics(curve)


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (H,) over all texts of the training rows; 1 for a constant."""
    flat = features.flatten(0, 1)
    scale = flat.std(dim=0, correction=0)
    return flat.mean(dim=0), torch.where(scale < 1e-6, 1.0, scale)


@torch.no_grad()
def head_logits(folder: Path, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, K) float32 logits of a stored head on raw features (n, m, H)."""
    state = load_file(folder / HEAD)
    scorer = LinearScorer.from_state(state, per_row=features.shape[1])
    logits: NDArray[np.float32] = scorer(torch.from_numpy(features)).numpy()
    return logits


def _stream(job: HeadJob, features: Tensor) -> Iterator[list[Batch]]:
    soft_labels = torch.from_numpy(as_matrix(job.rows["probs"]))
    row_ids = job.rows["row_id"].to_pylist()
    for epoch in range(job.epochs):
        order = epoch_order(row_ids, job.seed, epoch)
        for rows in optimizer_batches(order, job.batch_size):
            weights = torch.full((len(rows),), 1.0 / len(rows))
            inputs = {"features": features[rows]}
            yield [Batch(inputs, soft_labels[rows], weights, tokens=0)]
