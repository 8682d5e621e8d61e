"""Every record says what transformers does, so that nothing else need ask for a family by name."""

from typing import Any, get_args

import pytest

from w2s_ray.catalog.architectures import ARCHITECTURES, Architecture
from w2s_ray.catalog.random_init import complete_config
from w2s_ray.spec.schema import ModelSpec

every_record = pytest.mark.parametrize("record", ARCHITECTURES.values(), ids=ARCHITECTURES)


def config_of(record: Architecture) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(record.name, **complete_config(record.name, {}, 257))


def backbone(record: Architecture) -> Any:
    """A model with random weights, on torch's meta device."""
    import torch
    from transformers import MODEL_MAPPING

    config = config_of(record)
    with torch.device("meta"):
        return MODEL_MAPPING[type(config)](config)  # type: ignore[operator]


def test_the_spec_accepts_exactly_the_architectures_that_have_a_record() -> None:
    literal, _ = get_args(ModelSpec.model_fields["architecture"].annotation)
    assert get_args(literal) == tuple(ARCHITECTURES)


@every_record
def test_every_field_is_one_of_transformers(record: Architecture) -> None:
    from transformers import AutoConfig

    real = AutoConfig.for_model(record.name)
    fields = complete_config(record.name, {}, 257)
    assert [name for name in (*fields, *record.aliases) if not hasattr(real, name)] == []
    assert len(fields) == len(record.defaults)
    config = config_of(record)
    assert {name: getattr(config, name) for name in fields} == fields


@every_record
def test_blocks_and_norms_are_those_of_the_backbone(record: Architecture) -> None:
    from torch import nn

    module = backbone(record)
    blocks = getattr(module, record.blocks)
    assert isinstance(blocks, nn.ModuleList) and len(blocks) == 2
    norms = [m for m in module.modules() if "Norm" in type(m).__name__]
    assert len(norms) == 2 * len(blocks) + 1
    assert getattr(module, record.final_norm) is norms[-1]
    for norm in norms:
        assert len(list(norm.parameters())) == record.norm_vectors
    names = [name for name, _ in module.named_parameters()]
    assert (f"{record.final_norm}.bias" in names) == (record.final_norm_bias is not None)
    embeddings = [m for m in module.modules() if isinstance(m, nn.Embedding)]
    assert len(embeddings) == (2 if record.learned_positions else 1)


@every_record
def test_linear_layers_are_those_of_a_block(record: Architecture) -> None:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    kind = Conv1D if record.transposed_linear else nn.Linear
    block = getattr(backbone(record), record.blocks)[0]
    layers = [m for m in block.modules() if isinstance(m, nn.Linear | Conv1D)]
    assert {type(layer) for layer in layers} == {kind}
    assert len(layers) == (2 if record.fused_qkv else 4) + (3 if record.gated_mlp else 2)


@every_record
def test_the_stock_class_holds_the_backbone_by_that_name(record: Architecture) -> None:
    import transformers

    kind = getattr(transformers, record.stock_class)
    assert transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config_of(record))] is kind
    assert kind.base_model_prefix == record.stock_backbone


@every_record
def test_gguf_files_are_those_that_transformers_reads(record: Architecture) -> None:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    assert record.in_gguf == (record.name in GGUF_CONFIG_MAPPING)
