"""Times are operations that torch counts and bytes that hardware can move."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel

from w2s_ray.capacity import speed
from w2s_ray.capacity.gpu_types import gpu_type
from w2s_ray.capacity.speed import flops_per_token, seconds_per_update
from w2s_ray.catalog.shapes import Shape, shape_of

CONFIGS = Path(__file__).parents[1] / "catalog" / "configs"
H100 = gpu_type("H100")
TOKENS = 128


def counted(module: LlamaModel, trainable: str) -> float:
    """Operations a token of forward and backward over one row, by torch's own count."""
    module.requires_grad_(trainable == "full")
    inputs = module.embed_tokens(torch.arange(TOKENS)[None]).detach().requires_grad_()
    # torch would stop a recomputation before its last product, which makes 5 % of so small a block
    with FlopCounterMode(display=False) as counter, set_checkpoint_early_stop(False):
        module(inputs_embeds=inputs, use_cache=False).last_hidden_state.sum().backward()
    return float(counter.get_total_flops()) / TOKENS


@pytest.mark.parametrize("trainable", ["full", "lora"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_operations_are_those_that_torch_counts(trainable: str, recomputed: bool) -> None:
    """LoRA's adapters are left out, so it is counted as a model whose weights are frozen."""
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=192, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    config._attn_implementation = "eager"
    module = LlamaModel(config)
    if recomputed:
        module.activation_checkpointing_enable()
        module.train()
    model = shape_of(config.to_dict())
    predicted = flops_per_token(model, TOKENS, trainable=trainable, recomputed=recomputed)
    # Eager attention computes the half above the diagonal too, which a causal kernel leaves out.
    no_attention = flops_per_token(model, 0, trainable=trainable, recomputed=recomputed)
    attention = predicted - no_attention
    if trainable == "lora":  # attention has no weights: its backward is whole, and not counted so
        attention *= 4 / 3 if recomputed else 3 / 2
    assert no_attention + 2 * attention == pytest.approx(counted(module, trainable), rel=0.01)


def seven_billion() -> Shape:
    return shape_of(json.loads((CONFIGS / "Qwen2.5-7B.json").read_text()))


def update(**options: Any) -> float:
    """Seconds of an update of 7B weights on an H100 over so few tokens that only bytes count."""
    return seconds_per_update(
        seven_billion(), H100, precision="bf16", tokens=1, row_tokens=1, **options
    )


def test_an_offloaded_update_is_as_slow_as_the_link_to_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fp32 gradients go down and bf16 weights come up: 6 bytes a weight, over PCIe.

    16 lanes of PCIe 4 move 31.5 GB/s by their specification, those of PCIe 3 some 12 GB/s in use;
    host memory is taken to be infinitely fast here.
    """
    monkeypatch.setattr(speed, "HOST_MEMORY", math.inf)
    monkeypatch.setattr(speed, "MACHINE_MEMORY", math.inf)
    link = update(offload="optimizer") - update(trainable="lora")
    sent = 6 * seven_billion().parameters
    assert sent / 31.5e9 < link < sent / 12e9


def test_an_offloaded_update_is_as_slow_as_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam reads and writes master weight and two moments: 30 bytes a weight with its gradient.

    A socket's eight channels of DDR4-3200 move 205 GB/s, one channel 25.6; a process has some.
    """
    monkeypatch.setattr(speed, "HOST_LINK", math.inf)
    memory = update(offload="optimizer") - update(trainable="lora")
    moved = 30 * seven_billion().parameters
    assert moved / 205e9 < memory < moved / 25.6e9


def test_a_second_micro_batch_adds_to_the_sums_in_host_memory() -> None:
    """The sums so far come up and go down again, 8 bytes a weight; offloaded weights come twice."""
    own: dict[str, Any] = {"precision": "bf16", "row_tokens": 1, "micro_batch_tokens": 1}
    model, sent = seven_billion(), {}
    for offload, tokens in (
        ("optimizer", 1),
        ("optimizer", 2),
        ("parameters", 1),
        ("parameters", 2),
    ):
        plain = seconds_per_update(model, H100, tokens=tokens, **own)
        sent[offload, tokens] = (
            seconds_per_update(model, H100, tokens=tokens, offload=offload, **own) - plain
        ) * speed.HOST_LINK
    one = model.parameters
    assert sent["optimizer", 2] - sent["optimizer", 1] == pytest.approx(8 * one)
    assert sent["parameters", 2] - sent["parameters", 1] == pytest.approx((8 + 4) * one)


def test_offloaded_weights_of_adapters_cross_the_link_twice() -> None:
    moved = update(trainable="lora", offload="parameters") - update(trainable="lora")
    assert moved * speed.HOST_LINK == pytest.approx(2 * 2 * seven_billion().parameters)


def test_between_machines_the_network_of_the_machine_is_the_limit() -> None:
    """Each byte of a ring leaves a machine once, however many GPUs it has."""
    wide = {"world": 16, "stage": 3}
    slow = replace(H100, network=H100.network / 2)
    own = seconds_per_update(
        seven_billion(), slow, precision="bf16", tokens=1, row_tokens=1, **wide
    )
    sent = 15 / 16 * (2 * 2 + 4) * seven_billion().parameters
    assert own - update(**wide) == pytest.approx(sent / H100.network)
    assert update(world=8, stage=3) < update(**wide) / 10


def test_an_update_on_the_gpu_reads_and_writes_at_its_memory_bandwidth() -> None:
    """Master and moments read and written (24), gradient read (4), weight written (2)."""
    optimizer = update() - update(trainable="lora")
    assert optimizer == pytest.approx(30 * seven_billion().parameters / H100.bandwidth)
    halved = replace(H100, bandwidth=H100.bandwidth / 2)
    slow = seconds_per_update(seven_billion(), halved, precision="bf16", tokens=1, row_tokens=1)
    assert slow == pytest.approx(2 * update())


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_no_gpu_computes_faster_than_its_peak(trainable: str) -> None:
    """A 7B model does 6 N operations a token, which take an H100 (989 TFLOP/s) 43 µs at least."""
    model, tokens = seven_billion(), 16_384
    seconds = seconds_per_update(
        model, H100, precision="bf16", tokens=tokens, row_tokens=512, trainable=trainable
    )
    weights = 7.07e9 - 0.545e9  # of the model without its output layer, and without its embedding
    factor = {"full": 6, "lora": 4}[trainable]
    least = factor * weights * tokens / 989e12
    assert least < seconds < 4 * least
