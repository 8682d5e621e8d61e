"""The plan's bytes: activations are what autograd keeps, the rest is arithmetic on parameters."""

from typing import Any

import pytest

from w2s_ray.capacity.memory import activation_bytes, adapter_parameters, training_bytes
from w2s_ray.catalog.shapes import shape_of

BASE = {
    "vocab_size": 512,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "num_hidden_layers": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 352, "num_key_value_heads": 2},
    "qwen2": {"intermediate_size": 352, "num_key_value_heads": 1},
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 500},
}


def real(kind: str, precision: str, layers: int) -> Any:
    """A scorer with random weights."""
    import torch
    from transformers import MODEL_MAPPING, AutoConfig

    from w2s_ray.models.packed_attention import use_if_exact
    from w2s_ray.models.scorer import Scorer

    config = AutoConfig.for_model(kind, **{**BASE, **KINDS[kind], "num_hidden_layers": layers})
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    backbone = MODEL_MAPPING[type(config)](config)  # type: ignore[operator]
    for parameter in backbone.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    assert use_if_exact(backbone)
    return Scorer(backbone.train(), config.hidden_size, 2, 2)


def kept(scorer: Any, rows: int, part: int) -> int:
    """Bytes that autograd keeps of a forward pass over rows of three parts, weights apart."""
    import torch

    own = {p.untyped_storage().data_ptr() for p in scorer.parameters()}
    seen: dict[int, tuple[int, Any]] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.arange(rows * 3 * part) % BASE["vocab_size"]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scorer(ids, torch.full((rows, 3), part))
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_what_autograd_keeps(kind: str, precision: str) -> None:
    shapes = [
        shape_of({"model_type": kind, **BASE, **KINDS[kind], "num_hidden_layers": layers})
        for layers in (2, 4)
    ]
    found = [kept(real(kind, precision, shape.layers), 6, 32) for shape in shapes]
    predicted = [
        activation_bytes(shape, precision=precision, tokens=576, row_tokens=96, device="cpu")[0]
        for shape in shapes
    ]
    assert predicted[1] - predicted[0] == found[1] - found[0]
    assert predicted[0] == pytest.approx(found[0], rel=0.08)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_counted_exactly(kind: str) -> None:
    from w2s_ray.models.trainable import set_trainable
    from w2s_ray.spec.schema import Lora

    scorer = real(kind, "fp32", 2)
    trained = set_trainable(scorer, "lora", Lora(rank=3, target_modules="all-linear"), 0)
    head = sum(p.numel() for p in scorer.head.parameters())
    shape = shape_of({"model_type": kind, **BASE, **KINDS[kind]})
    assert adapter_parameters(shape, 3) == sum(p.numel() for p in trained) - head


def test_bytes_per_parameter_are_those_of_the_engines() -> None:
    """18 in bf16 and 16 in fp32 alone; with ZeRO 3 they go down with the number of processes."""
    shape = shape_of(
        {"model_type": "llama", **BASE, "hidden_size": 2048, "intermediate_size": 8192}
    )

    def bytes_per_parameter(precision: str, **how: Any) -> float:
        memory = training_bytes(shape, precision=precision, tokens=1, **how)
        return (memory.weights + memory.gradients + memory.optimizer) / shape.parameters

    assert bytes_per_parameter("bf16", stage=0, world=1) == pytest.approx(18)
    assert bytes_per_parameter("fp32", stage=0, world=1) == pytest.approx(16)
    assert bytes_per_parameter("bf16", stage=3, world=8) == pytest.approx(18 / 8, rel=1e-3)
    frozen = training_bytes(
        shape, precision="bf16", stage=0, world=1, tokens=1, trainable="lora", adapters=1000
    )
    assert frozen.weights == 2 * shape.parameters + 4 * 1000
    assert frozen.gradients + frozen.optimizer == 12 * 1000


def test_recomputing_and_offloading_save_memory() -> None:
    shape = shape_of({"model_type": "llama", **BASE, "hidden_size": 2048, "num_hidden_layers": 8})
    how: dict[str, Any] = {"precision": "bf16", "stage": 3, "world": 2, "tokens": 8192}
    plain = training_bytes(shape, **how)
    again = training_bytes(shape, checkpointing=True, **how)
    out = training_bytes(shape, offload="optimizer", **how)
    assert again.activations < plain.activations / 3
    assert again.total - plain.total == again.activations - plain.activations
    assert out.optimizer == 0 and out.total < plain.total
    assert out.host >= plain.optimizer
