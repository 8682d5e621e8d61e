"""Stacked adapters are peft's: the same names, values and logits, and gradients that do not mix."""

import pytest
import torch
from torch import nn

from tests.testing.tiny_models import ARCHITECTURES, line, tiny
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.stacked_lora import StackedLora, StackedScorer
from w2s_ray.models.trainable import load_state, set_trainable, trainable_state
from w2s_ray.spec.schema import Lora

LORA = Lora(rank=2, alpha=3.0)
PAIRS = line([[5, 9], [200, 31, 7], [8]], [[12, 0, 0], [256], [3, 4]], [[], [77, 3], [1, 2, 3]])
TEXTS = line([[], [5, 9, 200, 31]], [[7], [8]], [[], [12, 0, 0, 256, 3, 4]])

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def scorer(architecture, per_row=2, precision="fp32", *, shared=True, seed=4):
    backbone = tiny(architecture, precision).module
    if not shared:
        backbone.config._attn_implementation = "sdpa"
    made = Scorer(backbone, 32, 2, per_row, seed=1)
    set_trainable(made, "lora", LORA, seed)
    return made


def stack_of(cells, *arguments, **keywords):
    """A stack whose cells have all gone different ways."""
    stack = StackedScorer(scorer(*arguments, **keywords), cells)
    noise = torch.randn(stack.weights.shape, generator=torch.Generator().manual_seed(0))
    stack.weights += 0.1 * noise
    return stack


@architectures
@pytest.mark.parametrize("per_row", [1, 2])
def test_every_cell_begins_as_what_peft_made(architecture, per_row):
    alone = trainable_state(scorer(architecture, per_row))
    stack = StackedScorer(scorer(architecture, per_row), 3)
    for cell in range(3):
        state = stack.state(cell)
        assert list(state) == list(alone)
        assert all(torch.equal(state[name], alone[name]) for name in alone)


@pytest.mark.long
@architectures
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("per_row", "given"), [(1, TEXTS), (2, PAIRS)])
def test_logits_and_gradients_are_those_of_the_scorer_with_that_state(
    architecture, shared, per_row, given
):
    stack = stack_of(3, architecture, per_row, shared=shared)
    logits = stack.logits(*given)
    stack.backward((logits * torch.tensor([1.0, -2.0, 0.5])[:, None, None]).square().sum())
    with torch.no_grad():
        torch.testing.assert_close(stack.logits(*given), logits, rtol=1e-5, atol=1e-5)
    for cell, factor in enumerate((1.0, -2.0, 0.5)):
        alone = scorer(architecture, per_row, shared=shared)
        load_state(alone, stack.state(cell))
        expected = alone(*given)
        torch.testing.assert_close(logits[cell], expected, rtol=1e-5, atol=1e-5)
        (factor * expected).square().sum().backward()
        slopes = torch.cat([p.grad.flatten() for p in alone.parameters() if p.requires_grad])
        apart = (stack.gradient[cell] - slopes).norm() / slopes.norm()
        assert apart < 1e-5


def test_gradients_of_micro_batches_add_up():
    stack = stack_of(2, "llama")
    stack.backward(stack.logits(*PAIRS).square().sum())
    whole = stack.gradient.clone()
    stack.gradient.zero_()
    rows = torch.split(PAIRS[0], PAIRS[1].sum(dim=1).tolist())
    for ids, segments in zip(rows, PAIRS[1], strict=True):
        stack.backward(stack.logits(ids, segments[None]).square().sum())
    assert (stack.gradient - whole).norm() / whole.norm() < 1e-5


@architectures
def test_no_gradient_crosses_cells_even_if_it_is_not_a_number(architecture):
    stack = stack_of(3, architecture)
    stack.backward(stack.logits(*PAIRS)[[0, 2]].square().sum())
    assert not stack.gradient[1].any()
    assert stack.gradient[[0, 2]].any(dim=1).all()
    expected = stack.gradient[[0, 2]].clone()
    stack.gradient.zero_()
    stack.weights[1] = float("nan")
    logits = stack.logits(*PAIRS)
    stack.backward(logits.square().sum())
    assert logits[1, :, 1].isnan().all()
    assert torch.equal(stack.gradient[[0, 2]], expected)


@architectures
def test_the_backbone_keeps_its_weights_and_takes_no_gradient(architecture):
    before = dict(tiny(architecture).module.state_dict())
    stack = stack_of(2, architecture)
    stack.backward(stack.logits(*PAIRS).square().sum())
    after = {
        name.replace(".base.", "."): tensor
        for name, tensor in stack.backbone.state_dict().items()
        if not name.endswith((".up", ".down"))
    }
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(p.grad is None for p in stack.backbone.parameters())


@pytest.mark.parametrize("tokens", [1, 300, 1500])
def test_a_layer_is_its_formula_and_so_are_its_gradients(tokens):
    """In float64, where the written backward pass must agree with autograd to 12 digits; with more
    tokens than are taken at one time, and fewer."""
    base = nn.Linear(6, 5, dtype=torch.float64).requires_grad_(False)
    down, up = (nn.Parameter(torch.randn(3, *shape).double()) for shape in ((2, 6), (5, 2)))
    x = torch.randn(3, tokens, 6, dtype=torch.float64, requires_grad=True)
    leaves = [x, down, up]
    ours = StackedLora(base, down, up, 1.7)(x)
    theirs = base(x) + 1.7 * torch.einsum("cti,cri,cor->cto", x, down, up)
    torch.testing.assert_close(ours, theirs)
    slope = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, leaves, slope),
        torch.autograd.grad(theirs, leaves, slope),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@architectures
def test_a_bf16_backbone_is_rounded_where_peft_rounds_it(architecture):
    """The adapters' sums differ in the eighth digit, so now and then a state of 8 bits is rounded
    the other way, which no later layer takes back; hence the norm, and two digits."""
    stack = stack_of(2, architecture, precision="bf16")
    assert {row.dtype for row in stack.weights} == {torch.float32}
    logits = stack.logits(*PAIRS).detach()
    for cell in range(2):
        alone = scorer(architecture, precision="bf16")
        load_state(alone, stack.state(cell))
        expected = alone(*PAIRS).detach()
        assert (logits[cell] - expected).norm() < 0.02 * expected.norm()


def test_a_state_is_a_copy():
    stack = stack_of(2, "llama")
    state = stack.state(0)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    stack.weights.zero_()
    assert all(torch.equal(state[name], kept[name]) for name in state)
