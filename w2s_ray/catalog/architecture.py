"""What a plan knows of a model without loading it: identity, shape and number of parameters.

Costs, memory and keys are computed before anything is spent, on machines that may have no torch.
So everything comes from configuration files and headers; the formulas are held to the real models
by tests. A hub model that is not in the local cache is looked up in ``architectures.json``; one
that is not there either has no shape (None), which only makes estimates poorer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_ray.catalog.digests import (
    file_identity,
    folder_identity,
    hub_id,
    local_path,
    tokenizer_folder_identity,
)
from w2s_ray.catalog.gguf_header import read_gguf_header
from w2s_ray.catalog.random_init import ALIASES, ARCHITECTURES, complete_config
from w2s_ray.errors import InputError

if TYPE_CHECKING:
    from w2s_ray.spec.schema import ModelSpec

BYTES_VOCABULARY = 257  # 256 bytes and the pad token
GGUF_ARCHITECTURES = ("gpt2", "llama", "qwen2")  # those that transformers unpacks
_GGUF_FIELDS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "max_position_embeddings": "context_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A backbone's dimensions.

    Attributes:
        layers: blocks that are kept.
        hidden_size: width of the readout.
        vocab_size: rows of the embedding.
        parameters: of the embeddings, the kept blocks and the final norm; no LM head.
        architecture: gpt2, gpt_neox, llama or qwen2.
        max_positions: longest input in tokens.
        intermediate_size: inner width of a feed-forward layer.
        heads, kv_heads, head_width: of attention; queries are heads × head_width wide.
        vectors: of the parameters, those in norms and biases.
    """

    layers: int
    hidden_size: int
    vocab_size: int
    parameters: int
    architecture: str
    max_positions: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_width: int
    vectors: int

    @property
    def embeddings(self) -> int:
        """Parameters of the token embedding and, for GPT-2, of the positions."""
        positions = self.max_positions if self.architecture == "gpt2" else 0
        return (self.vocab_size + positions) * self.hidden_size

    @property
    def block(self) -> int:
        """Parameters of one block."""
        final = self.hidden_size * (2 if self.architecture in ("gpt2", "gpt_neox") else 1)
        return (self.parameters - self.embeddings - final) // self.layers


def weights_identity(model: "ModelSpec") -> dict[str, Any]:
    """What the model's weights are, for a key: content, never a place.

    A folder and a GGUF file are named by SHA-256, so a package and a copy of its file are one
    model; a hub model by id and revision; a random one by everything that it is drawn from. To
    keep all blocks of a local model is the same as to say nothing.

    Raises:
        InputError: the model cannot be read, is not supported, or has fewer blocks than asked for.
    """
    known = shape(model)
    layers = model.num_layers
    if model.source is not None and hub_id(model.source):
        return {**_source_identity(model.source, model.revision), "num_layers": layers}
    whole = shape(model.model_copy(update={"num_layers": None}))
    layers = None if known == whole else layers
    if model.source is not None:
        return {**_source_identity(model.source, None), "num_layers": layers}
    return {
        "init": "random",
        "architecture": model.architecture,
        "config": untrained_config(model),
        "tokenizer": tokenizer_identity(model.tokenizer),
        "init_seed": model.init_seed,
        "num_layers": layers,
    }


def tokenizer_identity(tokenizer: str) -> Any:
    """What the tokenizer of an untrained model is: ``bytes`` or the content of its source."""
    if tokenizer == "bytes" or hub_id(tokenizer):
        return tokenizer if tokenizer == "bytes" else _source_identity(tokenizer, None)
    path = local_path(tokenizer)
    return file_identity(path) if path.is_file() else tokenizer_folder_identity(path)


def shape(model: "ModelSpec") -> Shape | None:
    """The dimensions of the model, cut to its first ``num_layers`` blocks.

    Returns:
        None for a hub model that is neither in the local cache nor known.

    Raises:
        InputError: as ``weights_identity``.
    """
    name = model.source or f"init: random, {model.architecture}"
    config = config_fields(model)
    if config is None:
        return None
    try:
        layers = int(config["num_hidden_layers"])
        if model.num_layers is not None and model.num_layers > layers:
            raise InputError(f"model {name}: num_layers: {model.num_layers}, it has {layers}")
        return shape_of(config, model.num_layers)
    except KeyError as error:
        raise InputError(f"model {name}: its configuration has no {error.args[0]}") from error


