"""What transformers can see of a model: the files that its key names, and nothing beside them."""

import json
import shutil
import sys
from collections.abc import Callable
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.testing.gguf_file import write_gguf
from tests.testing.tiny_models import tiny
from w2s_ray.catalog.digests import cache_folder
from w2s_ray.catalog.identity import weights_identity
from w2s_ray.catalog.model_files import CHAT_TEMPLATE, readable_files
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.models.folders import model_folder, named_config, tokenizer_folder
from w2s_ray.models.gguf import unpacked
from w2s_ray.spec.schema import ModelSpec

PROBE = "What's 12 + 7?\n\n  Nineteen \u00e9\u4e2d."


def save(folder: Path) -> Path:
    """A tiny model's folder with an adapter's base, a tokenizer and a chat template."""
    backbone = tiny("llama")
    backbone.module.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    (folder / CHAT_TEMPLATE).write_text("{{ messages }}")
    return folder


def load(source: Path | str) -> Backbone:
    return load_backbone(ModelSpec(source=str(source)), "fp32", "cpu")


def loaded(source: Path | str) -> tuple[Any, ...]:
    """All that a load decides: weights, tokens and configuration."""
    backbone = load(source)
    config = backbone.module.config.to_dict()
    config.pop("_name_or_path", None)
    weights = {
        name: value.numpy().tobytes() for name, value in backbone.module.state_dict().items()
    }
    return weights, backbone.tokenizer(PROBE)["input_ids"], config, backbone.tokenizer.pad_token_id


def key(source: Path | str) -> str:
    return json.dumps(weights_identity(ModelSpec(source=str(source))), sort_keys=True)


class Opens:
    """Files that Python opens while ``on``: a hook of the interpreter cannot be removed."""

    def __init__(self) -> None:
        self.on = False
        self.paths: set[Path] = set()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and isinstance(arguments[0], str | bytes):
            text = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()
            self.paths.add(Path(text))


@pytest.fixture(scope="session")
def opens() -> Opens:
    return Opens()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="session")
def adapted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose weights are not zero, as peft saves it."""
    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(model)
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))


def test_every_file_that_is_opened_is_in_the_key(model: Path, opens: Opens) -> None:
    opens.paths.clear()
    opens.on = True
    load(model)
    opens.on = False
    links = {path for path in opens.paths if path.parent.name.startswith("w2s-model-")}
    assert {path.name for path in links} >= {"config.json", "tokenizer.json"}
    readable = {file.name for file in readable_files(model, weights=True)}
    assert {path.name for path in links} <= readable
    own = {path.name for path in opens.paths if path.is_relative_to(model)}
    assert own <= readable
    assert readable - {CHAT_TEMPLATE} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_a_loader_sees_links_to_readable_files_alone(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "m"))
    for name in ("README.md", "generation_config.json", "tokenizer.4.0.0.json", "x.py"):
        (folder / name).write_text("{}")
    with model_folder(str(folder), None, weights=True) as links:
        seen = sorted(path.name for path in links.iterdir())
        assert seen == sorted(file.name for file in readable_files(model, weights=True))
        assert all(path.resolve() == folder / path.name for path in links.iterdir())
    assert not links.exists()
    with tokenizer_folder(str(folder), None) as links:
        assert "model.safetensors" not in {path.name for path in links.iterdir()}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def _blank(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


CHANGES: dict[str, Callable[[Path], None]] = {"remove": Path.unlink, "flip": _flip, "blank": _blank}
ADDED: dict[str, str | None] = {
    "generation_config.json": '{"max_length": 3}',
    "config.4.0.0.json": '{"model_type": "gpt2"}',
    "tokenizer.4.0.0.json": "{}",
    "tokenizer.model": "no model",
    "tiktoken.model": "IQ== 0",
    "tekken.json": "{}",
    "vocab.txt": "a\nb",
    "vocab.json": '{"a": 0}',
    "merges.txt": "a b",
    "spiece.model": "no model",
    "added_tokens.json": '{"12": 300}',
    "special_tokens_map.json": '{"pad_token": "a"}',
    "chat_template.json": '{"chat_template": "x"}',
    "additional_chat_templates/tool.jinja": "x",
    "processor_config.json": '{"processor_class": "X"}',
    "preprocessor_config.json": '{"auto_map": {"AutoProcessor": "x.X"}}',
    "modeling_llama.py": "raise SystemExit",
    "custom_generate/generate.py": "raise SystemExit",
    "quantize_config.json": '{"bits": 4}',
    "pytorch_model.bin": "no pickle",
    "pytorch_model.bin.index.json": '{"weight_map": {"x": "y.bin"}}',
    "model.safetensors.index.json": '{"weight_map": {"x": "y.safetensors"}}',
    "model.fp16.safetensors": "nothing",
    "consolidated.safetensors": "nothing",
    ".metadata": "a distributed checkpoint",
    "__0_0.distcp": "a distributed checkpoint",
    "adapter_config.json": None,  # of peft, with its weights
}


@pytest.mark.long
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_what_changes_a_load_changes_the_key_or_is_refused(
    model: Path, adapted: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Files of a folder are changed and removed, others put beside them."""
    folder = Path(shutil.copytree(model, tmp_path_factory.mktemp("changed") / "m"))
    own = st.tuples(
        st.sampled_from(sorted(file.name for file in folder.iterdir())),
        st.sampled_from(sorted(CHANGES)),
    )
    added = st.tuples(st.sampled_from(sorted(ADDED)), st.just("add"))
    steps = data.draw(st.lists(own | added, min_size=1, max_size=2, unique_by=lambda one: one[0]))
    for name, change in steps:
        if change != "add":
            CHANGES[change](folder / name)
        elif ADDED[name] is None:
            shutil.copytree(adapted, folder, dirs_exist_ok=True)
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(str(ADDED[name]))
    refused = ""
    try:
        same = key(folder) == key(model) and loaded(folder)
    except InputError as error:
        refused, same = str(error), False
    assert "\n" not in refused
    assert not same or same == loaded(model)


