"""Every source gives the same kind of backbone: first blocks, no dropout, no hidden randomness."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.testing.tiny_models import line, texts, tiny, tiny_spec
from w2s_ray.catalog.architectures import ARCHITECTURES
from w2s_ray.catalog.configs import untrained_config
from w2s_ray.catalog.shapes import shape
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.scorer import Scorer, readout
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.spec.schema import ModelSpec

INPUT = texts([5, 9, 200, 31], [7, 8], [12, 0, 0, 256, 3, 4])
DROPOUT = {
    "gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "gpt_neox": {"hidden_dropout": 0.5, "attention_dropout": 0.5},
    "llama": {"attention_dropout": 0.5},
    "qwen2": {"attention_dropout": 0.5},
}


def save(folder: Path, architecture: str, **fields: Any) -> Path:
    """A model folder as others publish them: with an LM head, dropout and a pad token."""
    config = AutoConfig.for_model(architecture, **untrained_config(tiny_spec(architecture)))
    for name, value in {**DROPOUT[architecture], "pad_token_id": 7, **fields}.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    bytes_tokenizer().save_pretrained(folder)
    return folder


def source(place: Path | str, **fields: Any) -> ModelSpec:
    return ModelSpec(source=str(place), **fields)


def blocks(module: PreTrainedModel) -> torch.nn.ModuleList:
    module_list = module.get_submodule(ARCHITECTURES[module.config.model_type].blocks)
    assert isinstance(module_list, torch.nn.ModuleList)
    return module_list


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("place", ["random", "folder"])
@pytest.mark.parametrize("count", [1, 2])
def test_num_layers_keeps_the_first_blocks_and_the_final_norm(
    architecture: str, place: str, count: int, tmp_path: Path
) -> None:
    if place == "random":
        spec = tiny_spec(architecture)
    else:
        spec = source(save(tmp_path / "model", architecture))
    whole = load_backbone(spec, "fp32").module
    cut = load_backbone(spec.model_copy(update={"num_layers": count}), "fp32")
    assert cut.layers == len(blocks(cut.module)) == count
    kept: dict[str, torch.Tensor] = {}
    blocks(whole)[count - 1].register_forward_hook(
        lambda module, args, output: kept.update(
            block=output if isinstance(output, torch.Tensor) else output[0]
        )
    )
    whole(input_ids=INPUT[0][None])
    expected = getattr(whole, ARCHITECTURES[architecture].final_norm)(kept["block"])
    found = cut.module(input_ids=INPUT[0][None]).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    known = shape(spec.model_copy(update={"num_layers": count}))
    assert known is not None
    assert known.parameters == sum(p.numel() for p in cut.module.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_is_off_even_where_the_model_asks_for_it(architecture: str, tmp_path: Path) -> None:
    module = load_backbone(source(save(tmp_path / "model", architecture)), "fp32").module
    assert module.training
    first = readout(module, *INPUT)
    assert torch.equal(first, readout(module, *INPUT))
    assert torch.equal(first, readout(module.eval(), *INPUT))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_weight_is_trained_even_the_pad_tokens(architecture: str, tmp_path: Path) -> None:
    module = load_backbone(source(save(tmp_path / "model", architecture)), "fp32").module
    scorer = Scorer(module, 32, 2, 2)
    scorer(*line([[7], [1], [2, 3]])).square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
    embedding = module.get_input_embeddings().weight.grad
    assert isinstance(embedding, torch.Tensor)
    assert embedding[7].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_random_weights_come_from_init_seed_and_nothing_else(architecture: str) -> None:
    def state() -> list[Any]:
        return [
            torch.random.get_rng_state().tolist(),
            random.getstate(),
            str(np.random.get_state()),
        ]

    torch.manual_seed(1)
    before = state()
    first = readout(tiny(architecture).module, *INPUT)
    assert state() == before
    torch.manual_seed(2)
    assert torch.equal(first, readout(tiny(architecture).module, *INPUT))
    assert not torch.equal(first, readout(tiny(architecture, init_seed=1).module, *INPUT))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bf16_rounds_the_fp32_weights_but_not_the_rotary_frequencies(architecture: str) -> None:
    full, low = (tiny(architecture, precision).module for precision in ("fp32", "bf16"))
    for wide, narrow in zip(full.parameters(), low.parameters(), strict=True):
        assert torch.equal(wide.to(torch.bfloat16), narrow)
    for name, buffer in full.named_buffers():
        assert torch.equal(buffer, low.get_buffer(name))


def test_a_folder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "qwen2")
    weights = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(weights) if n.endswith("layers.2.mlp.up_proj.weight"))
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"1 weights are missing.*layers\.2\.mlp\.up_proj"):
        load_backbone(source(folder), "fp32")
    assert load_backbone(source(folder, num_layers=2), "fp32").layers == 2


def test_an_unreachable_hub_is_an_error_of_one_line() -> None:
    with pytest.raises(InputError, match="hf:nobody/no-such-model") as caught:
        load_backbone(source("hf:nobody/no-such-model"), "fp32")
    assert "\n" not in str(caught.value)


def test_an_unsupported_architecture_is_refused(tmp_path: Path) -> None:
    AutoConfig.for_model("t5").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="t5 is not supported: it has an encoder"):
        load_backbone(source(tmp_path), "fp32")
