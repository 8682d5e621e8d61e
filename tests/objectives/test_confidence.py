"""Confidence regularisation: its identities, and the faults of earlier code as claims."""

import json
import math
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from w2s_ray.objectives.confidence import (
    Form,
    ThresholdBuffer,
    alpha,
    confidence_loss,
    hard_targets,
    log_odds,
)
from w2s_ray.objectives.divergence import LOSSES, loss
from w2s_ray.objectives.objective import GROUND_TRUTH, Objective

every_loss = pytest.mark.parametrize("name", LOSSES)
both_forms = pytest.mark.parametrize("form", get_args(Form))


def rows(classes: int = 2, count: int = 64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(count, classes, generator=draw)
    return logits, torch.randn(count, classes, generator=draw).softmax(dim=-1)


def slope(
    objective: Objective, logits: Tensor, labels: Tensor, share: float, threshold: float = 0.0
) -> Tensor:
    logits = logits.detach().requires_grad_()
    value = objective(logits, labels, alpha=share, threshold=threshold)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return gradient


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.75, 1.0])
def test_for_cross_entropy_both_forms_are_the_published_sum(classes: int, share: float) -> None:
    logits, w = rows(classes)
    own = torch.nn.functional.one_hot(logits.argmax(-1), classes).float()
    expected = (1 - share) * loss("forward_ce", logits, w) + share * loss("forward_ce", logits, own)
    target, added = Objective("forward_ce"), Objective("forward_ce", confidence_form="sum")
    torch.testing.assert_close(target(logits, w, alpha=share), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(added(logits, w, alpha=share), expected, rtol=1e-6, atol=1e-6)


def test_the_forms_differ_for_reverse_losses_and_each_is_its_definition() -> None:
    logits, w = rows()
    own = hard_targets(logits, 0.0)
    for name in ("reverse_kl", "reverse_ce"):
        target = Objective(name, confidence_form="target")(logits, w, alpha=0.5)
        added = Objective(name, confidence_form="sum")(logits, w, alpha=0.5)
        assert (target - added).abs().max() > 0.1
        torch.testing.assert_close(target, loss(name, logits, 0.5 * w + 0.5 * own))
        torch.testing.assert_close(
            added, 0.5 * loss(name, logits, w) + 0.5 * loss("forward_ce", logits, own)
        )


@both_forms
def test_forward_kl_keeps_forward_ces_gradient(form: Form) -> None:
    logits, w = rows()
    ce, kl = (Objective(name, confidence_form=form) for name in ("forward_ce", "forward_kl"))
    assert torch.equal(slope(ce, logits, w, 0.4), slope(kl, logits, w, 0.4))


@every_loss
@both_forms
def test_without_confidence_it_is_the_plain_loss_bit_for_bit(name: str, form: Form) -> None:
    logits, w = rows(3)
    objective = Objective(name, confidence_form=form)
    assert torch.equal(objective(logits, w), loss(name, logits, w))


@both_forms
@pytest.mark.parametrize("threshold", [0.0, 1.7])
def test_the_hard_target_carries_no_gradient(form: Form, threshold: float) -> None:
    """The slope of CE against ŝ alone is s - ŝ: nothing flows through ŝ itself."""
    logits, w = rows()
    own = (logits[:, 1] - logits[:, 0] > threshold).float()
    gradient = slope(Objective(confidence_form=form), logits, w, 1.0, threshold)
    torch.testing.assert_close(gradient[:, 1], logits.softmax(-1)[:, 1] - own)


@every_loss
@both_forms
@pytest.mark.parametrize("z", [-1.5, 0.0, 0.4])
def test_the_order_of_a_pair_does_not_matter_even_for_a_fresh_head(
    name: str, form: Form, z: float
) -> None:
    logits, w = torch.tensor([[0.0, z]]), torch.tensor([[0.3, 0.7]])
    objective = Objective(name, confidence_form=form)
    here = objective(logits, w, alpha=0.5)
    turned = objective(-logits, w.flip(-1), alpha=0.5)
    torch.testing.assert_close(here, turned, rtol=1e-6, atol=1e-6)


def test_hard_targets_cut_at_the_threshold_or_take_the_top_class() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 0.5], [0.0, -3.0]])
    assert hard_targets(logits, 0.5)[:, 1].tolist() == [1.0, 0.0, 0.5, 0.0]
    a_threshold_each = torch.tensor([2.0, -2.0, 0.0, -4.0])
    assert hard_targets(logits, a_threshold_each)[:, 1].tolist() == [0.0, 1.0, 1.0, 1.0]
    logits = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, -1.0]])
    assert hard_targets(logits, 99.0).tolist() == [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]


