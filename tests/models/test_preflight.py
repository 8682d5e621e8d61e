"""What loading or training would refuse is refused from headers of files, and good models pass."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from tests.testing.tiny_models import ARCHITECTURES, tiny, tiny_spec
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.preflight import TARGETS, check_models
from w2s_ray.models.weight_headers import check_headers
from w2s_ray.spec.schema import Lora, ModelSpec

OF = ("models", "large")


def save(folder: Path, architecture: str = "qwen2") -> Path:
    """A tiny model's folder."""
    backbone = tiny(architecture)
    backbone.module.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


def refused(model: ModelSpec | Path, lora: Lora | None = None) -> InputError:
    model = ModelSpec(source=str(model)) if isinstance(model, Path) else model
    good = tiny_spec("gpt2")
    with pytest.raises(InputError) as caught:
        check_models({"small": good, "large": model} if lora is None else {"large": model}, lora)
    assert "\n" not in str(caught.value)
    assert caught.value.place == (TARGETS if lora else OF)
    return caught.value


def change(folder: Path, changes: Mapping[str, Any]) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("place", ["random", "folder"])
def test_a_model_that_loads_passes_and_draws_nothing(
    architecture: str, place: str, tmp_path: Path
) -> None:
    model = tiny_spec(architecture)
    if place == "folder":
        model = ModelSpec(source=str(save(tmp_path / "m", architecture)), num_layers=2)
    before = torch.random.get_rng_state()
    check_models({"one": model}, None)
    assert torch.equal(before, torch.random.get_rng_state())
    check_models({"one": model}, Lora())
    every = "linear|.*(c_attn|query_key_value|q_proj)"
    check_models({"one": model}, Lora(target_modules=every))


