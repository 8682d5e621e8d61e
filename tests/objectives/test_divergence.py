"""The facts of the loss family: identities, the table of gradients, extremes, other libraries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.special import log_softmax
from scipy.stats import entropy
from torch import Tensor

from tests.objectives.reference_losses import REFERENCES, Array, Pairs
from w2s_ray.objectives.divergence import LOSSES, loss
from w2s_ray.objectives.names import DEFINITIONS

GAMMA = 1e-3
DIVERGENCES = [name for name, definition in DEFINITIONS.items() if definition.is_divergence]
every_loss = pytest.mark.parametrize("name", LOSSES)


def pair(z: ArrayLike) -> Tensor:
    """A preference pair's logits (0, z), as float32."""
    margin = torch.tensor(np.atleast_1d(z), dtype=torch.float32)
    return torch.stack((torch.zeros_like(margin), margin), dim=-1)


def two(w: ArrayLike) -> Tensor:
    """A preference pair's label (1 - w, w), as float32."""
    preferred = torch.tensor(np.atleast_1d(w), dtype=torch.float32)
    return torch.stack((1 - preferred, preferred), dim=-1)


def slope(name: str, logits: Tensor, soft_labels: Tensor, **parameters: float) -> Tensor:
    logits = logits.detach().requires_grad_()
    value = loss(name, logits, soft_labels, **parameters)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return gradient


def clipped(w: Array) -> Array:
    inside: Array = np.clip(w, GAMMA, 1 - GAMMA)
    inside /= inside.sum()
    return inside


@st.composite
def distributions(draw: st.DrawFn) -> tuple[Array, Array]:
    """Logits (K,) and a label (K,) that may hold exact zeros, for K from 2 to 7."""
    classes = draw(st.integers(2, 7))
    numbers = st.floats(-6, 6, width=32)
    logits = np.array(draw(st.lists(numbers, min_size=classes, max_size=classes)))
    weights = st.one_of(st.just(0.0), st.floats(0.01, 1))
    raw = np.array(draw(st.lists(weights, min_size=classes, max_size=classes).filter(any)))
    return logits, raw / raw.sum()


_draw = np.random.default_rng(0)
Z = _draw.uniform(-8, 8, 2000).astype(np.float32).astype(np.float64)
W = _draw.uniform(0.02, 0.98, 2000).astype(np.float32).astype(np.float64)


def test_every_loss_has_a_reference_and_every_divergence_a_bound() -> None:
    assert list(REFERENCES) == list(DEFINITIONS)
    bounded = [name for name, reference in REFERENCES.items() if reference.squared_tv is not None]
    assert bounded == DIVERGENCES


@every_loss
@given(case=distributions())
@settings(max_examples=60)
def test_value_is_that_of_other_libraries(name: str, case: tuple[Array, Array]) -> None:
    logits, w = case
    ours = loss(name, torch.tensor(logits[None]), torch.tensor(w[None])).item()
    theirs = REFERENCES[name].value(np.exp(log_softmax(logits)), w, clipped(w))
    assert ours == pytest.approx(float(np.asarray(theirs)), rel=1e-7, abs=1e-10)


