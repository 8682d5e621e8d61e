"""Checks models before any work is done, so that a bad one costs a second and not a night.

What would stop a step in its first minute is detected from headers of files and from the model
built on torch's meta device, where tensors have shapes but no values: an unknown activation or
rotary embedding, weights that are missing or of another shape, a tokenizer with more ids than the
embedding has rows, adapters for modules that do not exist. Of a GGUF file only the header is
checked, since unpacking takes longer; Hub weights that are not cached yet are not checked.
"""

import re
import textwrap
from collections.abc import Container, Mapping
from pathlib import Path

import torch
from huggingface_hub import is_offline_mode, try_to_load_from_cache
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from w2s_ray.catalog.configs import config_fields, untrained_config
from w2s_ray.catalog.digests import WEIGHTS, hub_id, local_path
from w2s_ray.catalog.gguf_header import read_gguf_header
from w2s_ray.catalog.model_files import safetensors_files, weight_files
from w2s_ray.catalog.vocabularies import TOKENIZER, read_vocabulary
from w2s_ray.errors import InputError, at
from w2s_ray.foreign.patterns import full_matches
from w2s_ray.models.backbone import check_dimensions, quiet
from w2s_ray.models.folders import model_folder, tokenizer_folder
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.structure import (
    check_supported,
    is_converted,
    keep_first_blocks,
    own_attention,
    prepare_config,
    untrained_language_model,
    untrained_module,
)
from w2s_ray.models.tokenizer import first_line, load_tokenizer
from w2s_ray.models.trainable import set_trainable
from w2s_ray.models.weight_headers import check_gguf_header, check_headers
from w2s_ray.spec.schema import Lora, ModelSpec

TARGETS = ("training", "lora", "target_modules")