def test_one_alpha_and_threshold_a_row_is_as_many_calls() -> None:
    """So that heads trained together, each with its own ramp, are heads trained alone."""
    logits, w = rows()
    shares, thresholds = torch.linspace(0, 1, 64), torch.linspace(-2, 2, 64)
    for form in get_args(Form):
        objective = Objective("jeffreys", confidence_form=form)
        together = objective(logits, w, alpha=shares, threshold=thresholds)
        for row in range(64):
            one, share, t = slice(row, row + 1), float(shares[row]), float(thresholds[row])
            alone = objective(logits[one], w[one], alpha=share, threshold=t)
            torch.testing.assert_close(together[one], alone, rtol=1e-6, atol=1e-6)


def test_clip_and_parameters_reach_the_loss_in_both_forms() -> None:
    logits, w = rows()
    options = {"a": 2.0, "b": 3.0, "label_clip": 0.2}
    for form in get_args(Form):
        share = {"alpha": 0.0, "form": form}
        ours = confidence_loss("symmetric_ce", logits, w, **share, **options)
        assert torch.equal(ours, loss("symmetric_ce", logits, w, **options))


def test_labels_are_mixed_unless_the_form_says_sum() -> None:
    logits, w = rows()
    default = confidence_loss("reverse_kl", logits, w, alpha=0.5)
    assert torch.equal(default, confidence_loss("reverse_kl", logits, w, alpha=0.5, form="target"))


def test_any_float_type_of_alpha_gives_float32() -> None:
    logits, w = rows()
    for form in get_args(Form):
        both = [
            confidence_loss("jeffreys", logits, w, alpha=share, form=form)
            for share in (torch.tensor(0.25, dtype=torch.float64), 0.25)
        ]
        assert both[0].dtype == torch.float32 and torch.equal(*both)


# --- the ramp ---


@given(
    total=st.integers(1, 5000),
    weight=st.floats(0, 1),
    warmup=st.floats(0, 1),
)
def test_alpha_rises_without_a_jump_and_stays(total: int, weight: float, warmup: float) -> None:
    objective = Objective(confidence_weight=weight, confidence_warmup=warmup)
    ramp = [objective.alpha(step, total) for step in range(min(total, 300))]
    assert all(0 <= share <= weight for share in ramp)
    if warmup * total > 0:
        assert ramp[0] == 0
        rise = weight / (warmup * total)
        steps = np.diff(ramp)
        assert (steps >= 0).all()
        assert (steps <= rise * (1 + 1e-6) + 1e-12).all()
    assert objective.alpha(math.ceil(warmup * total), total) == weight


def test_nothing_happens_at_ten_per_cent() -> None:
    """Earlier code jumped there from 0.05 to 0.5."""
    around = [alpha(step, 1000, 0.5, 0.2) for step in (99, 100, 101, 200, 999)]
    assert around == pytest.approx([0.2475, 0.25, 0.2525, 0.5, 0.5])


# --- the threshold ---


def test_a_batch_of_one_is_not_always_class_1() -> None:
    """A quantile over a micro-batch of one returns its own element: always "1" in earlier code."""
    draw = torch.Generator().manual_seed(0)
    buffer, ones = ThresholdBuffer(prior=0.3), []
    for _ in range(2000):
        logits = torch.stack((torch.zeros(1), torch.randn(1, generator=draw) + 5), dim=-1)
        ones.append(hard_targets(logits, buffer.threshold)[0, 1].item())
        buffer.update(log_odds(logits))
    assert set(ones) == {0.0, 1.0}
    assert np.mean(ones[256:]) == pytest.approx(0.3, abs=0.03)


@given(
    z=st.lists(st.integers(-999, 999), min_size=10, max_size=10, unique=True),
    tenths=st.integers(1, 9),
)
def test_exactly_the_prior_lies_above_the_threshold(z: list[int], tenths: int) -> None:
    buffer = ThresholdBuffer(tenths / 10)
    buffer.update(torch.tensor(z))
    logits = torch.tensor([[0.0, float(margin)] for margin in z])
    assert hard_targets(logits, buffer.threshold).sum(dim=0).tolist() == [10 - tenths, tenths]