def shape_of(fields: Mapping[str, Any], layers: int | None = None) -> Shape:
    """The dimensions that the fields of a Hugging Face ``config.json`` give.

    Args:
        fields: GPT-2's own names or the common ones, ``model_type`` among them.
        layers: blocks that are kept; None: all.

    Raises:
        KeyError: a field that is needed is not there.
    """
    config = _common_names(fields)
    kept = layers or int(config["num_hidden_layers"])
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    parameters, vectors = _parameters(config, kept)
    return Shape(
        layers=kept,
        hidden_size=hidden,
        vocab_size=int(config["vocab_size"]),
        parameters=parameters,
        architecture=str(config["model_type"]),
        max_positions=int(config["max_position_embeddings"]),
        intermediate_size=int(config.get("intermediate_size") or 4 * hidden),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_width=int(config.get("head_dim") or hidden // heads),
        vectors=vectors,
    )


def untrained_config(model: "ModelSpec") -> dict[str, Any]:
    """Every configuration field of an ``init: random`` model, by Hugging Face name."""
    assert model.architecture is not None
    return complete_config(model.architecture, model.config, _vocabulary(model.tokenizer))


def _source_identity(source: str, revision: str | None) -> dict[str, Any]:
    name = hub_id(source)
    if name is not None:
        return {"hub": name, "revision": revision or "main"}
    path = local_path(source)
    return file_identity(path) if path.is_file() else folder_identity(path)


def config_fields(model: "ModelSpec") -> Mapping[str, Any] | None:
    """Hugging Face fields of the whole model, ``model_type`` among them.

    None for a hub model that is neither in the local cache nor known.
    """
    if model.source is None:
        return _common_names({"model_type": model.architecture, **untrained_config(model)})
    name = hub_id(model.source)
    if name is not None:
        cached = _cached_config(name, model.revision)
        return _read_config(cached) if cached else _known_config(name)
    path = local_path(model.source)
    return _gguf_config(path) if path.is_file() else _read_config(path / "config.json")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"model {path.parent}: expected a config.json, there is none") from error
    except ValueError as error:
        raise InputError(f"model {path}: not readable as JSON: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in ARCHITECTURES:
        raise InputError(
            f"model {path}: architecture {kind} is not supported, expected one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    return _common_names(config)


def _common_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-2's own names of fields replaced by those of the other architectures."""
    aliases = ALIASES if config["model_type"] == "gpt2" else {}
    return {aliases.get(field, field): value for field, value in config.items()}


def _gguf_config(path: Path) -> dict[str, Any]:
    header = read_gguf_header(path)
    kind = header.metadata.get("general.architecture")
    if kind not in GGUF_ARCHITECTURES:
        raise InputError(
            f"model {path}: GGUF architecture {kind} is not supported, expected one of "
            f"{', '.join(GGUF_ARCHITECTURES)}"
        )
    found = {field: header.metadata.get(f"{kind}.{name}") for field, name in _GGUF_FIELDS.items()}
    return {
        "model_type": kind,
        **{field: value for field, value in found.items() if value is not None},
        "vocab_size": header.tensors["token_embd.weight"][1],
    }


def _cached_config(name: str, revision: str | None) -> Path | None:
    """The hub's ``config.json`` in the local cache, found without any network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None


def _known_config(name: str) -> dict[str, Any] | None:
    known: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_name("architectures.json").read_text()
    )["models"]
    plain = name.removesuffix("-deduped").removesuffix("-Instruct")
    return known.get(plain) or known.get(f"openai-community/{plain}")


def _vocabulary(tokenizer: str) -> int | None:
    """Number of ids of an untrained model's tokenizer; None for a hub's that is not known."""
    if tokenizer == "bytes":
        return BYTES_VOCABULARY
    name = hub_id(tokenizer)
    if name is not None:
        cached = _cached_config(name, None)
        config = json.loads(cached.read_text()) if cached else _known_config(name)
        return config.get("vocab_size") if config else None
    path = local_path(tokenizer)
    if path.is_file():
        return int(read_gguf_header(path).metadata["tokenizer.ggml.tokens"])
    try:
        content = json.loads((path / "tokenizer.json").read_text())
        vocabulary = content["model"]["vocab"]
        added = [token["id"] + 1 for token in content.get("added_tokens", ())]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"tokenizer {path}: expected a readable tokenizer.json") from error
    own = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    return int(max([0, *added, *(number + 1 for number in own)]))


def _parameters(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """Exact number of parameters of a backbone of ``layers`` blocks; of them, those in vectors."""
    hidden, kind = config["hidden_size"], config["model_type"]
    inner = config.get("intermediate_size") or 4 * hidden
    embedding = config["vocab_size"] * hidden
    heads = config["num_attention_heads"]
    if kind in ("gpt2", "gpt_neox"):  # biases everywhere, two layer norms a block
        bias = 4 * hidden if config.get("attention_bias", True) else 0
        vectors = 4 * hidden + bias + inner + hidden
        block = 4 * hidden**2 + 2 * hidden * inner
        positions = config["max_position_embeddings"] * hidden if kind == "gpt2" else 0
        vectors = layers * vectors + 2 * hidden
        return int(embedding + positions + layers * block + vectors), int(vectors)
    width = config.get("head_dim") or hidden // heads
    queries, keys = heads * width, (config.get("num_key_value_heads") or heads) * width
    block = 2 * hidden * (queries + keys) + 3 * hidden * inner
    vectors = 2 * hidden
    if kind == "qwen2" or config.get("attention_bias"):
        vectors += queries + 2 * keys
    if kind == "llama" and config.get("attention_bias"):
        vectors += hidden
    if config.get("mlp_bias"):
        vectors += 2 * inner + hidden
    vectors = layers * vectors + hidden
    return int(embedding + layers * block + vectors), int(vectors)
