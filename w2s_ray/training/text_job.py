"""A job that trains a language model on text: which model, on which answers, by which objective.

A ``TextJob`` is plain values and arrays, so that it travels by pickle. ``fit_text`` trains it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.token_budgets import MICRO_BATCH_TOKENS
from w2s_ray.data.completions import completion_tokens
from w2s_ray.data.tokens import Tokens
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.spec.training import Render
from w2s_ray.training.engine import Adam
from w2s_ray.training.resume import CheckpointStorage


@dataclass(frozen=True)
class Sft:
    """Supervised fine-tuning on one answer a row: the mean of −log p over all answer tokens."""


@dataclass(frozen=True)
class Dpo:
    """A loss on the pair logits (0, z) of two answers a row (``objectives.preference``).

    Attributes:
        beta: β > 0 of z.
        loss: a name in ``objectives.names.DEFINITIONS``; ``forward_ce`` is DPO.
        preferred: probability that the first answer of each row is preferred; None: 1.
    """

    beta: float
    loss: str = "forward_ce"
    preferred: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Wspo:
    """Σ_t (β Δ log π_s − Δ log π_w)² / |y| on one answer a row (``objectives.preference``).

    Attributes:
        beta: β > 0.
        weak_log_ratios: Δ log π_w of each token of each row's answer, its end token among them
            (``models.log_ratios.answer_log_ratios``).
    """

    beta: float
    weak_log_ratios: Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class TextJob:
    """A language model to train on text.

    Attributes:
        name: stable and unique.
        initial: trained parameters of an earlier step, of the same ``trainable`` and ``lora``, to
            start from: a file of this machine, or what gives them by their names; None: the model
            as it is.
        answers: of each row: one for ``Sft`` and ``Wspo``, two for ``Dpo``, the chosen first.
        trainable: "full" or "lora".
        lora: of the adapters; None for "full".
        warmup: share of the optimizer steps in which the rate rises linearly to its peak.
        render: how a prompt becomes tokens (``data.completions``).
        checkpoints: where the state of the run is kept; None: nowhere.
        oom_retries: how often the job ran out of memory; each time halves the micro-batch.
    """

    name: str
    model: ModelSpec
    initial: Path | Callable[[], Mapping[str, Tensor]] | None
    row_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    objective: Sft | Dpo | Wspo
    trainable: str
    lora: Lora | None
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
    oom_retries: int = 0

    def __post_init__(self) -> None:
        rows = len(self.row_ids)
        per_row = 2 if isinstance(self.objective, Dpo) else 1
        if not rows:
            raise ValueError(f"{self.name}: no rows to train on")
        if not rows == len(self.prompts) == len(self.answers):
            raise ValueError(
                f"{self.name}: {rows} row ids, {len(self.prompts)} prompts and "
                f"{len(self.answers)} rows of answers, expected equally many"
            )
        for row_id, answers in zip(self.row_ids, self.answers, strict=True):
            if len(answers) != per_row:
                raise ValueError(f"row {row_id}: {len(answers)} answers, expected {per_row}")

    def encoded(self, tokenizer: PreTrainedTokenizerFast, end_id: int) -> Tokens:
        """The rows as tokens; arguments and errors of ``completion_tokens``."""
        return completion_tokens(
            self.row_ids,
            self.prompts,
            self.answers,
            tokenizer,
            render=self.render,
            end_id=end_id,
            max_length_tokens=self.max_length_tokens,
        )

    @property
    def token_budget(self) -> int:
        """Most tokens of a micro-batch."""
        given = self.execution.micro_batch_tokens
        whole = given or MICRO_BATCH_TOKENS["gpu" if self.on_gpu else "cpu"]
        return max(1, whole >> self.oom_retries)

    @property
    def on_gpu(self) -> bool:
        """Whether the job is given a GPU, and this process sees one."""
        return self.execution.device == "gpu" and torch.cuda.is_available()

    @property
    def device(self) -> str:
        """The torch device type of this process: "cuda" or "cpu"."""
        return "cuda" if self.on_gpu else "cpu"
