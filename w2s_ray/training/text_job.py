"""A language model to train on answers: what, on which rows, and how its batches are cut."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.token_budgets import MICRO_BATCH_TOKENS
from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches, pack
from w2s_ray.data.completions import completion_tokens
from w2s_ray.data.tokens import Tokens
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.spec.training import Render
from w2s_ray.training.engine import Adam, Batch
from w2s_ray.training.resume import CheckpointStorage


@dataclass(frozen=True, slots=True)
class Sft:
    """Fine-tuning: the mean of −log π over all tokens of the answers of a batch."""


@dataclass(frozen=True, slots=True)
class Dpo:
    """Direct preference optimisation, and its relatives by other losses.

    Attributes:
        beta: of the implicit reward.
        loss: a name in ``objectives.names.DEFINITIONS``; forward_ce is DPO.
    """

    beta: float
    loss: str = "forward_ce"


@dataclass(frozen=True)
class Wspo:
    """The log-ratio of the strong model follows that of the weak one, token by token.

    Attributes:
        weak_log_ratios: (a,) float32, log π_post − log π_pre of the tokens of all answers, row
            after row, with their end tokens.
    """

    beta: float
    weak_log_ratios: NDArray[np.float32]


@dataclass(frozen=True)
class TextJob:
    """A language model to train.

    Attributes:
        name: stable and unique.
        initial: parameters that an earlier step has trained in the same way; None: none.
        row_ids: n ids, all different.
        prompts: n user's messages.
        answers: n rows of one answer, or for ``Dpo`` of two, the chosen one first.
        lora: adapters where ``trainable`` is "lora".
        warmup: share of the optimizer steps over which the rate rises.
        checkpoints: where the state of the run is kept; None: nowhere.
    """

    name: str
    model: ModelSpec
    initial: Path | None
    row_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    objective: Sft | Dpo | Wspo
    trainable: str
    lora: Lora
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    warmup: float
    adam: Adam
    max_length_tokens: int
    precision: str
    render: Render
    execution: Execution = field(default_factory=Execution)
    checkpoints: CheckpointStorage | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * math.ceil(len(self.row_ids) / self.batch_size)

    @property
    def token_budget(self) -> int:
        """Most tokens of a micro-batch."""
        given = self.execution.micro_batch_tokens
        return given or MICRO_BATCH_TOKENS["gpu" if torch.cuda.is_available() else "cpu"]

    def encoded(self, tokenizer: PreTrainedTokenizerFast, end_id: int) -> Tokens:
        """The rows as tokens."""
        return completion_tokens(
            self.row_ids,
            self.prompts,
            self.answers,
            tokenizer,
            render=self.render,
            end_id=end_id,
            max_length_tokens=self.max_length_tokens,
        )


class Reference(NamedTuple):
    """What a row's loss is measured against.

    Attributes:
        sums: (n, 2) float32 summed log-probabilities of the initial model, for ``Dpo``.
        tokens: (a,) float32, those of single tokens, for ``Wspo``.
    """

    sums: NDArray[np.float32] | None = None
    tokens: NDArray[np.float32] | None = None


def answer_tokens(tokens: Tokens) -> NDArray[np.int64]:
    """(n,) tokens of the answers of each row that have a token before them."""
    answers = tokens.segments[:, 1:]
    counted: NDArray[np.int64] = (answers - (tokens.segments[:, :1] == 0)).sum(axis=1)
    return counted


def text_stream(
    job: TextJob, tokens: Tokens, reference: Reference, start: int = 0
) -> Iterator[list[Batch]]:
    """The micro-batches of each optimizer step.

    Args:
        start: optimizer steps to skip at the beginning.
    """
    counted = answer_tokens(tokens)
    orders = (epoch_order(tokens.row_ids, job.seed, epoch) for epoch in range(job.epochs))
    batches = (rows for order in orders for rows in optimizer_batches(order, job.batch_size))
    for rows in islice(batches, start, None):
        parts = micro_batches(rows, tokens.row_lengths, job.token_budget)
        of_batch = np.float32(1.0 / counted[rows].sum())
        yield [
            _batch(
                job,
                tokens,
                reference,
                indices,
                np.full(len(indices), of_batch) if isinstance(job.objective, Sft) else weights,
            )
            for indices, weights in parts
        ]


def _batch(
    job: TextJob,
    tokens: Tokens,
    reference: Reference,
    rows: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> Batch:
    input_ids, segments = pack(tokens, rows)
    inputs: dict[str, Tensor] = {
        "input_ids": torch.from_numpy(input_ids),
        "segments": torch.from_numpy(segments),
    }
    if reference.sums is not None:
        inputs["reference"] = torch.from_numpy(reference.sums[rows])
    if isinstance(job.objective, Wspo):
        assert reference.tokens is not None
        own = _tokens_of(tokens, rows)
        inputs["reference"] = torch.from_numpy(reference.tokens[own])
        inputs["weak_log_ratios"] = torch.from_numpy(job.objective.weak_log_ratios[own])
    labels = torch.zeros(len(rows), 2)
    labels[:, 1] = 1.0
    return Batch(inputs, labels, torch.from_numpy(weights), len(input_ids))


def _tokens_of(tokens: Tokens, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions, among the answers' tokens of all rows, of those of some rows."""
    counted = answer_tokens(tokens)
    starts = np.cumsum(counted) - counted
    return np.concatenate([np.arange(starts[r], starts[r] + counted[r]) for r in rows])
