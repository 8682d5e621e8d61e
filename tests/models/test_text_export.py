"""A language model of every family, with adapters or without, as transformers loads its folder."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.testing.families import FAMILIES, save_family, with_end
from w2s_ray.errors import InputError
from w2s_ray.models.causal import load_causal, set_text_trainable
from w2s_ray.models.text_export import write_language_model
from w2s_ray.spec.schema import Lora

pytestmark = pytest.mark.long
IDS = torch.arange(3, 40)[None]


@torch.no_grad()
def logits(module: torch.nn.Module) -> torch.Tensor:
    found: torch.Tensor = module(input_ids=IDS, use_cache=False).logits
    return found


@pytest.mark.parametrize("trainable", ["full", "lora"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_folder_has_the_logits_of_the_model(name: str, trainable: str, tmp_path: Path) -> None:
    spec = with_end(save_family(name, tmp_path / "before"), 0)
    model = load_causal(spec, "fp32", device="cpu")
    before = logits(model.module)
    lora = Lora(rank=2, alpha=8.0) if trainable == "lora" else None
    trained = set_text_trainable(model.module, trainable, lora, seed=0)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in trained:
            parameter += 0.02 * torch.randn(parameter.shape)
    expected = logits(model.module)
    assert not torch.allclose(expected, before, atol=1e-3)
    write_language_model(model, tmp_path / "after")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "after", dtype="auto").eval()
    assert torch.allclose(logits(loaded), expected, atol=2e-5 * float(expected.abs().max()))


def test_an_adapter_of_a_head_that_is_the_embedding_too_is_refused(tmp_path: Path) -> None:
    spec = with_end(save_family("GPT-2", tmp_path / "model"), 0)
    model = load_causal(spec, "fp32", device="cpu")
    set_text_trainable(model.module, "lora", Lora(rank=2, target_modules=".*wte"), seed=0)
    with pytest.raises(InputError, match="its weight is that of the head too"):
        write_language_model(model, tmp_path / "folder")