@every_loss
def test_gradient_is_the_tables_closed_form_and_float64_autograds(name: str) -> None:
    closed = REFERENCES[name].gradient(Pairs(Z, W))
    z = torch.tensor(Z, requires_grad=True)
    s = torch.stack((torch.sigmoid(-z), torch.sigmoid(z)), dim=-1)
    value = REFERENCES[name].formula(s, torch.tensor(np.stack((1 - W, W), axis=-1)))
    (automatic,) = torch.autograd.grad(value.sum(), z)
    np.testing.assert_allclose(automatic.numpy(), closed, rtol=1e-9, atol=1e-11)

    ours = slope(name, pair(Z), two(W))
    np.testing.assert_allclose(ours[:, 1].numpy(), closed, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(ours[:, 0], -ours[:, 1], rtol=2e-6, atol=2e-6)


def test_why_reverse_losses_resist_flipped_labels_late_but_pull_harder_early() -> None:
    late, early, flipped = pair(4.6), pair(0.0), two(0.01)

    def pull(name: str, logits: Tensor) -> float:
        return float(slope(name, logits, flipped)[0, 1])

    assert pull("forward_ce", late) == pytest.approx(0.98, abs=5e-3)
    assert pull("reverse_kl", late) == pytest.approx(0.091, abs=5e-4)
    assert pull("reverse_ce", late) == pytest.approx(0.045, abs=5e-4)
    assert pull("forward_ce", early) == pytest.approx(0.49, abs=5e-3)
    assert pull("reverse_kl", early) == pytest.approx(1.15, abs=5e-3)
    assert pull("reverse_ce", early) == pytest.approx(1.15, abs=5e-3)


@pytest.mark.parametrize("name", DIVERGENCES)
@given(case=distributions())
@settings(max_examples=60)
def test_a_divergence_is_zero_where_s_is_w_and_only_there(
    name: str, case: tuple[Array, Array]
) -> None:
    logits, w = case
    target = clipped(w) if DEFINITIONS[name].clips_label else w
    away = np.abs(np.exp(log_softmax(logits)) - target).sum() / 2
    value = loss(name, torch.tensor(logits[None]), torch.tensor(w[None])).item()
    bound = REFERENCES[name].squared_tv
    assert bound is not None
    assert value >= bound * away**2 * (1 - 1e-4) - 3e-7

    with np.errstate(divide="ignore"):
        equal = torch.tensor(np.maximum(np.log(target), -1e4)[None], dtype=torch.float32)
    labels = torch.tensor(w[None])
    assert abs(loss(name, equal, labels).item()) < 1e-6
    assert slope(name, equal, labels).abs().max() < 1e-5 or name == "total_variation"


@every_loss
def test_a_loss_vanishes_at_the_label_only_if_it_is_a_divergence(name: str) -> None:
    at_w = loss(name, pair(math.log(0.7 / 0.3)), two(0.7)).item()
    assert (abs(at_w) < 1e-6) == DEFINITIONS[name].is_divergence


def test_reverse_ce_is_no_divergence_and_is_least_at_the_hard_guess() -> None:
    w = two(0.7)
    at_w = loss("reverse_ce", pair(math.log(0.7 / 0.3)), w)
    hard = loss("reverse_ce", pair(50.0), w)
    assert 0 < hard < at_w
    assert (slope("reverse_ce", pair(np.linspace(-9, 9, 99)), w)[:, 1] < 0).all()


@every_loss
@given(z=st.floats(-1e4, 1e4, width=32), w=st.floats(0, 1, width=32))
@settings(max_examples=60)
def test_the_order_of_a_pair_does_not_matter(name: str, z: float, w: float) -> None:
    this, turned = loss(name, pair(z), two(w)), loss(name, pair(-z), two(w).flip(-1))
    torch.testing.assert_close(this, turned, rtol=1e-5, atol=1e-6)
    here, there = slope(name, pair(z), two(w)), slope(name, pair(-z), two(w).flip(-1))
    torch.testing.assert_close(here, there.flip(-1), rtol=1e-4, atol=1e-6)


@given(case=distributions())
@settings(max_examples=60)
def test_forward_kl_has_forward_ces_gradient_bit_for_bit_at_hard_labels_too(
    case: tuple[Array, Array],
) -> None:
    logits, w = torch.tensor(case[0][None]), torch.tensor(case[1][None])
    assert torch.equal(slope("forward_ce", logits, w), slope("forward_kl", logits, w))
    entropy_w = loss("forward_ce", logits, w) - loss("forward_kl", logits, w)
    assert entropy_w.item() == pytest.approx(entropy(case[1]), abs=1e-5)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 5])