def test_weights_in_several_files_with_the_prefix_of_a_language_model(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    weights = {f"model.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    where = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = ModelSpec(source=str(folder))
    load_backbone(model, "fp32")
    check_models({"large": model}, None)


def test_a_missing_weight_is_named_unless_its_block_is_left_out(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors")
    assert "1 weights are missing, the first is layers.2.mlp.up_proj" in str(refused(folder))
    check_models({"large": ModelSpec(source=str(folder), num_layers=2)}, None)


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    folder = change(save(tmp_path / "m"), {"intermediate_size": 100})
    assert "gate_proj.weight is (128, 32), expected (100, 32)" in str(refused(folder))


def test_a_model_of_a_terabyte_is_checked_without_its_weights() -> None:
    wide = {"hidden_size": 65_536, "intermediate_size": 200_000, "num_attention_heads": 512}
    check_models({"one": tiny_spec("llama", config={**wide, "num_hidden_layers": 8})}, None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_without_a_tokenizer(architecture: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", architecture)
    for file in folder.glob("*token*"):
        file.unlink()
    assert "tokenizer" in str(refused(folder))


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    (folder / "tokenizer.json").write_text(content)
    assert "tokenizer" in str(refused(folder))


def test_a_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    folder = change(save(tmp_path / "m"), {"vocab_size": 256})
    assert "ids up to 256, expected less than 256" in str(refused(folder))


def test_a_damaged_file_of_weights(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    assert "model.safetensors: the file is damaged" in str(refused(folder))
    (folder / "model.safetensors").unlink()
    assert "expected model.safetensors" in str(refused(folder))


@pytest.mark.parametrize("sharded", [False, True])
def test_pickled_weights_are_checked_too(sharded: bool, tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    weights = {f"model.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    name = "model.layers.2.mlp.up_proj.weight"

    def write(weights: Mapping[str, torch.Tensor]) -> Path:
        if not sharded:
            torch.save(dict(weights), folder / "pytorch_model.bin")
            return folder / "pytorch_model.bin"
        parts = {"a.bin": sorted(weights)[::2], "b.bin": sorted(weights)[1::2]}
        for file, names in parts.items():
            torch.save({name: weights[name] for name in names}, folder / file)
        index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        return folder / "b.bin"

    file = write(weights)
    check_models({"large": ModelSpec(source=str(folder))}, None)
    write({**weights, name: weights[name].T.contiguous()})
    assert "up_proj.weight is (32, 128), expected (128, 32)" in str(refused(folder))
    write({key: value for key, value in weights.items() if key != name})
    assert "1 weights are missing, the first is layers.2.mlp.up_proj" in str(refused(folder))
    check_models({"large": ModelSpec(source=str(folder), num_layers=2)}, None)
    for content in (b"", b"no pickle", file.read_bytes()[:-100]):
        file.write_bytes(content)
        assert f"{file.name}: cannot be read as plain tensors" in str(refused(folder))
    file.unlink()
    assert ("b.bin is missing" if sharded else "expected model.safetensors") in str(refused(folder))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_are_no_floating_point_numbers(
    kind: torch.dtype, file: str, tmp_path: Path
) -> None:
    """Quantised, though no configuration says so; loading would take integers for weights."""
    folder = save(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    name = "layers.1.mlp.up_proj.weight"
    weights |= {name: weights[name].to(kind), "attn.mask": torch.ones(2, dtype=torch.bool)}
    (folder / "model.safetensors").unlink()
    if file.endswith("bin"):
        torch.save(weights, folder / file)
    else:
        save_file(weights, folder / file)
    message = str(refused(folder))
    assert f"weight {name} is stored as" in message and "quantised weights cannot" in message
    (folder / file).unlink()
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    assert f"1 weights are missing, the first is {name}" in str(refused(folder))


def test_merged_experts_are_what_transformers_would_merge(tmp_path: Path) -> None:
    """A checkpoint of a mixture holds experts one by one; the model holds them in one tensor."""
    config = AutoConfig.for_model(
        "qwen3_moe", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=64,
        num_key_value_heads=1, head_dim=16, num_experts=4, moe_intermediate_size=16,
        num_experts_per_tok=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        module = AutoModel.from_config(config)
    module.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    check_headers("m", [file], module)
    weights = load_file(file)
    lost = next(name for name in weights if "layers.1" in name and "experts.2" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, file)
    with pytest.raises(InputError, match=r"model m: weight.*layers\.1\.mlp\.experts"):
        check_headers("m", [file], module)
    lost = next(name for name in weights if "layers.0" in name and "experts.1.up" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, file)
    with pytest.raises(InputError, match="stored in parts cannot be merged"):
        check_headers("m", [file], module)


@pytest.mark.parametrize(
    "config", [{"hidden_act": "gelou"}, {"rope_parameters": {"rope_type": "strange"}}]
)
@pytest.mark.parametrize("place", ["random", "folder"])
def test_an_unknown_activation_or_rotary_embedding(
    config: dict[str, Any], place: str, tmp_path: Path
) -> None:
    if place == "random":
        message = str(refused(tiny_spec("qwen2", config=config)))
    else:
        message = str(refused(change(save(tmp_path / "m"), config)))
    assert "config is refused" in message and ("gelou" in message or "strange" in message)


def test_a_pattern_that_backtracks_without_end_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("w2s_ray.foreign.patterns.limit", {"pattern.seconds": 1}.__getitem__)
    message = str(refused(tiny_spec("qwen2"), Lora(target_modules=r"(([\w.]+)+)+!")))
    assert message.startswith("training.lora.target_modules: given '(([") and "in 1 s" in message


@pytest.mark.parametrize("pattern", ["nothing", r"layers\.0", ".*layernorm"])
def test_adapters_for_modules_that_cannot_have_them(pattern: str) -> None:
    message = str(refused(tiny_spec("qwen2"), Lora(target_modules=pattern)))
    assert message.startswith("training.lora.target_modules: ") and "'large'" in message


def test_a_hub_model_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hf:nobody/none" in str(refused(ModelSpec(source="hf:nobody/none")))
    # One whose configuration and tokenizer were fetched, but not its weights.
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    save(repository / "snapshots" / "c0ffee")
    model = ModelSpec(source="hf:some/model")
    check_models({"large": model}, None)
    (repository / "snapshots" / "c0ffee" / "model.safetensors").unlink()
    assert "weights are not in the local cache" in str(refused(model))
    shutil.rmtree(repository)
    assert "not in the local cache" in str(refused(model))


def test_under_zero_3_adapters_belong_to_linear_layers(tmp_path: Path) -> None:
    """peft would put one on an embedding, and ZeRO-3 would fail on it in the first step."""
    model = tiny_spec("llama")
    embedding, linear = Lora(target_modules=".*embed_tokens"), Lora(target_modules=".*q_proj")
    check_models({"large": model}, embedding)
    check_models({"large": model}, linear, {"large"})
    with pytest.raises(InputError, match=r"matches embed_tokens .*linear layers alone under ZeRO"):
        check_models({"large": model}, embedding, {"large"})


def test_under_zero_3_weights_are_safetensors(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    module = load_backbone(ModelSpec(source=str(folder)), "fp32", "cpu").module
    (folder / "model.safetensors").unlink()
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    model = ModelSpec(source=str(folder))
    check_models({"large": model}, None)
    with pytest.raises(InputError, match=r"expected safetensors files under ZeRO stage 3"):
        check_models({"large": model}, None, {"large"})
