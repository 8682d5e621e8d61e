"""Scores of decoding against numpy in float64, and draws against their probabilities."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from w2s_ray.objectives.contrast import (
    ActsOn,
    contrastive_scores,
    draw,
    head_mask,
    proxy_scores,
    released_offset,
    repetition_penalty,
    tempered,
)

ALPHAS = (0.0, 0.4, 1.0)
FloatArray = NDArray[np.float64]


def logits(seed: int, rows: int = 6, vocabulary: int = 50, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, vocabulary, generator=generator)


def log_softmax(values: Tensor) -> FloatArray:
    wide: FloatArray = values.double().numpy()
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("head", [0.0, 0.1, 0.5, 1.0])
def test_scores_are_those_of_the_paper_on_the_head(alpha: float, head: float) -> None:
    post, pre = logits(0), logits(1)
    p = np.exp(log_softmax(post))
    on_head = p >= head * p.max(-1, keepdims=True)
    scores = contrastive_scores(post, pre, alpha=alpha, head=head).numpy()
    expected = log_softmax(post) - (1 - alpha) * log_softmax(pre)
    np.testing.assert_allclose(scores[on_head], expected[on_head], atol=1e-5)
    assert np.isneginf(scores[~on_head]).all()
    assert np.array_equal(head_mask(post, head).numpy(), on_head)
    assert on_head.any(-1).all()


def test_a_proxy_adds_what_alignment_changed() -> None:
    strong, post, pre = logits(0), logits(1), logits(2)
    expected = log_softmax(strong) + log_softmax(post) - log_softmax(pre)
    np.testing.assert_allclose(proxy_scores(strong, post, pre).numpy(), expected, atol=1e-5)
    unmoved = proxy_scores(strong, pre, pre).numpy()
    np.testing.assert_allclose(unmoved, log_softmax(strong), atol=1e-5)


def frequencies(scores: Tensor, count: int = 100_000) -> NDArray[np.int64]:
    uniform = torch.from_numpy(np.random.default_rng(5).random(count))
    drawn = draw(scores.expand(count, -1), uniform).numpy()
    return np.bincount(drawn, minlength=scores.shape[-1])


def test_with_alpha_1_the_head_of_the_aligned_model_is_sampled() -> None:
    post, pre = logits(0, rows=1, vocabulary=12, scale=1.0), logits(1, rows=1, vocabulary=12)
    counts = frequencies(contrastive_scores(post, pre, alpha=1.0, head=0.1))
    p = np.exp(log_softmax(post))[0]
    p = np.where(p >= 0.1 * p.max(), p, 0.0)
    p /= p.sum()
    assert (counts[p == 0] == 0).all()
    assert 3 <= (p > 0).sum() < 12
    assert chisquare(counts[p > 0], p[p > 0] * counts.sum()).pvalue > 0.01


@pytest.mark.parametrize("acts_on", ["log_probs", "released"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_constants_added_to_logits_change_nothing(alpha: float, acts_on: ActsOn) -> None:
    post, pre = logits(0), logits(1)
    seen = logits(2) > 1
    plain = contrastive_scores(post, pre, alpha=alpha, head=0.1)
    shifted = contrastive_scores(post + 3.7, pre - 11.2, alpha=alpha, head=0.1)
    torch.testing.assert_close(shifted, plain, atol=2e-5, rtol=0)
    penalised = (
        repetition_penalty(scores, seen, 1.2, acts_on=acts_on, alpha=alpha)
        for scores in (plain, shifted)
    )
    torch.testing.assert_close(*penalised, atol=2e-5, rtol=0)


def test_the_released_offset_changes_penalties_alone() -> None:
    """(1 - α) log V: 7.2 nats for Qwen, and a repeated token loses 1.2 nats instead of 0.01."""
    assert released_offset(0.4, 151_936) == pytest.approx(7.16, abs=0.005)
    assert released_offset(1.0, 151_936) == 0.0
    scores = torch.full((1, 151_936), -math.inf)
    scores[0, :2] = torch.tensor([0.05, 0.05])  # of a token that both models like
    seen = torch.zeros_like(scores, dtype=torch.bool)
    unseen = repetition_penalty(scores, seen, 1.2, acts_on="released", alpha=0.4)
    torch.testing.assert_close(unseen.softmax(-1), scores.softmax(-1))
    seen[0, 0] = True
    released = repetition_penalty(scores, seen, 1.2, acts_on="released", alpha=0.4)
    assert float(released[0, 1] - released[0, 0]) == pytest.approx(1.2, abs=0.01)
    on_log_probs = repetition_penalty(scores, seen, 1.2, acts_on="log_probs")
    assert float(on_log_probs[0, 1] - on_log_probs[0, 0]) == pytest.approx(0.01, abs=0.002)
    assert released[0, 2:].isneginf().all()


def test_the_offset_is_that_of_a_log_softmax_after_zeros_outside_the_head() -> None:
    post, pre = logits(0, vocabulary=20_000), logits(1, vocabulary=20_000)
    inside = head_mask(post, 0.1)
    base = pre.log_softmax(-1).where(inside, 0.0).log_softmax(-1)
    published = (post.log_softmax(-1) - 0.6 * base)[inside]
    ours = contrastive_scores(post, pre, alpha=0.4, head=0.1)[inside]
    offset = released_offset(0.4, 20_000)
    torch.testing.assert_close(published, ours + offset, atol=0.01, rtol=0)


def test_the_penalty_is_that_of_transformers() -> None:
    scores = contrastive_scores(logits(0), logits(1), alpha=0.1, head=0.001)
    ids = torch.tensor(
        [[1, 5, 5, 40], [0, 1, 2, 3], [7, 7, 7, 7], [9, 8, 4, 2], *[[3, 6, 9, 12]] * 2]
    )
    seen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, ids, True)
    assert (scores[seen] > 0).any()
    assert (scores[seen] < 0).any()
    theirs: Any = RepetitionPenaltyLogitsProcessor(1.3)
    expected = theirs(ids, scores)
    assert torch.equal(repetition_penalty(scores, seen, 1.3, acts_on="log_probs"), expected)
    none = repetition_penalty(scores, seen, 1.0, acts_on="log_probs")
    assert torch.equal(none, scores)


def draws_by_transformers(scores: Tensor, uniform: Tensor, share: float) -> list[int]:
    """By its nucleus in float64, all of the vocabulary sorted."""
    warp: Any = TopPLogitsWarper(share) if share < 1 else lambda ids, all_: all_
    p, tokens = warp(None, scores.double()).softmax(-1).sort(dim=-1, descending=True, stable=True)
    return [
        int(tokens[row, np.searchsorted(p[row].cumsum(0).numpy(), u, side="right")])
        for row, u in enumerate(uniform.tolist())
    ]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("vocabulary", [30, 5000])
@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])  # nearly flat: the nucleus is most of V
def test_draws_are_from_the_nucleus_of_transformers(
    share: float, vocabulary: int, scale: float
) -> None:
    uniform = torch.tensor([0.0, 0.02, 0.3, 0.7, 0.97, 1 - 1e-6], dtype=torch.float64)
    scores = logits(3, len(uniform), vocabulary, scale)
    expected = draws_by_transformers(scores, uniform, share)
    assert draw(scores, uniform, share).tolist() == expected


def test_of_equal_tokens_the_first_are_drawn() -> None:
    scores = torch.zeros(3, 3000)
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(scores, uniform, 0.5).tolist() == [0, 750, 1499]
    assert draw(scores, uniform).tolist() == [0, 1500, 2999]


def test_temperature_0_takes_the_highest_and_the_first_of_equals() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, -math.inf, 5.0]])
    uniform = torch.tensor([0.999, 0.999], dtype=torch.float64)
    assert draw(tempered(scores, 0.0), uniform).tolist() == [1, 0]
    assert draw(tempered(scores, 0.0), uniform, 0.5).tolist() == [1, 0]
    half = tempered(logits(0), 0.5).softmax(-1)
    p = logits(0).softmax(-1)
    torch.testing.assert_close(half, p**2 / (p**2).sum(-1, keepdim=True))


def test_a_draw_inverts_the_cumulated_probabilities() -> None:
    p = torch.tensor([[0.1, 0.6, 0.0, 0.3]])
    numbers = [0.0, 0.59, 0.61, 0.89, 0.91, 1 - 2**-53]
    uniform = torch.tensor(numbers, dtype=torch.float64)
    drawn = draw(p.log().expand(6, -1), uniform).tolist()
    assert drawn == [1, 1, 3, 3, 0, 0]


@pytest.mark.parametrize("nucleus", [0.9, 1.0])
def test_a_draw_does_not_depend_on_other_rows(nucleus: float) -> None:
    """Of rows whose nuclei have a few, some hundred and thousands of tokens."""
    scores = torch.cat([logits(i, 20, 3000, scale) for i, scale in enumerate((8.0, 2.5, 0.5))])
    p = scores.softmax(-1).sort(-1, descending=True).values
    sizes = (p.cumsum(-1) < 0.9).sum(-1)
    assert (int(sizes.min()) < 128) and (int(sizes.max()) > 1024)
    assert ((sizes > 128) & (sizes < 1024)).any()
    scores[5, 7:] = -math.inf
    uniform = torch.from_numpy(np.random.default_rng(0).random(60))
    together = draw(scores, uniform, nucleus)
    alone = [int(draw(scores[i : i + 1], uniform[i : i + 1], nucleus)) for i in range(60)]
    assert together.tolist() == alone


def test_a_draw_has_the_probabilities_of_its_scores() -> None:
    scores = tempered(proxy_scores(*(logits(i, 1, 9, 1.0) for i in range(3))), 0.8)
    p = scores.softmax(-1)[0].double().numpy()
    assert chisquare(frequencies(scores), p / p.sum() * 100_000).pvalue > 0.01
