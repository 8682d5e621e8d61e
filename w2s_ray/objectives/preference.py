"""Losses of a language model on answers, from summed log-probabilities; B rows.

The loss of DPO (Rafailov et al. 2023), −log σ(z) with z = r̂(chosen) − r̂(rejected) and the implicit
reward r̂(y) = β log(π(y)/π_ref(y)), is the forward cross-entropy of a pair's logits (0, z) on the
label (0, 1). So ``pair_logits`` is all that is needed: every loss of ``divergence`` and every soft
label of the other half apply to it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def implicit_rewards(log_probs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """β log(π(y)/π_ref(y)), of the arguments' common shape, from summed log-probabilities."""
    return beta * (log_probs - reference)


def pair_logits(log_probs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """(B, 2) logits (0, r̂(A) − r̂(B)); the second class is "A is preferred".

    Args:
        log_probs, reference: (B, 2) of the answers A and B.
    """
    rewards = implicit_rewards(log_probs, reference, beta)
    margin = rewards[:, 0] - rewards[:, 1]
    return torch.stack([torch.zeros_like(margin), margin], dim=1)


def log_ratio_errors(
    log_probs: Tensor, reference: Tensor, weak_log_ratios: Tensor, beta: float
) -> Tensor:
    """(β (log π − log π_ref) − weak log-ratio)² of each token: the summands of WSPO.

    WSPO (Zhu et al. 2024, arXiv 2410.18640) takes the mean over the tokens of an answer.

    Args:
        log_probs, reference, weak_log_ratios: (a,) of a tokens; the last log π_post − log π_pre.
    """
    return (beta * (log_probs - reference) - weak_log_ratios) ** 2


@dataclass(frozen=True, slots=True)
class RowValue:
    """The loss of a row is a number that the scorer has computed, times ``sign``.

    It takes the arguments of ``Objective``: (B, 1) logits → (B,) losses.
    """

    sign: float = 1.0

    def alpha(self, step: int, total_steps: int) -> float:
        """There is no confidence regularisation."""
        return 0.0

    def __call__(
        self,
        logits: Tensor,
        soft_labels: Tensor,
        *,
        alpha: float | Tensor = 0.0,
        threshold: float | Tensor = 0.0,
    ) -> Tensor:
        return self.sign * logits[:, 0]


NEGATIVE_LOG_PROB = RowValue(-1.0)
"""The loss of fine-tuning: −Σ log π(token) of a row."""