@given(cuts=st.lists(st.integers(0, 24), max_size=5), seed=st.integers(0, 9))
def test_gradient_and_threshold_do_not_depend_on_the_micro_batch(
    cuts: list[int], seed: int
) -> None:
    logits, w = rows(count=24)
    whole, pieces = ThresholdBuffer(0.4, capacity=30), ThresholdBuffer(0.4, capacity=30)
    objective = Objective("reverse_kl", confidence_form="target")
    edges = [0, *sorted(cuts), 24]
    for step in range(4):
        moved = logits + step
        at_once = objective(moved, w, alpha=0.5, threshold=whole.threshold)
        parts = [
            objective(moved[a:b], w[a:b], alpha=0.5, threshold=pieces.threshold)
            for a, b in pairwise(edges)
        ]
        torch.testing.assert_close(torch.cat(parts), at_once, rtol=1e-6, atol=1e-6)
        z = log_odds(moved)
        whole.update(z)
        pieces.update(z[torch.randperm(24, generator=torch.Generator().manual_seed(seed))])
        assert whole.threshold == pieces.threshold


def test_old_predictions_are_forgotten_and_memory_is_bounded() -> None:
    buffer = ThresholdBuffer(0.5, capacity=32)
    assert buffer.threshold == 0.0
    for step in range(100):
        buffer.update(torch.full((16,), float(step)))
    assert buffer.state_dict() == {"steps": [[98.0] * 16, [99.0] * 16]}
    buffer.update(torch.full((500,), 7.0))
    assert buffer.threshold == 7.0, "a step larger than the buffer is still remembered whole"
    buffer = ThresholdBuffer(0.5)
    for step in range(300):
        buffer.update(torch.full((1,), float(step)))
    assert buffer.state_dict() == {"steps": [[float(step)] for step in range(44, 300)]}, "256"


def test_a_resumed_buffer_goes_on_bit_for_bit() -> None:
    draw = torch.Generator().manual_seed(1)
    straight, resumed = ThresholdBuffer(0.37, 50), ThresholdBuffer(0.37, 50)
    for _ in range(9):
        straight.update(torch.randn(7, generator=draw))
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    for _ in range(9):
        assert resumed.threshold == straight.threshold
        z = torch.randn(7, generator=draw)
        straight.update(z)
        resumed.update(z)


def test_a_prior_is_a_probability() -> None:
    with pytest.raises(ValueError, match=r"prior 1\.5"):
        ThresholdBuffer(1.5)
    for prior, threshold in ((0.0, 3.0), (1.0, -2.0)):
        buffer = ThresholdBuffer(prior)
        buffer.update(torch.tensor([-2.0, 0.0, 3.0]))
        assert buffer.threshold == threshold, "nothing lies above, or nothing below"


# --- the objective ---


def test_ground_truth_is_plain_cross_entropy_on_one_hot_labels() -> None:
    logits, _ = rows(5)
    classes = torch.arange(64) % 5
    ours = GROUND_TRUTH(logits, torch.nn.functional.one_hot(classes, 5).float())
    theirs = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(ours, theirs)
    assert GROUND_TRUTH.alpha(10**6, 10**6) == 0.0


def test_an_objective_is_a_value_and_passes_its_parameters_on() -> None:
    objective = Objective("symmetric_ce", (("a", 2.0), ("b", 3.0)), label_clip=0.1)
    assert (
        len({objective, Objective("symmetric_ce", (("a", 2.0), ("b", 3.0)), label_clip=0.1)}) == 1
    )
    logits, w = rows()
    expected = loss("symmetric_ce", logits, w, a=2.0, b=3.0, label_clip=0.1)
    assert torch.equal(objective(logits, w), expected)


def test_the_weak_label_decides_the_case_of_a_loss_before_it_is_mixed() -> None:
    """α = 0.9 mixes every label into a confident one, of 0.95 at least."""
    logits = torch.tensor([[0.0, 3.0], [0.0, 3.0]])
    weak = torch.tensor([[0.45, 0.55], [0.05, 0.95]])
    mixed = torch.lerp(weak, torch.tensor([[0.0, 1.0]]).expand(2, 2), 0.9)
    ours = confidence_loss("confidence_adaptive_ce", logits, weak, alpha=0.9)
    assert ours[0] == loss("reverse_ce", logits, mixed)[0], "the weak label is unsure"
    assert ours[1] == loss("forward_ce", logits, mixed)[1]
    plain = confidence_loss("confidence_adaptive_ce", logits, weak, alpha=0.0)
    assert torch.equal(plain, loss("confidence_adaptive_ce", logits, weak))
