"""Which parameters move, and that their state is all that must be stored."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from tests.testing.tiny_models import ARCHITECTURES, texts, tiny
from w2s_ray.errors import InputError
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.trainable import load_state, set_trainable, trainable_state
from w2s_ray.spec.schema import Lora

INPUT = texts([5, 9, 200, 31], [7, 8], [12, 0, 0, 256, 3, 4], [1])
LORA = Lora(rank=2, alpha=4.0)


def scorer(architecture: str, trainable: str, precision: str = "fp32", seed: int = 0) -> Scorer:
    made = Scorer(tiny(architecture, precision).module, 32, 2, 1, seed=1)
    set_trainable(made, trainable, LORA, seed)
    return made


def train(model: Scorer) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(2):  # an adapter's first factor moves once its second has left 0
        optimizer.zero_grad()
        (model(*INPUT) - 3).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("trainable", ["full", "last_layer", "lora"])
def test_what_is_named_moves_and_nothing_else(architecture: str, trainable: str) -> None:
    model = scorer(architecture, trainable)
    before = {name: p.clone() for name, p in model.named_parameters()}
    train(model)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    head = {"head.weight"}
    adapters = {name for name in before if "lora_" in name}
    expected = {"full": set(before), "last_layer": head, "lora": head | adapters}[trainable]
    assert moved == expected == set(trainable_state(model))
    assert bool(adapters) == (trainable == "lora")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_layer_gets_an_adapter(architecture: str) -> None:
    linear = {
        name
        for name, module in tiny(architecture).module.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    adapted = {
        name
        for name, module in scorer(architecture, "lora").backbone.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert adapted == linear
    assert adapted


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fresh_adapters_change_nothing_and_come_from_their_seed(architecture: str) -> None:
    plain = scorer(architecture, "last_layer")(*INPUT)
    state = torch.random.get_rng_state()
    first, again, other = (scorer(architecture, "lora", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    torch.testing.assert_close(first(*INPUT), plain)
    one, same, two = (trainable_state(model) for model in (first, again, other))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("trainable", ["full", "last_layer", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stored_state_brings_the_model_back(
    architecture: str, trainable: str, precision: str
) -> None:
    trained = scorer(architecture, trainable, precision)
    train(trained)
    state = trainable_state(trained)
    fresh = scorer(architecture, trainable, precision, seed=9)
    assert not torch.equal(fresh(*INPUT), trained(*INPUT))
    load_state(fresh, state)
    assert torch.equal(fresh(*INPUT), trained(*INPUT))
    train(trained)  # the state is a copy
    load_state(fresh, state)
    assert not torch.equal(fresh(*INPUT), trained(*INPUT))


def test_adapters_are_fp32_on_a_bf16_backbone() -> None:
    state = trainable_state(scorer("gpt2", "lora", "bf16"))
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_target_modules_is_a_regular_expression_that_must_match() -> None:
    made = Scorer(tiny("llama").module, 32, 2, 2)
    set_trainable(made, "lora", Lora(target_modules=r".*layers\.[12]\.mlp\.up_proj"), 0)
    adapters = [name for name in trainable_state(made) if "lora_A" in name]
    assert adapters == [f"backbone.layers.{i}.mlp.up_proj.lora_A.default.weight" for i in (1, 2)]
    with pytest.raises(InputError, match=r"training\.lora\.target_modules"):
        set_trainable(
            Scorer(tiny("llama").module, 32, 2, 2), "lora", Lora(target_modules="c_attn"), 0
        )


def test_a_state_of_something_else_is_refused() -> None:
    full = trainable_state(scorer("llama", "full"))
    with pytest.raises(ValueError, match="names differ"):
        load_state(scorer("llama", "last_layer"), full)
    head = trainable_state(scorer("llama", "last_layer"))
    with pytest.raises(ValueError, match=r"head\.weight is \(2, 5\)"):
        load_state(scorer("llama", "last_layer"), {**head, "head.weight": torch.zeros(2, 5)})
