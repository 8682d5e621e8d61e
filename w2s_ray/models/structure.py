"""What differs between architectures, read off the model and its configuration."""

from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.pytorch_utils import Conv1D

from w2s_ray.errors import InputError
from w2s_ray.models.without_values import forward

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}  # by their names in a spec


def check_supported(config: PreTrainedConfig, model: object) -> None:
    """Refuses what is not a causal language model of text.

    Args:
        model: the model's source, for the message.

    Raises:
        InputError: another kind of model.
    """
    kind = type(config)
    why = None
    if config.get_text_config() is not config:
        why = "it does not read text alone"
    elif config.is_encoder_decoder:
        why = "it has an encoder"
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING or kind not in MODEL_MAPPING:
        why = "it is not a causal language model of transformers"
    if why is not None:
        raise InputError(
            f"model {model}: architecture {config.model_type} is not supported: {why} "
            "(docs/architectures.md)"
        )


def config_from(fields: dict[str, Any], model: object) -> PreTrainedConfig:
    """The configuration with these fields of a ``config.json``; no code of the model runs.

    Raises:
        InputError: the installed transformers has no such architecture, or refuses the fields.
    """
    kind = str(fields.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise InputError(
            f"model {model}: architecture {kind} is not one of transformers "
            f"{transformers.__version__}"
        )
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(fields)
    except Exception as error:  # transformers raises all kinds
        raise InputError(
            f"model {model}: its config is refused: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error) else ''}"
        ) from error
    return config


def untrained_module(config: PreTrainedConfig) -> PreTrainedModel:
    """The backbone with random weights, or without values on the meta device."""
    module: PreTrainedModel = MODEL_MAPPING[type(config)](config)  # type: ignore[operator]
    return module


def untrained_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A backbone and its language-model head, as ``untrained_module``."""
    whole = deepcopy(config)
    whole._attn_implementation = own_attention(config)
    module: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](whole)  # type: ignore[operator]
    return module


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape of a parameter, even if this process holds only a shard of it (ZeRO 3)."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def own_attention(config: PreTrainedConfig) -> str:
    """The implementation of attention by transformers that separate rows are computed with."""
    kind: Any = MODEL_MAPPING[type(config)]
    return "sdpa" if kind._supports_sdpa else "eager"


def prepare_config(config: PreTrainedConfig) -> None:
    """No randomness in training, no cache, and no pad token, whose embedding would not be trained.

    Random are dropout, dropped layers, and noise on the choice of experts.
    """
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        for name, value in part.to_dict().items():
            random = "drop" in name or name.endswith("jitter_noise")
            if random and isinstance(value, int | float) and not isinstance(value, bool):
                setattr(part, name, type(value)(0))
    config.use_cache = False
    config.pad_token_id = None


def keep_first_blocks(config: PreTrainedConfig, count: int) -> None:
    """Reduces a configuration to its first ``count`` blocks, and all that it lists for each."""
    whole = config.num_hidden_layers
    for name, value in vars(config).copy().items():
        if isinstance(value, list) and len(value) == whole:
            setattr(config, name, value[:count])
    config.num_hidden_layers = count


def blocks_path(module: PreTrainedModel) -> str:
    """The name, in a backbone, of the list of its transformer blocks.

    Raises:
        InputError: there is no such list.
    """
    count = module.config.num_hidden_layers
    lists = (name for name, part in module.named_modules() if isinstance(part, nn.ModuleList))
    for name in sorted(lists, key=lambda name: name.count(".")):
        if len(list(module.get_submodule(name).children())) == count:
            return str(name)
    raise InputError(
        f"architecture {module.config.model_type} is not supported: it has no list of blocks"
    )


def blocks_of(module: PreTrainedModel) -> list[nn.Module]:
    """The transformer blocks of a backbone."""
    return list(module.get_submodule(blocks_path(module)).children())


class Stock(NamedTuple):
    """The class of transformers that an exported scorer is read by.

    Attributes:
        name: of the class.
        backbone: its attribute that holds the backbone.
        head: name of the head's weight, its only parameter.
        final_bias: name, in the backbone, of the bias of the layer that gives the last states;
            None: it has none.
    """

    name: str
    backbone: str
    head: str
    final_bias: str | None


def stock_of(config: PreTrainedConfig) -> Stock:
    """The stock class for a backbone with this configuration.

    Raises:
        InputError: there is none, or its head is not one linear layer without bias.
    """
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if kind is None:
        raise InputError(
            f"execution.export_models: a model of architecture {config.model_type} cannot be "
            "exported: transformers has no class for its scores (docs/architectures.md)",
            ("execution", "export_models"),
        )
    small = deepcopy(config)
    keep_first_blocks(small, 1)
    small.num_labels = 3
    small._attn_implementation = own_attention(config)
    with torch.device("meta"):
        whole: PreTrainedModel = kind(small)
    prefix = whole.base_model_prefix
    heads = [name for name, _ in whole.named_parameters() if not name.startswith(f"{prefix}.")]
    if len(heads) != 1 or not heads[0].endswith(".weight"):
        raise InputError(
            f"execution.export_models: a model of architecture {config.model_type} cannot be "
            f"exported: the head of {kind.__name__} is not one linear layer without bias",
            ("execution", "export_models"),
        )
    backbone: Any = whole.base_model
    return Stock(kind.__name__, prefix, heads[0], _final_bias(backbone))


def is_converted(config: PreTrainedConfig) -> bool:
    """Whether files hold some weights otherwise than the model does: experts one by one."""
    conversions: Any = get_checkpoint_conversion_mapping
    return conversions(config.model_type) is not None


def linear_layers(module: nn.Module) -> list[str]:
    """Names of all linear layers."""
    return [n for n, part in module.named_modules() if isinstance(part, nn.Linear | Conv1D)]


def transposed_layers(module: nn.Module) -> frozenset[str]:
    """Names of the linear layers whose weight is stored as (in, out), adapted or not."""
    names = (name for name, part in module.named_modules() if isinstance(part, Conv1D))
    return frozenset(name.removesuffix(".base").removesuffix(".base_layer") for name in names)


def _final_bias(backbone: PreTrainedModel) -> str | None:
    """The bias of the layer that gives the last states; ``backbone`` is on the meta device."""
    given: dict[int, tuple[str, Any]] = {}
    handles = [
        part.register_forward_hook(partial(_note, given, name))
        for name, part in backbone.named_modules()
        if getattr(part, "bias", None) is not None
    ]
    try:
        states = forward(backbone, 2, restart=given.clear).states
    except Exception:  # not computable without values
        return None
    finally:
        for handle in handles:
            handle.remove()
    storage = states.untyped_storage()
    return f"{given[storage._cdata][0]}.bias" if storage._cdata in given else None


def _note(
    given: dict[int, tuple[str, Any]], name: str, part: nn.Module, args: Any, output: Any
) -> None:
    """Forward hook: which module gave the tensor of which storage, which lives on."""
    if isinstance(output, torch.Tensor):
        storage = output.untyped_storage()
        given[storage._cdata] = (name, storage)
