"""A causal model is transformers' own, whatever its source, with a trained state as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.testing.families import save_family, with_end
from tests.testing.gguf_file import write_gguf
from tests.testing.tiny_models import ARCHITECTURES, tiny_spec
from w2s_ray.catalog import measured
from w2s_ray.errors import InputError
from w2s_ray.models.causal import CausalModel, end_ids_of, load_causal, set_text_trainable
from w2s_ray.models.folders import model_folder
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.models.trainable import trainable_state
from w2s_ray.plan.configs import Training
from w2s_ray.spec.schema import Lora, ModelSpec

IDS = torch.tensor([[5, 9, 200, 31, 7]])
LORA = Lora(rank=2, alpha=4.0)


@pytest.fixture(autouse=True)
def measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "PROGRAM", "none")


def training(trainable: Any) -> Training:
    return Training(
        trainable=trainable,
        learning_rate=0.01,
        epochs=1,
        batch_size=4,
        max_length_tokens=32,
        precision="fp32",
        schedule="constant",
        clip_norm=None,
        adam_betas=(0.9, 0.999),
        adam_epsilon=1e-8,
        lora=LORA if trainable == "lora" else None,
    )


@torch.no_grad()
def logits(model: CausalModel) -> Tensor:
    found: Tensor = model.module(input_ids=IDS).logits
    return found


def trained(spec: ModelSpec, trainable: str, precision: str = "fp32") -> CausalModel:
    """A model after three steps of Adam on a text."""
    model = load_causal(spec, precision, device="cpu")
    parameters = set_text_trainable(model.module, trainable, LORA, 3)
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model.module(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("trainable", ["full", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trained_state_gives_the_logits_of_the_trained_model(
    architecture: str, trainable: str, precision: str, tmp_path: Path
) -> None:
    spec = tiny_spec(architecture)
    model = trained(spec, trainable, precision)
    state = tmp_path / "model.safetensors"
    save_file(trainable_state(model.module), state)
    loaded = load_causal(spec, precision, state, training(trainable), device="cpu")
    assert torch.equal(logits(loaded), logits(model))
    plain = load_causal(spec, precision, device="cpu")
    assert not torch.allclose(logits(plain), logits(model), atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_are_those_of_the_base_model_and_change_nothing_at_first(
    architecture: str,
) -> None:
    model = load_causal(tiny_spec(architecture), "fp32", device="cpu")
    before = logits(model)
    parameters = set_text_trainable(model.module, "lora", LORA, 3)
    torch.testing.assert_close(logits(model), before)
    prefix = f"{model.module.base_model_prefix}."
    names = list(trainable_state(model.module))
    assert len(names) == len(parameters)
    assert all(name.startswith(prefix) and "lora_" in name for name in names)


def test_tied_weights_are_trained_and_stored_once() -> None:
    for architecture, embeddings, has_head in (
        ("gpt2", "transformer.wte.weight", False),
        ("llama", "model.embed_tokens.weight", True),
    ):
        model = load_causal(tiny_spec(architecture), "fp32", device="cpu")
        set_text_trainable(model.module, "full", None, 0)
        names = set(trainable_state(model.module))
        assert embeddings in names
        assert ("lm_head.weight" in names) == has_head


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_the_model_of_a_source_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    if kind == "gguf":
        write_gguf(tmp_path / "model.gguf", head=True)
        spec = ModelSpec(source=str(tmp_path / "model.gguf"))
    else:
        spec = with_end(save_family("Llama", tmp_path / "model"), 7)
    with model_folder(str(spec.source), None, weights=True) as folder:
        whole: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = load_causal(spec, "fp32", device="cpu")
    with torch.no_grad():
        expected = whole.eval()(input_ids=IDS).logits
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert not model.module.training
    assert model.module.config.use_cache
    assert model.module.config._attn_implementation == "sdpa"
    first = load_causal(spec.model_copy(update={"num_layers": 1}), "fp32", device="cpu")
    assert first.module.config.num_hidden_layers == 1
    assert len(first.module.base_model.layers) == 1


def test_end_tokens_are_those_of_config_and_tokenizer() -> None:
    spec = ModelSpec(source="hf:some/model")
    tokenizer = bytes_tokenizer()
    module = load_causal(tiny_spec("llama"), "fp32", device="cpu").module
    module.config.eos_token_id = [7, 9, 100_000]  # the last is outside the vocabulary
    assert end_ids_of(module, tokenizer, spec) == (7, 9)
    tokenizer.eos_token = "A"  # the tokenizer's own comes first
    assert end_ids_of(module, tokenizer, spec) == (65, 7, 9)
    assert end_ids_of(module, bytes_tokenizer(), tiny_spec("llama")) == (256,)
    module.config.eos_token_id = None
    with pytest.raises(InputError, match=r"model hf:some/model: no token ends its texts"):
        end_ids_of(module, bytes_tokenizer(), spec)


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    spec = tiny_spec("llama")
    state = tmp_path / "model.safetensors"
    save_file(trainable_state(trained(spec, "lora").module), state)
    with pytest.raises(ValueError, match="names differ"):
        load_causal(spec, "fp32", state, training("full"), device="cpu")
