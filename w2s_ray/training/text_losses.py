"""The objectives of training on text, in the form that ``loop.train`` takes.

Each is a module, which turns a micro-batch into "logits", and a loss of these and of "soft labels".
For pairs both are what these names say, so every ``Objective`` trains on them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.objectives.objective import Objective
from w2s_ray.objectives.preference import pair_logits, sft_losses, wspo_losses
from w2s_ray.training.loop import RowLosses
from w2s_ray.training.text_job import Dpo, Sft, Wspo

SCORER = "scorer.causal."
"""What precedes a parameter's name in the language model, in each of the modules here."""


class AnswerSums(nn.Module):
    """For ``Sft``: (b, 1) log p of one answer a row."""

    def __init__(self, scorer: AnswerScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, input_ids: Tensor, segments: Tensor) -> Tensor:
        sums: Tensor = self.scorer(input_ids, segments)
        return sums


class PairLogits(nn.Module):
    """For ``Dpo``: (b, 2) pair logits (0, z)."""

    def __init__(self, scorer: AnswerScorer, beta: float) -> None:
        super().__init__()
        self.scorer, self._beta = scorer, beta

    def forward(
        self, input_ids: Tensor, segments: Tensor, reference: Tensor | None = None
    ) -> Tensor:
        """Args: reference: (b, 2) log p of both answers under the initial model; None: the present
        model's own log p are returned."""
        sums: Tensor = self.scorer(input_ids, segments)
        return sums if reference is None else pair_logits(sums, reference, self._beta)


class TokenLogRatios(nn.Module):
    """For ``Wspo``: (b, L) Δ log π of each token of one answer a row, 0 after its end."""

    def __init__(self, scorer: AnswerScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, input_ids: Tensor, segments: Tensor, reference: Tensor) -> Tensor:
        """Args: reference: (b, L) log p of each token under the initial model, 0 after the end."""
        tokens = self.scorer.token_log_probs(input_ids, segments)
        counts = torch.bincount(tokens.answer, minlength=len(segments))
        begins = (counts.cumsum(0) - counts)[tokens.answer]
        position = torch.arange(len(tokens.answer), device=begins.device) - begins
        padded = torch.zeros_like(reference)
        return padded.index_put((tokens.answer, position), tokens.values) - reference


@dataclass(frozen=True)
class SftLoss:
    """−log p of each answer per token; the "soft labels" are (b, 1) numbers of tokens."""

    def alpha(self, step: int, total_steps: int) -> float:
        return 0.0

    def __call__(
        self,
        logits: Tensor,
        soft_labels: Tensor,
        *,
        alpha: float | Tensor = 0.0,
        threshold: float | Tensor = 0.0,
    ) -> Tensor:
        return sft_losses(logits[:, 0], soft_labels[:, 0])


@dataclass(frozen=True)
class WspoLoss:
    """The loss of WSPO; the "soft labels" are (b, L) Δ log π_w, NaN after an answer's end."""

    beta: float

    def alpha(self, step: int, total_steps: int) -> float:
        return 0.0

    def __call__(
        self,
        logits: Tensor,
        soft_labels: Tensor,
        *,
        alpha: float | Tensor = 0.0,
        threshold: float | Tensor = 0.0,
    ) -> Tensor:
        counts = (~soft_labels.isnan()).sum(dim=1)
        return wspo_losses(logits, soft_labels.nan_to_num(0.0), counts, self.beta)


def module_of(objective: Sft | Dpo | Wspo, scorer: AnswerScorer) -> nn.Module:
    """The module that the engine runs."""
    if isinstance(objective, Dpo):
        return PairLogits(scorer, objective.beta)
    return TokenLogRatios(scorer) if isinstance(objective, Wspo) else AnswerSums(scorer)


def loss_of(objective: Sft | Dpo | Wspo) -> RowLosses:
    """The loss of each row."""
    if isinstance(objective, Dpo):
        return Objective(objective.loss)
    return WspoLoss(objective.beta) if isinstance(objective, Wspo) else SftLoss()