def test_value_and_gradient_are_finite_at_the_extremes(
    name: str, dtype: torch.dtype, classes: int
) -> None:
    sizes = torch.tensor([-1e4, -104.0, -88.8, -30.0, -1.0, 0.0, 1.0, 30.0, 88.8, 104.0, 1e4])
    logits = torch.cartesian_prod(*[sizes] * 2)
    logits = torch.nn.functional.pad(logits, (0, classes - 2))
    one = torch.eye(classes)
    tiny = torch.tensor([1e-45, 1e-20, 1e-7]).reshape(-1, 1)
    labels = torch.cat((one, one.mean(0, keepdim=True), tiny * one[1] + (1 - tiny) * one[0]))
    rows = logits.repeat_interleave(len(labels), dim=0).to(dtype)
    targets = labels.repeat(len(logits), 1).to(dtype)
    value, gradient = loss(name, rows, targets), slope(name, rows, targets)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.float().square().sum().isfinite(), "Adam keeps squares, clipping their sum"


@every_loss
def test_a_bf16_model_is_judged_in_float32(name: str) -> None:
    logits, w = pair(Z[:99]).bfloat16(), two(W[:99])
    assert torch.equal(loss(name, logits, w), loss(name, logits.float(), w))


def test_neyman_goes_on_along_its_tangent_without_a_jump_and_never_flattens() -> None:
    """The change is where w/s = 1e12, so at z = -27.6; a step of 0.01 moves both by 1 %."""
    z = np.linspace(-60.0, 0.0, 6001)
    value = loss("neyman_chi2", pair(z), two(1.0)).double()
    gradient = slope("neyman_chi2", pair(z), two(1.0))[:, 1].double()
    assert (value.diff() <= 0).all()
    assert (gradient < 0).all()
    change = (z[:-1] < -27) & (z[:-1] > -28)
    assert (value.diff() / value[:-1]).abs()[change].max() < 0.011
    assert (gradient.diff() / gradient[:-1]).abs()[change].max() < 0.011
    far = slope("neyman_chi2", pair([-100.0, -1000.0, -1e4]), two(1.0))[:, 1]
    torch.testing.assert_close(far, torch.full((3,), -1e12), rtol=1e-5, atol=0)
    below = loss("neyman_chi2", pair(-27.0), two(1.0)).item()
    assert below == pytest.approx(math.exp(27.0), rel=1e-4), "(s - 1)²/s + s² / (1 - s)"


def test_neyman_is_one_number_from_both_sides_of_the_change() -> None:
    """Σ (s - w)²/s is s (u - 1)² = w (u - 2) + s of the class with u = w/s; at 1e12 both meet."""
    for log_ratio in (math.log(1e12) - 1e-9, math.log(1e12) + 1e-9):
        s = 0.5 / math.exp(log_ratio)
        logits = torch.tensor([[math.log(s), math.log1p(-s)]], dtype=torch.float64)
        value = loss("neyman_chi2", logits, torch.full((1, 2), 0.5, dtype=torch.float64)).item()
        exact = 0.5 * (math.exp(log_ratio) - 2.0) + s + (0.5 - s) ** 2 / (1 - s)
        assert value == pytest.approx(exact, rel=2e-13, abs=0)


def test_labels_are_constants_and_leading_shapes_are_free() -> None:
    logits, labels = torch.randn(3, 4, 5), torch.rand(3, 4, 5).softmax(-1).requires_grad_()
    for name in LOSSES:
        value = loss(name, logits.requires_grad_(), labels)
        flat = loss(name, logits.reshape(12, 5), labels.reshape(12, 5))
        assert torch.equal(value.flatten(), flat)
        (into_labels,) = torch.autograd.grad(value.sum(), labels, allow_unused=True)
        assert into_labels is None
    unsure = torch.tensor([0.6, 0.4])  # K is 2, however long the other dimensions are
    for name in LOSSES:
        value = loss(name, torch.zeros(3, 60, 2), unsure.expand(3, 60, 2), label_clip=0.05)
        one = loss(name, torch.zeros(1, 2), unsure[None], label_clip=0.05)
        torch.testing.assert_close(value, one.expand(3, 60))


def test_the_logits_decide_the_precision() -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        logits, labels = torch.tensor([[0.0, 1.5]], dtype=dtype), torch.tensor([[0.25, 0.75]])
        expected = torch.float64 if dtype == torch.float64 else torch.float32
        for name in LOSSES:
            for labels_dtype in (torch.float32, torch.float64):
                value = loss(name, logits, labels.to(labels_dtype))
                assert value.dtype == expected, (name, dtype, labels_dtype)


