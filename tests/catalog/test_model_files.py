"""Which files of a model its key names, and folders in which other files would matter."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from w2s_ray.catalog.identity import tokenizer_identity, weights_identity
from w2s_ray.catalog.model_files import readable_files, weight_files
from w2s_ray.catalog.random_init import complete_config
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import ModelSpec

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "x", "auto_mapping": None}
CODE = {"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.XModel"}


def tensors(path: Path, value: float = 0.0) -> None:
    save_file({"x": np.full(1, value, np.float32)}, path)


def index(path: Path, *names: str) -> None:
    content = {"metadata": {}, "weight_map": {f"x{i}": name for i, name in enumerate(names)}}
    path.write_text(json.dumps(content))


def change(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **fields}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder whose weights are one number."""
    path = tmp_path / "model"
    path.mkdir()
    fields = {**complete_config("llama", {}, 257), "model_type": "llama"}
    (path / "config.json").write_text(json.dumps(fields))
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text("{}")
    tensors(path / "model.safetensors")
    return path


def key(folder: Path) -> Any:
    return weights_identity(ModelSpec(source=str(folder)))["folder"]


def of(folder: Path, *names: str) -> str:
    """The digest that keys have held since the first version: of names and contents, in order."""
    files = [(name, sha256((folder / name).read_bytes()).hexdigest()) for name in names]
    return sha256("".join(f"{name} {digest}\n" for name, digest in files).encode()).hexdigest()


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        key(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_keys_of_folders_are_what_they_were(folder: Path) -> None:
    last = ("tokenizer.json", "tokenizer_config.json")
    assert key(folder) == of(folder, "config.json", "model.safetensors", *last)
    tensors(folder / "consolidated.safetensors")
    every = ("consolidated.safetensors", "model.safetensors")
    assert key(folder) == of(folder, "config.json", *every, *last)
    for name in every:
        (folder / name).unlink()
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name in shards:
        tensors(folder / name)
    index(folder / "model.safetensors.index.json", *reversed(shards))
    assert key(folder) == of(folder, "config.json", *shards, *last)
    (folder / "model.safetensors.index.json").unlink()
    for name in shards:
        (folder / name).unlink()
    shards = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    for name in shards:
        (folder / name).write_bytes(name.encode())
    index(folder / "pytorch_model.bin.index.json", *shards)
    assert key(folder) == of(folder, "config.json", *shards, *last)
    (folder / "pytorch_model.bin").write_bytes(b"one file")
    every = (*shards, "pytorch_model.bin")
    assert key(folder) == of(folder, "config.json", *every, *last)


def test_the_files_that_are_read_are_hashed(folder: Path) -> None:
    """transformers reads one whole file before shards, and never a name that it does not know."""
    tensors(folder / "shard.safetensors")
    index(folder / "model.safetensors.index.json", "shard.safetensors")
    assert weight_files(folder) == [folder / "model.safetensors"]
    before = key(folder)
    tensors(folder / "model.safetensors", 1.0)
    assert key(folder) != before
    (folder / "model.safetensors").unlink()
    assert weight_files(folder) == [folder / "shard.safetensors"]
    (folder / "model.safetensors.index.json").unlink()
    assert "there is none, only shard.safetensors" in refused(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    before = key(folder)
    (folder / "pytorch_model.bin").write_bytes(b"changed")
    assert key(folder) != before
    readable = {file.name for file in readable_files(folder, weights=True)}
    assert readable == {
        "config.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_a_tokenizer_is_its_files_and_its_models_type(folder: Path, tmp_path: Path) -> None:
    def identity(path: Path) -> Any:
        return tokenizer_identity(str(path))

    alone = Path(shutil.copytree(folder, tmp_path / "alone"))
    (alone / "config.json").unlink()
    names = ("tokenizer.json", "tokenizer_config.json")
    assert identity(alone) == {"folder": of(alone, *names)}
    change(alone / "config.json", model_type="gpt2")
    gpt2 = identity(alone)
    change(alone / "config.json", model_type="qwen2")  # with another class of tokenizer
    assert len({str(one) for one in (gpt2, identity(alone), of(alone, *names))}) == 3


@pytest.mark.parametrize(
    ("file", "fields", "expected"),
    [
        ("adapter_config.json", ADAPTER, "holds an adapter, expected a whole model; merge"),
        ("config.json", {"auto_map": CODE}, "auto_map names Python code (configuration_x.XConfig)"),
        ("config.json", {"text_config": {"auto_map": CODE}}, "auto_map names Python code"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "x.X"]}}, "code (x.X)"),
        ("tokenizer_config.json", {"auto_map": ["x.X", None]}, "code (x.X), which is never run"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "(gptq): quantised"),
        ("config.json", {"compression_config": {"format": "x"}}, "quantised weights cannot be"),
        ("config.json", {"transformers_weights": "b.safetensors"}, "weights names other files"),
        ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "(config.4.0.0.json)"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "not read"),
    ],
)  # fmt: skip
def test_what_would_change_a_model_unseen_is_refused(
    folder: Path, file: str, fields: dict[str, Any], expected: str
) -> None:
    key(folder)
    change(folder / file, **fields)
    message = refused(folder)
    assert expected in message and file in message
    tokenizer = ModelSpec.model_validate(
        {"init": "random", "architecture": "llama", "tokenizer": str(folder)}
    )
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    if "weights" in expected or "quantised" in expected or file == "adapter_config.json":
        weights_identity(tokenizer)  # which these do not concern
    else:
        with pytest.raises(InputError, match=r"auto_map|configuration_files|fast_tokenizer_files"):
            weights_identity(tokenizer)


def test_fields_that_say_nothing_are_allowed(folder: Path) -> None:
    change(folder / "config.json", auto_map=None, quantization_config=None)
    change(folder / "tokenizer_config.json", auto_map={})
    key(folder)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", ""])
def test_an_index_names_files_of_its_folder(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    index(folder / "model.safetensors.index.json", name)
    assert "expected the name of a file in the folder" in refused(folder)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_a_missing_shard_is_named(folder: Path, kind: str) -> None:
    (folder / "model.safetensors").unlink()
    index(folder / f"{kind}.index.json", "a.bin")
    assert f"a.bin is missing, {kind}.index.json names it" in refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_no_model(folder: Path, name: str) -> None:
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n"
    (folder / name).write_text(pointer)
    assert f"{name}: a pointer of Git LFS" in refused(folder)
    file = folder / "model.gguf"
    file.write_text(pointer)
    with pytest.raises(InputError, match="git lfs pull"):
        weights_identity(ModelSpec(source=str(file)))