def test_an_adapter_is_refused_and_never_applied(
    model: Path, adapted: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "m"))
    shutil.copytree(adapted, folder, dirs_exist_ok=True)
    for use in (key, load):
        with pytest.raises(InputError, match="holds an adapter, expected a whole model"):
            use(folder)
    with pytest.raises(InputError, match="holds an adapter"):
        key(adapted)
    (folder / "adapter_config.json").unlink()
    assert loaded(folder) == loaded(model)


def hub(cache: Path, name: str, folder: Path) -> Path:
    """A folder as a model of the Hub's local cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee" + "0" * 34)
    snapshot = repository / "snapshots" / ("c0ffee" + "0" * 34)
    shutil.copytree(folder, snapshot)
    return snapshot


def test_a_folder_of_a_hub_models_name_is_another_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    other = Path(shutil.copytree(model, tmp_path / "some" / "model"))
    weights = {name: 2 * value for name, value in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="not in the local cache"):
        load("hf:some/model")
    snapshot = hub(tmp_path / "hub", "some/model", model)
    assert loaded("hf:some/model") == loaded(model)
    assert loaded("hf:some/model")[0] != loaded(other)[0]
    with tokenizer_folder("hf:some/model", None) as links:
        config = named_config(links, "hf:some/model")
        assert config is not None and config._name_or_path == "some/model"
        assert named_config(links, str(links)) is None
    config_file = snapshot / "config.json"
    config_file.write_text(config_file.read_text().replace("{", '{"auto_map": {"A": "x.X"},', 1))
    for use in (key, load):
        with pytest.raises(InputError, match=r"hf:some/model: config\.json: auto_map"):
            use("hf:some/model")


def test_a_changed_file_of_the_hubs_cache_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are named by SHA-256 there, the others as Git names them."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = hub(tmp_path / "hub", "some/model", model)
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        data = file.read_bytes()
        git = sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        large = file.suffix == ".safetensors"
        blob = file.rename(blobs / (sha256(data).hexdigest() if large else git))
        file.symlink_to(blob)
    assert loaded("hf:some/model") == loaded(model)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (snapshot / name).read_bytes()
        for change in (_flip, _blank):
            change((snapshot / name).resolve())
            with pytest.raises(InputError, match=r"not what the Hub gave|JSON"):
                load("hf:some/model")
            (snapshot / name).resolve().write_bytes(content)
    assert loaded("hf:some/model") == loaded(model)


def test_shards_and_pickled_tensors_come_through(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    expected = loaded(model)
    weights = load_file(model / "model.safetensors")
    names = sorted(weights)
    parts = [names[::2], names[1::2]]
    for whole in ("model.safetensors", "pytorch_model.bin"):
        folder = Path(shutil.copytree(model, tmp_path / whole))
        (folder / "model.safetensors").unlink()
        suffix = whole.rpartition(".")[2]
        where: dict[str, str] = {}
        for number, part in enumerate(parts):
            file = folder / f"{number}.{suffix}"
            chosen = {name: weights[name] for name in part}
            if suffix == "bin":
                torch.save(chosen, file)
            else:
                save_file(chosen, file, {"format": "pt"})
            where |= dict.fromkeys(part, file.name)
        index = {"metadata": {}, "weight_map": where}
        (folder / f"{whole}.index.json").write_text(json.dumps(index))
        assert loaded(folder) == expected
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / f"hub-{suffix}"))
        hub(tmp_path / f"hub-{suffix}", "some/model", folder)
        assert loaded("hf:some/model") == expected


def test_neighbours_of_a_gguf_file_are_not_read(model: Path, adapted: Path, tmp_path: Path) -> None:
    alone, beside = tmp_path / "alone" / "m.gguf", tmp_path / "beside" / "m.gguf"
    alone.parent.mkdir()
    write_gguf(alone)
    shutil.copytree(model, beside.parent)
    shutil.copytree(adapted, beside.parent, dirs_exist_ok=True)
    config = beside.parent / "tokenizer_config.json"
    code = {"auto_map": {"AutoTokenizer": ["x.X", None]}, "bos_token": "a", "pad_token": "b"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **code}))
    shutil.copy(alone, beside)
    assert key(alone) == key(beside)
    first = {file.name: file.read_bytes() for file in unpacked(beside).iterdir()}
    shutil.rmtree(cache_folder())
    assert {file.name: file.read_bytes() for file in unpacked(alone).iterdir()} == first


def test_an_unpacked_folder_that_was_changed_is_unpacked_again(
    adapted: Path, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file)
    expected, folder = loaded(file), unpacked(file)
    content = {one.name: one.read_bytes() for one in folder.iterdir()}
    changes: list[Callable[[], object]] = [
        lambda: _flip(folder / "model.safetensors"),
        lambda: (folder / "tokenizer.json").unlink(),
        lambda: shutil.copytree(adapted, folder, dirs_exist_ok=True),
        lambda: (folder / "unpacked.json").write_text("{}"),
        lambda: (folder / "unpacked.json").unlink(),
    ]
    for change in changes:
        change()
        assert loaded(file) == expected
        assert {one.name: one.read_bytes() for one in folder.iterdir()} == content
