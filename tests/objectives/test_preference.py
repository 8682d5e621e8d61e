"""Losses of training on text: their definitions in 50 digits, and the optimum of DPO."""

from collections.abc import Callable

import mpmath as mp
import numpy as np
import pytest
import torch
from torch import Tensor

from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.objectives.objective import Objective
from w2s_ray.objectives.preference import implicit_rewards, pair_logits, sft_losses, wspo_losses

DIGITS = 50
STEP = mp.mpf(10) ** -20
Exact = Callable[[list[mp.mpf]], mp.mpf]
REFERENCE = [[-31.5, -44.25], [-7.125, -3.5], [-250.0, -249.5], [-1.5, -1.5]]
LOG_PROBS = [[-30.0, -45.5], [-9.0, -2.25], [-190.0, -310.0], [-1.5, -1.5]]


def gradient(exact: Exact, at: list[float]) -> list[float]:
    """Central differences of a function in 50 digits; no formula of a derivative is used."""
    with mp.workdps(DIGITS):
        point = [mp.mpf(x) for x in at]
        slopes = []
        for i, x in enumerate(point):
            ends = [exact([*point[:i], x + sign * STEP, *point[i + 1 :]]) for sign in (1, -1)]
            slopes.append(float((ends[0] - ends[1]) / (2 * STEP)))
        return slopes


def dpo(beta: float, reference: list[float]) -> Exact:
    """−log σ(β [(log π(A) − log π_ref(A)) − (log π(B) − log π_ref(B))])."""

    def exact(log_probs: list[mp.mpf]) -> mp.mpf:
        margin = (log_probs[0] - reference[0]) - (log_probs[1] - reference[1])
        return mp.log1p(mp.exp(-mp.mpf(beta) * margin))

    return exact


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5, 2.0])
def test_dpo_is_forward_cross_entropy_of_the_pair_logits(beta: float) -> None:
    log_probs = torch.tensor(LOG_PROBS, requires_grad=True)
    logits = pair_logits(log_probs, torch.tensor(REFERENCE), beta)
    losses = Objective("forward_ce")(logits, torch.tensor([[0.0, 1.0]] * len(LOG_PROBS)))
    (own,) = torch.autograd.grad(losses.sum(), log_probs)
    for row, reference in enumerate(REFERENCE):
        exact = dpo(beta, reference)
        with mp.workdps(DIGITS):
            value = float(exact([mp.mpf(x) for x in LOG_PROBS[row]]))
        assert losses[row].item() == pytest.approx(value, rel=1e-6, abs=1e-6)
        assert own[row].tolist() == pytest.approx(gradient(exact, LOG_PROBS[row]), abs=1e-6)


@pytest.mark.parametrize("loss", [n for n, d in DEFINITIONS.items() if d.is_divergence])
def test_every_divergence_moves_a_pair_towards_its_soft_label(loss: str) -> None:
    margin = torch.tensor([[-2.0, -2.0]], requires_grad=True)
    logits = pair_logits(margin, torch.tensor([[-2.0, -2.0]]), 1.0)
    (slope,) = torch.autograd.grad(
        Objective(loss)(logits, torch.tensor([[0.2, 0.8]])).sum(), margin
    )
    assert slope[0, 0] < 0 < slope[0, 1]


def test_wspo_is_the_mean_square_over_tokens_of_each_answer() -> None:
    strong = [[0.5, -1.25, 0.125, 2.0], [3.0, -0.5, 0.0, 0.0]]
    weak = [[0.25, -0.5, 1.0, -0.75], [0.125, 0.5, 0.0, 0.0]]
    counts, beta = [4, 2], 0.3
    log_ratios = torch.tensor(strong, requires_grad=True)
    losses = wspo_losses(log_ratios, torch.tensor(weak), torch.tensor(counts), beta)
    (own,) = torch.autograd.grad(losses.sum(), log_ratios)
    for row, count in enumerate(counts):

        def exact(ratios: list[mp.mpf], row: int = row, count: int = count) -> mp.mpf:
            terms = zip(ratios[:count], weak[row][:count], strict=True)
            return sum((mp.mpf(beta) * s - w) ** 2 for s, w in terms) / count

        with mp.workdps(DIGITS):
            assert losses[row].item() == pytest.approx(float(exact(strong[row])), abs=1e-6)
        assert own[row].tolist() == pytest.approx(gradient(exact, strong[row]), abs=1e-6)


def test_sft_weighted_by_tokens_is_the_mean_over_all_tokens() -> None:
    sums, counts = torch.tensor([-12.0, -3.0]), torch.tensor([10, 2])
    weights = counts / counts.sum()
    assert (sft_losses(sums, counts) * weights).sum().item() == pytest.approx(15 / 12)


def test_the_optimum_of_dpo_is_the_reference_tilted_by_the_reward() -> None:
    """On a language of three answers, with preferences by Bradley and Terry, all pairs trained."""
    beta = 0.7
    reward = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)
    reference = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
    preferred = torch.sigmoid(reward[pairs[:, 0]] - reward[pairs[:, 1]])
    labels = torch.stack([1 - preferred, preferred], dim=1)
    scores = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([scores], max_iter=200, tolerance_grad=1e-12)

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = pair_logits(scores.log_softmax(0)[pairs], reference[pairs], beta)
        total = Objective("forward_ce")(logits, labels).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[arg-type]
    tilted = torch.softmax(reference + reward / beta, dim=0)
    found = scores.detach().softmax(0)
    np.testing.assert_allclose(found.numpy(), tilted.numpy(), atol=1e-3)


def test_an_implicit_reward_is_the_sum_of_those_of_its_tokens() -> None:
    tokens, reference = torch.tensor([-0.5, -2.0, -1.25]), torch.tensor([-1.0, -0.25, -3.0])
    whole = implicit_rewards(tokens.sum(), reference.sum(), 0.1)
    assert float(implicit_rewards(tokens, reference, 0.1).sum()) == pytest.approx(float(whole))
