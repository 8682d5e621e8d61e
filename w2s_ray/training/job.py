"""A training job: which model is trained on which rows, and how its batches are cut.

A ``TrainJob`` is plain values, Arrow tables and arrays. To the workers that train it together it
travels by pickle, ``without_texts``: they are given tokens. What it needs from outside, a storage
for checkpoints and an export of the trained model, is handed in as an object of a declared
protocol.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.token_budgets import MICRO_BATCH_TOKENS
from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches, pack, trained_rows
from w2s_ray.data.rendering import TRANSCRIPT, Rendering
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.backbone import Backbone
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.spec.training import IdenticalPairs
from w2s_ray.training.engine import Adam, Batch
from w2s_ray.training.resume import CheckpointStorage
from w2s_ray.training.trained_rows import TrainedRows
from w2s_ray.training.validation import HeldOut

Whole = Callable[[Iterable[str]], Iterator[tuple[str, Tensor]]]


@dataclass(frozen=True)
class TrainedModel:
    """A model at the end of its training, as an export reads it.

    Attributes:
        backbone: its configuration and tokenizer; under ZeRO 3 its weights are shards.
        shapes: whole shape of every parameter of the scorer by name, frozen ones too.
        whole: yields parameters by name, as ``Engine.whole``; every rank must exhaust it.
        test: the t test rows as tokens.
        logits: (t, K) float32 logits of the test rows.
    """

    backbone: Backbone
    shapes: Mapping[str, tuple[int, ...]]
    whole: Whole
    test: Tokens
    logits: NDArray[np.float32]


class Export(Protocol):
    """Writes a trained model in a form for use elsewhere. It travels with its job by pickle."""

    def __call__(self, folder: Path | None, job: "TrainJob", trained: TrainedModel) -> None:
        """Writes the model below ``folder``; every rank calls this.

        Args:
            folder: the job's output folder; None above rank 0, where nothing is written.
        """


@dataclass(frozen=True)
class TrainJob:
    """A model to train on soft labels.

    Columns prompt and answers are there to be tokenised (``TrainJob.without_texts``).

    Attributes:
        name: stable and unique; it names the run when a worker group trains the job.
        rows: n training rows with columns row_id, prompt, answers.
        soft_labels: (n, K) float32, in the order of ``rows``.
        weights: (n,) float32 above 0 with mean 1, of each row's loss; None: all 1.
        test: t rows with columns row_id, prompt, answers, label.
        export: writes the trained model for use elsewhere; None: it is not exported.
        checkpoints: where the state of the run is kept; None: nowhere.
        oom_retries: how often the job ran out of memory; each time halves the micro-batch.
        rendering: how texts are made of rows.
        identical_pairs: whether pairs whose answers are the same tokens stay in batches.
        evaluations: optimizer steps that are evaluated (``validation.evaluated_steps``).
        validation: v rows with columns row_id, prompt, answers, which are scored at these steps;
            None: nothing is evaluated.
        held_out: their labels.
        scored: rows that the trained model scores beside the test rows, in a student's case
            ``rows``; None: there are none.
    """

    name: str
    model: ModelSpec
    rows: pa.Table
    soft_labels: NDArray[np.float32]
    test: pa.Table
    num_classes: int
    per_row: int
    objective: Objective
    trainable: str
    lora: Lora
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    adam: Adam
    max_length_tokens: int
    precision: str
    keep_weights: bool
    execution: Execution = field(default_factory=Execution)
    export: Export | None = None
    checkpoints: CheckpointStorage | None = None
    oom_retries: int = 0
    rendering: Rendering = TRANSCRIPT
    identical_pairs: IdenticalPairs = "leave_out"
    weights: NDArray[np.float32] | None = None
    evaluations: int = 1
    validation: pa.Table | None = None
    held_out: HeldOut | None = None
    scored: TrainedRows | None = None

    def __post_init__(self) -> None:
        assert self.soft_labels.dtype == np.float32
        assert len(self.soft_labels) == self.rows.num_rows

    def __repr__(self) -> str:
        """Short, and without addresses of models: Ray Train shows it on the dashboard."""
        return f"TrainJob({self.name!r})"

    def encoded(self, rows: pa.Table, tokenizer: PreTrainedTokenizerFast) -> Tokens:
        """``rows`` as tokens, by the job's length and rendering."""
        return encode(rows, tokenizer, self.max_length_tokens, self.rendering)

    def scored_tokens(self, tokenizer: PreTrainedTokenizerFast) -> "ScoredTokens":
        """The tokens of the rows that the trained model scores."""
        encoded = partial(self.encoded, tokenizer=tokenizer)
        return ScoredTokens(
            encoded(self.test),
            None if self.validation is None else encoded(self.validation),
            None if self.scored is None else encoded(self.scored.rows),
        )

    def without_texts(self) -> "TrainJob":
        """The job with row ids and labels alone in its tables, for who is given their tokens."""
        scored = self.scored
        return replace(
            self,
            rows=_without_texts(self.rows),
            test=_without_texts(self.test),
            validation=None if self.validation is None else _without_texts(self.validation),
            scored=None if scored is None else replace(scored, rows=_without_texts(scored.rows)),
        )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps: int = self.epochs * math.ceil(self.rows.num_rows / self.batch_size)
        return steps

    @property
    def token_budget(self) -> int:
        """Most tokens of one worker's micro-batch."""
        given = self.execution.micro_batch_tokens
        whole = given or MICRO_BATCH_TOKENS["gpu" if self.on_gpu else "cpu"]
        return max(1, whole >> self.oom_retries)

    @property
    def on_gpu(self) -> bool:
        """Whether the job's processes are given GPUs, and this process sees one."""
        return self.execution.device == "gpu" and torch.cuda.is_available()

    @property
    def device(self) -> str:
        """The torch device type of this process: "cuda" or "cpu"."""
        return "cuda" if self.on_gpu else "cpu"