def check_models(
    models: Mapping[str, ModelSpec],
    lora: Lora | None,
    sharded: Container[str] = (),
    with_head: Container[str] = (),
) -> None:
    """Checks configuration, tokenizer and weights of every model, without loading the weights.

    Args:
        models: by name; those that the steps still to be run will load.
        lora: the adapters that the models will get; None: none of them is trained with adapters.
        sharded: names of the models whose parameters will be sharded (ZeRO-3).
        with_head: names of the models whose language-model head is needed.

    Raises:
        InputError: a model cannot be used; ``place`` is the model's in the spec, or that of
            ``target_modules``.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        for name, model in models.items():
            with at("models", name):
                module = _on_meta(model)
                _check_tokenizer(model, int(module.config.vocab_size))
                _check_weights(model, module)
                if name in with_head and not _is_gguf(model):  # one without a head is tied
                    with torch.device("meta"):
                        whole = untrained_language_model(module.config)
                    _check_weights(model, whole)
                if name in sharded:
                    _check_shardable(model, module)
            if lora is not None and lora.target_modules != "all-linear":
                _check_targets(name, module, lora, name in sharded)


def _on_meta(model: ModelSpec) -> PreTrainedModel:
    """The backbone without values; its parameters are those that loading will need."""
    name = f"model {model.source or model.architecture}"
    try:
        config = model_config(model)
        check_dimensions(model)
        check_supported(config, model.source or model.architecture)
        prepare_config(config)
        config._attn_implementation = own_attention(config)
        if model.num_layers is not None:
            keep_first_blocks(config, model.num_layers)
        with torch.device("meta"):
            module = untrained_module(config)
    except InputError:
        raise
    except OSError as error:
        what = "not in the local cache, or the Hub did not answer" if _hub(model) else "unreadable"
        raise InputError(f"{name}: {what}: {first_line(error)}") from error
    except Exception as error:  # transformers raises all kinds
        kind = type(error).__name__
        raise InputError(f"{name}: its config is refused: {kind}: {first_line(error)}") from error
    return module


def model_config(model: ModelSpec) -> PreTrainedConfig:
    """The configuration as transformers would read it; of a GGUF file, from its header."""
    if model.source is None:
        assert model.architecture is not None
        return AutoConfig.for_model(model.architecture, **untrained_config(model))
    if _hub(model) is None and local_path(model.source).is_file():
        fields = dict(config_fields(model) or {})
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    with model_folder(model.source, model.revision, weights=False) as folder:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config._attn_implementation = "eager"  # a configuration may name a kernel of the Hub
    return config


def _is_gguf(model: ModelSpec) -> bool:
    return model.source is not None and _hub(model) is None and local_path(model.source).is_file()


def _hub(model: ModelSpec) -> str | None:
    return hub_id(model.source) if model.source is not None else None


def _check_tokenizer(model: ModelSpec, rows: int) -> None:
    """Refuses a tokenizer without words, or with a word or a pad token beyond the embedding.

    Other special tokens may lack a row, since they are not in texts: transformers adds those that
    it expects an architecture to have.
    """
    source = model.source or model.tokenizer
    if source != "bytes" and hub_id(source) is None and local_path(source).is_file():
        return  # in a GGUF file: checked when it is unpacked
    try:
        if source != "bytes":
            with tokenizer_folder(source, model.revision if model.source else None) as folder:
                if (folder / TOKENIZER).is_file():
                    read_vocabulary(folder / TOKENIZER, f"tokenizer {source}")
        tokenizer = load_tokenizer(model)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises plain exceptions
        raise InputError(f"tokenizer {source}: cannot be read: {first_line(error)}") from error
    words = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    if not words:  # what transformers makes of a folder without one
        raise InputError(f"tokenizer {source}: has no words, expected a tokenizer.json")
    largest = max(*words, tokenizer.pad_token_id)
    if largest >= rows:
        raise InputError(
            f"tokenizer {source}: ids up to {largest}, expected less than {rows}, the rows of the "
            "model's embedding"
        )


def _check_weights(model: ModelSpec, module: PreTrainedModel) -> None:
    """Refuses weights that are missing, of another shape or quantised, by their headers."""
    if model.source is None:
        return
    path = local_path(model.source) if _hub(model) is None else None
    if path is not None and path.is_file():
        check_gguf_header(model.source, read_gguf_header(path), module)
        return
    folder = _folder(model)
    if folder is None:
        return
    files = weight_files(folder)
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        if _hub(model) is None:
            what = f"{missing[0]} is missing" if missing else f"expected {WEIGHTS}, there is none"
            raise InputError(f"model {model.source}: {what}")
        if is_offline_mode():
            raise InputError(
                f"model {model.source}: its weights are not in the local cache, and HF_HUB_OFFLINE "
                "is set"
            )
        return  # downloaded when they are needed
    check_headers(model.source, files, module)


def _check_shardable(model: ModelSpec, module: PreTrainedModel) -> None:
    """Refuses a model whose parameters are not, as they are, in the safetensors files."""
    if is_converted(module.config) and any(p.ndim == 3 for p in module.parameters()):
        raise InputError(
            f"model {model.source}: experts cannot be read in shards, expected a ZeRO stage below 3"
        )
    folder = _folder(model)
    if folder is not None and _hub(model) is None and not safetensors_files(folder):
        raise InputError(
            f"model {model.source}: expected safetensors files under ZeRO stage 3, there are only "
            "pytorch_model*.bin"
        )


def _folder(model: ModelSpec) -> Path | None:
    """The folder with the model's files.

    Returns:
        None for random weights, a GGUF file, and a Hub model that is not cached.
    """
    if model.source is None:
        return None
    name = _hub(model)
    if name is not None:
        config = try_to_load_from_cache(name, "config.json", revision=model.revision)
        return Path(config).parent if isinstance(config, str) else None
    path = local_path(model.source)
    return path if path.is_dir() else None


def _check_targets(name: str, module: PreTrainedModel, lora: Lora, sharded: bool) -> None:
    """Refuses modules that cannot have adapters.

    One matched module of each class is tested: adapters for all of them would take seconds.
    """
    pattern = lora.target_modules
    parts = dict(module.named_modules())
    try:
        matched = full_matches(pattern, list(parts), f"modules of model {name!r}")
    except InputError as error:
        raise InputError(f"training.lora.target_modules: {error}", TARGETS) from None
    kinds = {type(parts[path]): path for path in matched}
    for kind, match in kinds.items():
        # peft keeps an embedding's adapter in a dictionary, which ZeRO-3 ignores.
        if sharded and not issubclass(kind, nn.Linear | Conv1D):
            raise InputError(
                f"training.lora.target_modules: given {pattern!r}, which matches {match} "
                f"({kind.__name__}) of model {name!r}, expected linear layers alone under "
                "ZeRO stage 3",
                TARGETS,
            )
    pattern = "|".join(map(re.escape, kinds.values())) or pattern
    lora = lora.model_copy(update={"target_modules": pattern})
    scorer = Scorer(module, 1, num_classes=2, per_row=2)
    try:
        set_trainable(scorer, "lora", lora, seed=0)
    except InputError as error:
        message = textwrap.shorten(str(error), 300)
        raise InputError(f"{message} (model {name!r})", TARGETS) from error
