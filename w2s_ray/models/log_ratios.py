"""Log-probabilities of the tokens of answers under one model, and their ratios under two.

The implicit reward of an answer is β [log π(y | x) − log π_ref(y | x)] = β Σ_t Δ_t with
Δ_t = log π(y_t | x, y_<t) − log π_ref(y_t | x, y_<t), since the logarithm of a product of
conditional probabilities is a sum.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from w2s_ray.data.batches import length_batches, pack
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.finite_weights import check_scores
from w2s_ray.models.inference import token_budget_of


def counted_tokens(tokens: Tokens) -> NDArray[np.int64]:
    """(n, m) tokens of each answer that have a log-probability.

    They are all of them, but for the first token of a text without prompt.
    """
    counts: NDArray[np.int64] = tokens.segments[:, 1:] - (tokens.segments[:, :1] == 0)
    return counts


@torch.no_grad()
def token_log_probs(
    scorer: AnswerScorer, tokens: Tokens, token_budget: int | None = None
) -> list[NDArray[np.float32]]:
    """log p of each token of the answers: an array for each of n rows, answer after answer.

    Args:
        token_budget: tokens of a forward pass; None: that of the device.

    Raises:
        FloatingPointError: a log-probability is not finite; names the row.
    """
    device = next(scorer.parameters()).device
    counts = counted_tokens(tokens).sum(axis=1)
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(counts)
    for rows in length_batches(tokens.row_lengths, token_budget or token_budget_of(scorer)):
        packed = (torch.from_numpy(array).to(device) for array in pack(tokens, rows))
        values = scorer.token_log_probs(*packed).values.float().cpu().numpy()
        ends = np.cumsum(counts[rows])[:-1]
        for row, own in zip(rows, np.split(values, ends), strict=True):
            found[row] = own
    sums = np.array([own.sum() for own in found], dtype=np.float32)
    check_scores(sums, "the model's log-probabilities", tokens.row_ids, scorer.causal)
    return found


def answer_log_ratios(
    post: AnswerScorer, pre: AnswerScorer, tokens: Tokens, token_budget: int | None = None
) -> list[NDArray[np.float32]]:
    """Δ_t of each token of the answers: an array for each of n rows, answer after answer.

    Args:
        post, pre: a model after and before its training; of one tokenizer.
        token_budget: as for ``token_log_probs``.
    """
    after = token_log_probs(post, tokens, token_budget)
    before = token_log_probs(pre, tokens, token_budget)
    return [a - b for a, b in zip(after, before, strict=True)]


def implicit_reward_sums(
    log_ratios: Sequence[NDArray[np.float32]], tokens: Tokens, beta: float
) -> NDArray[np.float64]:
    """(n, m) β Σ_t Δ_t of each answer, from ``answer_log_ratios``."""
    ends = counted_tokens(tokens).cumsum(axis=1)[:, :-1]
    sums = [
        [part.sum(dtype=np.float64) for part in np.split(ratios, own)]
        for ratios, own in zip(log_ratios, ends, strict=True)
    ]
    rewards: NDArray[np.float64] = beta * np.array(sums, dtype=np.float64)
    return rewards.reshape(len(tokens.row_ids), tokens.per_row)