def _without_texts(rows: pa.Table) -> pa.Table:
    return rows.select([name for name in ("row_id", "label") if name in rows.column_names])


class ScoredTokens(NamedTuple):
    """The rows that the trained model of a job scores, as tokens.

    Attributes:
        test, validation, trained: the job's tables ``test``, ``validation`` and ``scored``; None
            where it has none.
    """

    test: Tokens
    validation: Tokens | None
    trained: Tokens | None


class Trainable(NamedTuple):
    """What remains of a job's rows to train on."""

    job: TrainJob
    tokens: Tokens


def rows_to_train_on(job: TrainJob, tokens: Tokens) -> Trainable:
    """The job, without the pairs whose answers are the same tokens if it leaves them out.

    Args:
        tokens: the job's rows, tokenised.

    Raises:
        ValueError: no row remains.
    """
    kept = trained_rows(tokens.identical, job.identical_pairs)
    if len(kept) == len(tokens.row_ids):
        return Trainable(job, tokens)
    weights = None if job.weights is None else job.weights[kept]
    remaining = replace(
        job, rows=job.rows.take(kept), soft_labels=job.soft_labels[kept], weights=weights
    )
    return Trainable(remaining, tokens.take(kept))


def memory_stream(job: TrainJob, tokens: Tokens, start: int = 0) -> Iterator[list[Batch]]:
    """Yields the micro-batches of each optimizer step, for one process, from rows in memory.

    Args:
        tokens: the job's rows, tokenised.
        start: optimizer steps to skip at the beginning.
    """
    soft_labels = torch.from_numpy(job.soft_labels)
    orders = (epoch_order(tokens.row_ids, job.seed, epoch) for epoch in range(job.epochs))
    batches = (rows for order in orders for rows in optimizer_batches(order, job.batch_size))
    for rows in islice(batches, start, None):
        yield [
            token_batch(tokens, indices, soft_labels[indices], weights)
            for indices, weights in micro_batches(
                rows, tokens.row_lengths, job.token_budget, row_weights=job.weights
            )
        ]


def token_batch(
    tokens: Tokens,
    indices: NDArray[np.int64],
    soft_labels: Tensor,
    weights: NDArray[np.float32],
) -> Batch:
    """The rows ``indices`` as one packed micro-batch."""
    input_ids, segments = pack(tokens, indices)
    return Batch(
        inputs={"input_ids": torch.from_numpy(input_ids), "segments": torch.from_numpy(segments)},
        soft_labels=soft_labels,
        weights=torch.from_numpy(weights),
        tokens=len(input_ids),
    )


def threshold_buffer(job: TrainJob) -> ThresholdBuffer | None:
    """The buffer of the confidence threshold, with the class prior of the soft labels.

    Only two-class texts under confidence regularisation need one. The prior of preference pairs is
    exactly ½, so their threshold is z = 0.
    """
    if not job.objective.confidence_weight or job.per_row > 1 or job.soft_labels.shape[1] > 2:
        return None
    return ThresholdBuffer(prior=float(job.soft_labels[:, 1].mean()))
