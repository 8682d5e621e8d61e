"""What a model's weights and tokenizer are, for the key of a step: content, never a path."""

from typing import TYPE_CHECKING, Any

from w2s_ray.catalog.configs import untrained_config
from w2s_ray.catalog.digests import digest, file_identity, hub_id, local_path
from w2s_ray.catalog.model_files import CHAT_TEMPLATE, folder_identity, tokenizer_folder_identity
from w2s_ray.catalog.shapes import shape

if TYPE_CHECKING:
    from w2s_ray.spec.schema import ModelSpec


def weights_identity(model: "ModelSpec") -> dict[str, Any]:
    """What identifies the model's weights in a key.

    A folder and a GGUF file are identified by SHA-256, so that a package and a copy of its file are
    one model; a Hub model by name and revision; a random one by everything it is drawn from.
    Keeping all blocks of a local model is the same as not setting ``num_layers``.

    Raises:
        InputError: the model cannot be read, is not supported, or has fewer blocks than asked for.
    """
    kept = shape(model)
    layers = model.num_layers
    if model.source is not None and hub_id(model.source):
        return {**_source_identity(model.source, model.revision), "num_layers": layers}
    whole = shape(model.model_copy(update={"num_layers": None}))
    layers = None if kept == whole else layers
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


def template_identity(model: "ModelSpec") -> dict[str, Any]:
    """What identifies a chat template that lies beside a tokenizer's files; {} where none does.

    It is no part of the tokenizer's identity, since only a rendering by it reads it.
    """
    source = model.source or model.tokenizer
    if source == "bytes" or hub_id(source):
        return {}
    template = local_path(source) / CHAT_TEMPLATE
    return {"chat_template": digest(template)} if template.is_file() else {}


def tokenizer_identity(tokenizer: str) -> Any:
    """What identifies the tokenizer of an untrained model: ``bytes``, or its source's content.

    Raises:
        InputError: there is no such tokenizer.
    """
    if tokenizer == "bytes":
        return tokenizer
    if hub_id(tokenizer):
        return _source_identity(tokenizer, None)
    path = local_path(tokenizer)
    return file_identity(path) if path.is_file() else tokenizer_folder_identity(path)


def _source_identity(source: str, revision: str | None) -> dict[str, Any]:
    name = hub_id(source)
    if name is not None:
        return {"hub": name, "revision": revision or "main"}
    path = local_path(source)
    return file_identity(path) if path.is_file() else folder_identity(path)