def test_parameters_and_clip_count() -> None:
    logits, w = pair([-1.0, 2.0]), two([0.02, 0.6])
    forward, reverse = loss("forward_ce", logits, w), loss("reverse_ce", logits, w)
    torch.testing.assert_close(loss("symmetric_ce", logits, w), forward + 0.1 * reverse)
    torch.testing.assert_close(
        loss("symmetric_ce", logits, w, a=2.0, b=3), 2 * forward + 3 * reverse
    )
    assert torch.equal(loss("confidence_adaptive_ce", logits, w, c=0.0), forward)
    assert torch.equal(loss("confidence_adaptive_ce", logits, w, c=0.51), reverse)
    unsure, sure = torch.tensor([[0.45, 0.30, 0.25]]), torch.tensor([[0.6, 0.3, 0.1]])
    for label, case in ((unsure, "reverse_ce"), (sure, "forward_ce")):
        ours = loss("confidence_adaptive_ce", torch.ones(1, 3), label)
        assert torch.equal(ours, loss(case, torch.ones(1, 3), label)), "far from 1/K, not from 1/2"
    just = loss("confidence_adaptive_ce", pair(1.0), two(0.75))  # |w - 1/2| is c, 0.25
    assert torch.equal(just, loss("forward_ce", pair(1.0), two(0.75)))
    clips = {n for n, d in DEFINITIONS.items() if d.clips_label} | {"symmetric_ce"}
    for name in LOSSES:
        moved = loss(name, logits, w, label_clip=0.1) != loss(name, logits, w)
        assert moved.tolist() == [name in clips, False], "only a label outside of the clip moves"


def test_mistakes_are_named() -> None:
    logits, w = pair(0.0), two(0.5)
    with pytest.raises(ValueError, match="'kl' is not one of forward_ce, forward_kl"):
        loss("kl", logits, w)
    with pytest.raises(ValueError, match="no parameter a, b"):
        loss("forward_ce", logits, w, a=1.0, b=1.0)
    for gamma in (0.0, 0.5, -1.0, math.nan):
        with pytest.raises(ValueError, match="label_clip"):
            loss("reverse_kl", logits, w, label_clip=gamma)


def test_families_with_a_parameter_hold_the_losses_that_are_their_limits() -> None:
    logits, w = pair(Z[:200]).double(), two(W[:200]).double()
    forward, reverse = loss("forward_kl", logits, w), loss("reverse_kl", logits, w)
    middle = loss("generalised_jensen_shannon", logits, w, b=0.5)
    torch.testing.assert_close(middle, loss("jensen_shannon", logits, w), rtol=1e-9, atol=0)
    middle = loss("alpha_divergence", logits, w, a=0.5)
    torch.testing.assert_close(middle, 4 * loss("squared_hellinger", logits, w))
    for name, parameter in (("generalised_jensen_shannon", "b"), ("alpha_divergence", "a")):
        near = {p: loss(name, logits, w, **{parameter: p}) for p in (1e-6, 1 - 1e-6)}
        scale = 1e-6 if parameter == "b" else 1.0
        torch.testing.assert_close(near[1e-6] / scale, forward, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(near[1 - 1e-6] / scale, reverse, rtol=1e-3, atol=1e-6)


def test_the_product_loss_pulls_the_prediction_towards_its_product_with_the_label() -> None:
    logits, w = pair(Z[:200]), two(W[:200])
    alone = loss("product_loss", logits, w, b=0.0)
    torch.testing.assert_close(alone, loss("forward_ce", logits, w))
    assert (slope("product_loss", logits, w, a=0.0).abs() < 1e-6).all(), "its own prediction"
    pull = slope("product_loss", logits, w, a=2.0, b=0.5)[:, 1].double().numpy()
    target = 1 / (1 + np.exp(-0.5 * Z[:200]) * ((1 - W[:200]) / W[:200]) ** 2)
    np.testing.assert_allclose(pull, 1 / (1 + np.exp(-Z[:200])) - target, atol=2e-6)
