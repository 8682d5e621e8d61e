"""How the next token is drawn when a model is contrasted with itself before alignment.

Pure functions of logits; B rows, V tokens of the vocabulary. Source: ConG, arXiv 2510.07884; the
choices of its published code that differ are under ``released``.
"""

import math
from typing import Literal

import torch
from torch import Tensor

PenaltyOn = Literal["log_probs", "released"]

_CANDIDATES = 256
"""Most probable tokens that are sorted; the rest is sorted only where a nucleus is larger."""


def head_mask(log_probs: Tensor, share: float) -> Tensor:
    """(B, V) bool: the tokens with a probability of at least ``share`` times the largest.

    Args:
        log_probs: (B, V).
        share: 0 to 1; 0: all tokens.
    """
    if share == 0.0:
        return torch.ones_like(log_probs, dtype=torch.bool)
    return log_probs >= log_probs.amax(dim=-1, keepdim=True) + math.log(share)


def contrastive_scores(post: Tensor, pre: Tensor, *, alpha: float, head: float) -> Tensor:
    """(B, V) float32: log π_post − (1 − α) log π_pre on the head of π_post, −∞ elsewhere.

    Args:
        post, pre: (B, V) logits of the aligned model, and of the same model before.
        alpha: 1: π_post on its head; 0: the implicit reward alone.
        head: as ``head_mask``.
    """
    scores = torch.log_softmax(post.float(), dim=-1)
    inside = head_mask(scores, head)
    if alpha < 1.0:
        scores = scores - (1.0 - alpha) * torch.log_softmax(pre.float(), dim=-1)
    return scores.masked_fill(~inside, float("-inf"))


def proxy_scores(model: Tensor, post: Tensor, pre: Tensor) -> Tensor:
    """(B, V) float32: log π + log π_post − log π_pre, from (B, V) logits.

    Proxy tuning (Liu et al. 2024), emulated fine-tuning (Mitchell et al. 2024).
    """
    own, after, before = (torch.log_softmax(of.float(), dim=-1) for of in (model, post, pre))
    return own + after - before


def penalised(
    scores: Tensor, seen: Tensor, penalty: float, *, acts_on: PenaltyOn, alpha: float = 1.0
) -> Tensor:
    """(B, V) scores in which tokens that were seen are less likely.

    The rule is that of Keskar et al. 2019, as in transformers: a score above 0 is divided by the
    penalty, one below 0 multiplied. ``log_probs``: the scores are log-probabilities of what is
    sampled from, never above 0, so a constant added to the logits of either model changes nothing.
    ``released``: the published code's scores, which have an offset of (1 − α) log V, since its base
    model's log-probabilities are normalised once more after the head is masked.

    Args:
        scores: (B, V), −∞ for tokens that cannot be drawn.
        seen: (B, V) bool; ``log_probs``: tokens generated so far; ``released``: those of the prompt
            too.
        penalty: 1 or above; 1: none.
        alpha: of contrastive decoding; 1 without.
    """
    if penalty == 1.0:
        return scores
    if acts_on == "released":
        scores = scores + (1.0 - alpha) * math.log(scores.shape[-1])
    else:
        scores = torch.log_softmax(scores, dim=-1)
    return torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def draw(scores: Tensor, uniforms: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """(B,) int64: one token per row from softmax(scores / temperature), restricted to its nucleus.

    The nucleus is the smallest set of most probable tokens with a probability of at least
    ``top_p``. A row depends on its own scores and its own number alone.

    Args:
        scores: (B, V).
        uniforms: (B,) float64 in [0, 1).
        temperature: 0: the token with the highest score, the first of equals.
    """
    if temperature == 0.0:
        return scores.argmax(dim=-1)
    log_probs = torch.log_softmax(scores.float() / temperature, dim=-1)
    drawn, covered = _drawn(log_probs, uniforms, top_p, min(_CANDIDATES, scores.shape[-1]))
    if not bool(covered.all()):
        rest = ~covered
        drawn[rest], _ = _drawn(log_probs[rest], uniforms[rest], top_p, scores.shape[-1])
    return drawn


def _drawn(
    log_probs: Tensor, uniforms: Tensor, top_p: float, candidates: int
) -> tuple[Tensor, Tensor]:
    """(B,) tokens, and whether the most probable ``candidates`` hold the nucleus of the row."""
    values, tokens = log_probs.topk(candidates, dim=-1)
    probs = values.double().exp()
    ends = probs.cumsum(dim=-1)
    inside = ends - probs < top_p
    covered = (ends[:, -1] >= top_p) | (candidates == log_probs.shape[-1])
    covered |= values[:, -1] == float("-inf")  # every other token has probability 0
    ends = (probs * inside).cumsum(dim=-1)
    index = (ends <= (uniforms * ends[:, -1])[:, None]).sum(dim=-1, keepdim=True)
    last = (inside & (probs > 0)).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(index, last))[:, 0], covered
