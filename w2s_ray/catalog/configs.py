"""The configuration fields of a model, from wherever its source keeps them.

A random model has them in the spec, a folder in ``config.json``, a GGUF file in its header, and a
Hub model in the local cache or else in ``published_models.json``. Nothing is downloaded. Fields are
returned by the names that Hugging Face configurations share (``hidden_size``, …).
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_ray.catalog.architectures import ARCHITECTURES
from w2s_ray.catalog.digests import hub_id, local_path
from w2s_ray.catalog.gguf_header import read_gguf_header
from w2s_ray.catalog.model_files import CONFIG, check_folder, check_tokenizer
from w2s_ray.catalog.random_init import complete_config
from w2s_ray.catalog.vocabularies import TOKENIZER, read_vocabulary
from w2s_ray.errors import InputError
from w2s_ray.foreign.json_file import read_json_object

if TYPE_CHECKING:
    from w2s_ray.spec.schema import ModelSpec

BYTES_VOCABULARY = 257  # 256 bytes and the pad token, whose id is the last
_GGUF_TOKENS = "tokenizer.ggml.tokens"
_GGUF_FIELDS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "max_position_embeddings": "context_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
}


def config_fields(model: "ModelSpec") -> Mapping[str, Any] | None:
    """Configuration fields of the whole model (``num_layers`` ignored), ``model_type`` included.

    Returns:
        None for a Hub model that is neither in the local cache nor among the published ones.

    Raises:
        InputError: the configuration cannot be read.
    """
    if model.source is None:
        assert model.architecture is not None
        fields = ARCHITECTURES[model.architecture].common_names(untrained_config(model))
        return {"model_type": model.architecture, **fields}
    name = hub_id(model.source)
    if name is not None:
        cached = _cached_config(name, model.revision)
        return _folder_config(cached.parent, model.source) if cached else _published_config(name)
    path = local_path(model.source)
    return _gguf_config(path) if path.is_file() else _folder_config(path, str(path))


def untrained_config(model: "ModelSpec") -> dict[str, Any]:
    """Every configuration field of an ``init: random`` model, by the names its architecture reads.

    Raises:
        InputError: a wrong field, or a tokenizer whose size cannot be read.
    """
    assert model.architecture is not None
    return complete_config(model.architecture, model.config, _vocabulary(model.tokenizer))


@cache
def published_models() -> Mapping[str, Mapping[str, Any]]:
    """Configuration fields of well-known Hub models, by ``ORG/NAME``."""
    text = Path(__file__).with_name("published_models.json").read_text()
    models: Mapping[str, Mapping[str, Any]] = json.loads(text)["models"]
    return models


def _folder_config(folder: Path, source: str) -> dict[str, Any]:
    config = check_folder(folder, source)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise InputError(
            f"model {folder / CONFIG}: model_type: {model_type!r}, expected the name of an "
            "architecture"
        )
    record = ARCHITECTURES.get(model_type)
    return config if record is None else record.common_names(config)


def _gguf_config(path: Path) -> dict[str, Any]:
    header = read_gguf_header(path)
    name = header.metadata.get("general.architecture")
    supported = [record.name for record in ARCHITECTURES.values() if record.in_gguf]
    if name not in supported:
        raise InputError(
            f"model {path}: GGUF architecture {name} is not supported, expected one of "
            f"{', '.join(supported)}"
        )
    embedding = header.tensors.get("token_embd.weight", ())
    if len(embedding) != 2:
        what = f"has {len(embedding)} dimensions, expected 2" if embedding else "is missing"
        raise InputError(f"model {path}: the weight token_embd.weight {what}")
    for key in (f"{name}.{key}" for key in _GGUF_FIELDS.values()):
        if key in header.lists:
            raise InputError(f"model {path}: {key} is a list, expected one number")
    fields = {field: header.metadata.get(f"{name}.{key}") for field, key in _GGUF_FIELDS.items()}
    return {
        "model_type": name,
        **{field: value for field, value in fields.items() if value is not None},
        "vocab_size": embedding[1],
    }


def _cached_config(name: str, revision: str | None) -> Path | None:
    """The ``config.json`` of a Hub model in the local cache; the network is not asked."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path) if isinstance(path, str) else None


def _published_config(name: str) -> Mapping[str, Any] | None:
    """Fields of a published model; variants of one size share them."""
    models = published_models()
    plain = name.removesuffix("-deduped").removesuffix("-Instruct")
    return models.get(plain) or models.get(f"openai-community/{plain}")


def _vocabulary(tokenizer: str) -> int | None:
    """Number of ids of an untrained model's tokenizer; None where it cannot be known offline."""
    if tokenizer == "bytes":
        return BYTES_VOCABULARY
    name = hub_id(tokenizer)
    if name is not None:
        cached = _cached_config(name, None)
        if cached is None:
            config = _published_config(name)
        else:
            config = read_json_object(cached, "config.bytes", f"tokenizer {tokenizer}")
        size = config.get("vocab_size") if config else None
        return size if isinstance(size, int) else None
    path = local_path(tokenizer)
    if path.is_file():
        header = read_gguf_header(path)
        if _GGUF_TOKENS not in header.lists:
            raise InputError(f"tokenizer {path}: expected a list {_GGUF_TOKENS} in its header")
        return int(header.metadata[_GGUF_TOKENS])
    return _folder_vocabulary(path)


def _folder_vocabulary(folder: Path) -> int:
    """One more than the largest id in the folder's ``tokenizer.json``."""
    check_tokenizer(folder)
    return read_vocabulary(folder / TOKENIZER, f"tokenizer {folder}")
