"""The rows of a text job as micro-batches, with what the initial model makes of them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS
from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches, pack, trained_rows
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.finite_weights import check_scores
from w2s_ray.models.inference import sweep
from w2s_ray.models.log_ratios import counted_tokens
from w2s_ray.training.engine import Batch, Engine
from w2s_ray.training.outputs import counts_of
from w2s_ray.training.text_job import Dpo, Sft, TextJob, Wspo

Array = NDArray[np.float32]
Keep = Callable[[str, Callable[[], NDArray[Any]]], NDArray[Any]]


@dataclass(frozen=True)
class TextRows:
    """The n rows that are trained on.

    Attributes:
        tokens: of prompts and answers.
        labels: of each row what its loss compares with: (1,) the number of its answer's tokens for
            ``Sft``, (2,) the soft label for ``Dpo``, (|y|,) Δ log π_w for ``Wspo``.
        references: of each row the log-probabilities under the initial model: (2,) of both answers
            for ``Dpo``, (|y|,) of the answer's tokens for ``Wspo``; None for ``Sft``.
        counts: (n,) int64 tokens of a row's answers.
        counted: metrics: rows that were truncated, and pairs of the same tokens, left out here.
    """

    tokens: Tokens
    labels: list[Array]
    references: list[Array] | None
    counts: NDArray[np.int64]
    counted: dict[str, int]

    def total_steps(self, job: TextJob) -> int:
        """Optimizer steps of the whole run."""
        return job.epochs * math.ceil(len(self.labels) / job.batch_size)


def text_rows(
    job: TextJob, tokens: Tokens, engine: Engine, scorer: AnswerScorer, keep: Keep
) -> TextRows:
    """The job's rows, without pairs whose answers are the same tokens, which have no gradient.

    Args:
        tokens: of all rows of the job.
        engine: holds the initial model; it is asked for the references unless they are kept.
        scorer: the model, to name weights at fault.
        keep: an array under a name, made if an earlier try of this step has not left it.

    Raises:
        ValueError: no row remains, or weak log-ratios are not one for each token of a row.
        FloatingPointError: the initial model's log-probabilities are not finite.
    """
    counted = counts_of(tokens)
    kept = trained_rows(tokens.identical, "leave_out")
    labels = _labels(job, tokens)
    tokens, labels = tokens.take(kept), [labels[row] for row in kept]
    counts = counted_tokens(tokens).sum(axis=1)
    score = partial(log_probs, job, tokens, engine, scorer)
    references: list[Array] | None = None
    if isinstance(job.objective, Dpo):
        references = list(keep("reference", score))
    elif isinstance(job.objective, Wspo):
        flat = keep("reference", lambda: _flat(score(int(counts.max())), counts))
        references = np.split(flat, np.cumsum(counts)[:-1])
    return TextRows(tokens, labels, references, counts, counted)


def log_probs(
    job: TextJob, tokens: Tokens, engine: Engine, scorer: AnswerScorer, width: int | None = None
) -> Array:
    """(n, 2) log p(answer | prompt) of pairs, or (n, width) of each token of single answers.

    On every rank; all of them take part.

    Args:
        width: of ``Wspo``: most tokens of an answer; shorter ones have 0 after their end.

    Raises:
        FloatingPointError: one is not finite; names the row.
    """

    def forward(input_ids: Tensor, segments: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "segments": segments}
        if width is not None:  # a ratio to probabilities of 1
            inputs["reference"] = torch.zeros(len(segments), width)
        return engine.logits(inputs)

    budget = max(1, INFERENCE_TOKENS[job.device] >> job.oom_retries)
    cut_equally(scorer, tokens, budget)
    rank, world = engine.rank, engine.world
    found = sweep(forward, tokens, budget, rank=rank, world=world, gather=engine.gather)
    check_scores(found, "the model's log-probabilities", tokens.row_ids, scorer.causal)
    return found


def cut_equally(scorer: AnswerScorer, tokens: Tokens, token_budget: int) -> None:
    """Prepares passes of at most so many tokens, or one longer row; needed under ZeRO 3 alone."""
    if any(hasattr(parameter, "ds_id") for parameter in scorer.parameters()):
        scorer.cut_equally(max(token_budget, int(tokens.row_lengths.max())))


def _flat(padded: Array, counts: NDArray[np.int64]) -> Array:
    """The first ``counts`` numbers of each row, row after row."""
    return padded[np.arange(padded.shape[1]) < counts[:, None]]


def _labels(job: TextJob, tokens: Tokens) -> list[Array]:
    """``TextRows.labels`` of all rows of the job."""
    counts = counted_tokens(tokens)
    objective = job.objective
    if isinstance(objective, Sft):
        return list(counts.astype(np.float32))
    if isinstance(objective, Dpo):
        given = objective.preferred or (1.0,) * len(counts)
        first = np.array(given, dtype=np.float32)
        return list(np.stack([1 - first, first], axis=1))
    ratios = [np.asarray(of_row, np.float32) for of_row in objective.weak_log_ratios]
    for row_id, of_row, expected in zip(tokens.row_ids, ratios, counts[:, 0], strict=True):
        if of_row.shape != (expected,) or not np.isfinite(of_row).all():
            raise ValueError(
                f"row {row_id}: weak log-ratios of shape {of_row.shape}, expected {expected} "
                "finite numbers, one for each token of the answer: both models need the same "
                "tokenizer"
            )
    return ratios


def text_stream(
    job: TextJob, rows: TextRows, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[list[Batch]]:
    """Yields this rank's micro-batches of each optimizer step.

    A row weighs as much as any other; for ``Sft`` in proportion to the tokens of its answer.

    Args:
        start: optimizer steps to skip at the beginning.
    """
    ids, lengths = rows.tokens.row_ids, rows.tokens.row_lengths
    orders = (epoch_order(ids, job.seed, epoch) for epoch in range(job.epochs))
    batches = (batch for order in orders for batch in optimizer_batches(order, job.batch_size))
    share = rows.counts if isinstance(job.objective, Sft) else np.ones_like(rows.counts)
    for batch in islice(batches, start, None):
        total = share[batch].sum()
        yield [
            _micro_batch(rows, indices, np.where(weights > 0, share[indices] / total, 0))
            for indices, weights in micro_batches(batch, lengths, job.token_budget, rank, world)
        ]


def _micro_batch(
    rows: TextRows, indices: NDArray[np.int64], weights: NDArray[np.floating]
) -> Batch:
    """The rows ``indices`` as one packed micro-batch; a filler row weighs 0."""
    input_ids, segments = (torch.from_numpy(array) for array in pack(rows.tokens, indices))
    inputs = {"input_ids": input_ids, "segments": segments}
    if rows.references is not None:
        inputs["reference"] = _padded([rows.references[row] for row in indices], 0.0)
    return Batch(
        inputs=inputs,
        soft_labels=_padded([rows.labels[row] for row in indices], float("nan")),
        weights=torch.from_numpy(weights.astype(np.float32)),
        tokens=int(segments[weights > 0].sum()),
    )


def _padded(of_rows: list[Array], fill: float) -> Tensor:
    """(b, L) float32, with ``fill`` after the end of shorter rows."""
    padded = np.full((len(of_rows), max(map(len, of_rows))), fill, dtype=np.float32)
    for number, values in enumerate(of_rows):
        padded[number, : len(values)] = values
    return torch.from_numpy(padded)
