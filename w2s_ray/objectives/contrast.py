"""Scores of the next token from one model or several, and how a token is drawn by them.

Contrastive decoding: Jiang et al., "Contrastive Weak-to-Strong Generalization", arXiv 2510.07884.
With the implicit reward r = β log(π_post / π_pre) of an aligned model against its own start, the
scores are those of π_pre exp(r / β) sharpened by the share of π_pre that is taken out again.

Scores are unnormalised log-probabilities, so a constant added to a row changes nothing but what a
repetition penalty does; it is therefore said for each what it acts on. Shapes: B rows, V tokens.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

ActsOn = Literal["log_probs", "released"]

_FEW = (128, 1024, 8192)  # tokens that hold a nucleus: mostly, nearly always, but for a flat one
_ROWS = 16  # whose probabilities are summed at once


def head_mask(log_probs_BV: Tensor, share: float) -> Tensor:
    """The head of a distribution: tokens with p >= ``share`` · max p.

    Args:
        log_probs_BV: (B, V); log-probabilities or logits, since only differences count.
        share: in [0, 1]; 0 keeps every token.

    Returns:
        (B, V) bool.
    """
    if share == 0:
        return torch.ones_like(log_probs_BV, dtype=torch.bool)
    return log_probs_BV >= log_probs_BV.amax(-1, keepdim=True) + math.log(share)


def contrastive_scores(post_BV: Tensor, pre_BV: Tensor, *, alpha: float, head: float) -> Tensor:
    """log π_post - (1 - α) log π_pre on the head of π_post, -inf elsewhere (arXiv 2510.07884).

    At α = 1 they are those of π_post on its head; as α → 0, the implicit reward alone.

    Args:
        post_BV: (B, V) logits of the aligned model.
        pre_BV: (B, V) logits of the model that it was aligned from.
        alpha: in [0, 1].
        head: the share of ``head_mask``.

    Returns:
        (B, V) float32.
    """
    post = post_BV.float().log_softmax(-1)
    scores = post - (1 - alpha) * pre_BV.float().log_softmax(-1)
    return scores.masked_fill(~head_mask(post, head), -math.inf)


def proxy_scores(strong_BV: Tensor, post_BV: Tensor, pre_BV: Tensor) -> Tensor:
    """log π_strong + log π_post - log π_pre: a strong model moved as a weak one was by alignment.

    Proxy tuning (Liu et al. 2024, arXiv 2401.08565) and the emulator of Mitchell et al. 2023 (arXiv
    2310.12962) at β = 1.

    Args:
        strong_BV: (B, V) logits, as the two of the weak model.

    Returns:
        (B, V) float32.
    """
    strong, post, pre = (logits.float().log_softmax(-1) for logits in (strong_BV, post_BV, pre_BV))
    return strong + post - pre


def released_offset(alpha: float, vocabulary: int) -> float:
    """What the published code of arXiv 2510.07884 adds to every contrastive score.

    It sets log π_pre to 0 outside the head and takes a log-softmax again, whose normaliser is then
    about log V. A softmax does not see it; a repetition penalty does.
    """
    return (1 - alpha) * math.log(vocabulary)


def repetition_penalty(
    scores_BV: Tensor, seen_BV: Tensor, penalty: float, *, acts_on: ActsOn, alpha: float = 1.0
) -> Tensor:
    """Makes tokens that were seen less likely: scores > 0 are divided, others multiplied.

    The rule is that of CTRL (arXiv 1909.05858) and of transformers. It depends on the level of the
    scores:

    * "log_probs": the scores as the functions above return them, or log-probabilities of one model,
      and seen are the *generated* tokens alone.
    * "released": the scores plus ``released_offset``, as in the published code, and seen are the
      prompt's tokens too. Without contrast (α = 1) there is no offset.

    Args:
        scores_BV: (B, V); -inf stays.
        seen_BV: (B, V) bool, by the rule above; the caller keeps it.
        penalty: > 0; 1 changes no distribution.
        alpha: that of ``contrastive_scores``; read for "released" only.

    Returns:
        (B, V); with the offset for "released".
    """
    if acts_on == "released":
        scores_BV = scores_BV + released_offset(alpha, scores_BV.shape[-1])
    penalised = torch.where(scores_BV > 0, scores_BV / penalty, scores_BV * penalty)
    return torch.where(seen_BV, penalised, scores_BV)


def tempered(scores_BV: Tensor, temperature: float) -> Tensor:
    """Scores divided by a temperature; at 0 only the highest stays, of equal ones the first.

    Returns:
        (B, V); at 0, 0 for the highest and -inf elsewhere.
    """
    if temperature > 0:
        return scores_BV / temperature
    only = torch.full_like(scores_BV, -math.inf)
    return only.scatter_(-1, scores_BV.argmax(-1, keepdim=True), 0.0)


def draw(scores_BV: Tensor, uniform_B: Tensor, nucleus: float = 1.0) -> Tensor:
    """Draws a token a row by inversion: the first whose cumulated probability exceeds ``uniform``.

    Tokens are taken from the most probable down, of equal ones the first first. A row's draw
    depends on its own scores and number alone.

    Args:
        scores_BV: (B, V); tokens at -inf are never drawn.
        uniform_B: (B,) float64 in [0, 1).
        nucleus: in (0, 1]; only the fewest most probable tokens that hold this share of the
            probability are drawn (top-p, Holtzman et al. 2020, arXiv 1904.09751).

    Returns:
        (B,) int64.
    """
    drawn = torch.empty(len(scores_BV), dtype=torch.int64, device=scores_BV.device)
    share = uniform_B if nucleus >= 1 else torch.full_like(uniform_B, nucleus)
    for ordered in _descending(scores_BV, share):
        mass = ordered.weights.cumsum(-1)
        inside, whole = ordered.weights > 0, ordered.total
        if nucleus < 1:
            inside &= mass - ordered.weights < nucleus * ordered.total
            whole = mass.where(inside, 0.0).amax(-1, keepdim=True)
        below = mass <= uniform_B[ordered.rows, None] * whole
        last = inside.sum(-1) - 1  # u · whole can round up to the whole
        position = torch.minimum(below.sum(-1), last.clamp_min(0))
        drawn[ordered.rows] = ordered.tokens.gather(-1, position[:, None])[:, 0]
    return drawn


class _Ordered(NamedTuple):
    """The k most probable tokens of b rows, in descending order.

    Attributes:
        rows: (b,) int64.
        tokens: (b, k) int64.
        weights: (b, k) float64, probabilities but for the factor 1 / total.
        total: (b, 1) float64, over all V tokens.
    """

    rows: Tensor
    tokens: Tensor
    weights: Tensor
    total: Tensor


def _descending(scores_BV: Tensor, share_B: Tensor) -> Iterator[_Ordered]:
    """As many tokens as hold a row's share of its probability, or more; each row once.

    Sorting the whole vocabulary would take longer than a small model's forward pass, so rows are
    tried with few tokens first. How many there are never shows: no token outside equals the last
    one that counts.
    """
    highest = scores_BV.amax(-1, keepdim=True)
    total = _sums(scores_BV, highest)
    rows = torch.arange(len(scores_BV), device=scores_BV.device)
    vocabulary = scores_BV.shape[-1]
    for k in (*(few for few in _FEW if few < vocabulary), vocabulary):
        part = scores_BV if len(rows) == len(scores_BV) else scores_BV[rows]
        tokens, weights = _top(part, highest[rows], k)
        above = weights.where(weights > weights[:, -1:], 0.0).sum(-1)
        enough = above > share_B[rows] * total[rows, 0] * (1 + 1e-9)
        enough |= weights[:, -1] == 0  # what follows is never drawn
        if k == vocabulary or bool(enough.all()):
            yield _Ordered(rows, tokens, weights, total[rows])
            return
        yield _Ordered(rows[enough], tokens[enough], weights[enough], total[rows[enough]])
        rows = rows[~enough]


def _sums(scores_BV: Tensor, highest: Tensor) -> Tensor:
    """(B, 1) float64 sums of exp(scores - highest), a few rows at a time.

    torch copies what it sums in another dtype; copies of a few rows stay in the cache.
    """
    parts = zip(torch.split(scores_BV, _ROWS), torch.split(highest, _ROWS), strict=True)
    sums = [(s - h).exp_().sum(-1, keepdim=True, dtype=torch.float64) for s, h in parts]
    return torch.cat(sums)


def _top(scores_BV: Tensor, highest: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row, as (B, k) tokens and weights; of equal ones the lowest
    token first."""
    if k == scores_BV.shape[-1]:
        scores, tokens = scores_BV.sort(dim=-1, descending=True, stable=True)
    else:
        tokens = scores_BV.topk(k, dim=-1, sorted=False).indices.sort(-1).values
        scores, order = scores_BV.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
        tokens = tokens.gather(-1, order)
    return tokens, (scores - highest).double().exp()
