"""Losses of training on text, as functions of log-probabilities of answers.

π is the model in training and π_ref the same model before its first update; log π(y | x) is summed
over the tokens of answer y, its end token among them. Direct preference optimisation (DPO; Rafailov
et al. 2023, arXiv 2305.18290) is forward cross-entropy of the pair logits (0, z) on the label "the
first answer is preferred", so that every loss of ``divergence`` trains on pairs, and soft labels
too. All logarithms are natural.
"""

import torch
from torch import Tensor


def implicit_rewards(log_probs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """r(x, y) = β [log π(y | x) − log π_ref(y | x)], in nats.

    The model is the optimum of the reward r with a penalty β KL(π ‖ π_ref), up to a constant of x
    (arXiv 2305.18290, equation 5).

    Args:
        log_probs, reference: of one shape, of π and π_ref: of answers, or of their tokens; the
            reward of an answer is the sum of those of its tokens.
    """
    return beta * (log_probs - reference)


def pair_logits(log_probs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """(b, 2) logits (0, z) of b pairs, z = r(x, A) − r(x, B).

    The loss of DPO is −log σ(z) = forward cross-entropy of (0, z) on the label (0, 1)
    (arXiv 2305.18290, equation 7).

    Args:
        log_probs: (b, 2) log π of the answers A and B.
        reference: (b, 2) log π_ref of them; a constant.
        beta: β > 0.
    """
    rewards = implicit_rewards(log_probs, reference, beta)
    margin = rewards[:, 0] - rewards[:, 1]
    return torch.stack([torch.zeros_like(margin), margin], dim=1)


def sft_losses(log_prob_sums: Tensor, counts: Tensor) -> Tensor:
    """(b,) −log π(y | x) / |y|: nats per token of each answer.

    With weights in proportion to ``counts`` their mean is the loss of supervised fine-tuning: the
    mean over all tokens of the answers of a batch.

    Args:
        log_prob_sums: (b,) log π of the answers.
        counts: (b,) tokens that were summed, above 0.
    """
    return -log_prob_sums / counts


def wspo_losses(log_ratios: Tensor, weak_log_ratios: Tensor, counts: Tensor, beta: float) -> Tensor:
    """(b,) Σ_t (β Δ log π_s − Δ log π_w)² / |y| of weak-to-strong preference optimisation.

    Δ log π = log π(y_t | x, y_<t) − log π_ref(y_t | x, y_<t), each model against its own reference:
    the strong model s before its training, the weak model w before its alignment. Only chosen
    answers are trained on (WSPO; Zhu et al. 2024, arXiv 2410.18640).

    Args:
        log_ratios: (b, L) Δ log π_s of each token, 0 after the end of an answer.
        weak_log_ratios: (b, L) Δ log π_w; a constant, 0 after the end of an answer.
        counts: (b,) tokens |y| of the answers.
        beta: β > 0.
    """
    return (beta * log_ratios - weak_log_ratios).square().sum(dim=1) / counts
