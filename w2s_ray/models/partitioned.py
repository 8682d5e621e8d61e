"""Loads a backbone that no process can hold whole: each parameter is sharded when it is read.

The model is built without values. Then rank 0 reads the parameters one by one from the safetensors
files and ``partition`` shards each over the ranks, so that a process holds its shards and one whole
parameter, in host memory as on its device. Whether prompts can be shared depends on the
architecture and not on the weights, so it is tested on one random block of the same shape.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from w2s_ray.catalog.model_files import safetensors_files
from w2s_ray.errors import InputError
from w2s_ray.models import packed_attention
from w2s_ray.models.backbone import (
    Backbone,
    quiet,
    reading,
    state_width,
    training_config,
)
from w2s_ray.models.folders import checked_folder
from w2s_ray.models.structure import (
    PRECISIONS,
    keep_first_blocks,
    own_attention,
    untrained_module,
)
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.spec.schema import ModelSpec

Partition = Callable[[nn.Module], None]
Read = Callable[[str], Tensor]


def load_partitioned(
    model: ModelSpec, precision: str, partition: Partition, *, reads: bool
) -> Backbone:
    """Loads a backbone as ``load_backbone`` does, but in shards; every rank must call it.

    Args:
        model: a pretrained model; random weights are only drawn whole.
        partition: shards a module's own parameters, with the values of rank 0.
        reads: whether this process is rank 0, which reads the files.

    Raises:
        InputError: unreadable or unsupported model, or a Hub that cannot be reached.
    """
    assert model.source is not None
    dtype = PRECISIONS[precision]
    with quiet(), torch.random.fork_rng(devices=[]):
        config = training_config(model)
        attention = _attention(config, model, dtype)
        config._attn_implementation = own_attention(config)
        with init_empty_weights(include_buffers=False):
            module = untrained_module(config)
        tokenizer = load_tokenizer(model)
        read = stored(model, module) if reads else None
    fill(module, dtype, partition, read)
    if attention.shares_prompts:
        config._attn_implementation = packed_attention.NAME
    layers = config.num_hidden_layers
    return Backbone(module.train(), tokenizer, attention.width, layers, attention.shares_prompts)


def fill(
    module: PreTrainedModel, dtype: torch.dtype, partition: Partition, read: Read | None
) -> None:
    """Gives a module without values its parameters, each of which is sharded before the next.

    A parameter of several names, such as a head that is the embedding, stays one. Children come
    before their parents: DeepSpeed shards all that is below a module.

    Args:
        read: gives a parameter by its name; None: this process is not the one that reads.

    Raises:
        FloatingPointError: one that was read is not finite.
    """
    device = _device()
    for buffers in (part._buffers for part in module.modules()):
        for name, buffer in buffers.items():
            buffers[name] = None if buffer is None else buffer.to(device)
    made: dict[nn.Parameter, nn.Parameter] = {}  # by what was there without values
    names = {parameter: name for name, parameter in module.named_parameters()}
    for _, part in reversed(list(module.named_modules())):
        own = list(part.named_parameters(recurse=False))
        before = len(made)
        for name, empty in own:
            if empty not in made:
                whole = torch.empty(empty.shape, dtype=dtype, device=device)
                if read is not None:
                    whole.copy_(read(names[empty]))
                    if not whole.isfinite().all():
                        raise FloatingPointError(f"the weights {names[empty]} are not finite")
                made[empty] = nn.Parameter(whole)
            part._parameters[name] = made[empty]
        if len(made) > before:
            partition(part)


def small_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """That of the first blocks of an architecture, one of each type, with few tokens.

    What holds of them with random weights, such as that prompts can be shared, holds of the whole.
    """
    small = deepcopy(config)
    types = getattr(config, "layer_types", None) or ["any"]
    keep_first_blocks(small, 1 + max(types.index(kind) for kind in set(types)))
    small.vocab_size, small._attn_implementation = 64, own_attention(config)
    return small


def random_blocks(
    make: Callable[[PreTrainedConfig], PreTrainedModel],
    config: PreTrainedConfig,
    dtype: torch.dtype,
) -> PreTrainedModel:
    """A model of ``small_config`` with random weights."""
    torch.default_generator.manual_seed(0)
    with torch.device(_device()):
        blocks = make(small_config(config))
    for parameter in blocks.parameters():
        parameter.data = parameter.data.to(dtype)
    blocks.train()
    return blocks


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class _Attention(NamedTuple):
    """What a test of a few random blocks says of the whole model.

    Attributes:
        width: of the last states.
        shares_prompts: whether prompts can be shared.
    """

    width: int
    shares_prompts: bool


def _attention(config: PreTrainedConfig, model: ModelSpec, dtype: torch.dtype) -> _Attention:
    blocks = random_blocks(untrained_module, config, dtype)
    width = state_width(blocks, model.source)
    return _Attention(width, packed_attention.use_if_exact(blocks))


class _Stored(NamedTuple):
    """A tensor in a safetensors file."""

    file: Path
    key: str


def stored(model: ModelSpec, module: PreTrainedModel) -> Read:
    """What reads every parameter of a module from the model's files.

    Raises:
        InputError: the files lack one, or they cannot be read.
    """
    assert model.source is not None
    prefix = f"{module.base_model_prefix}."
    found: dict[str, _Stored] = {}
    renamed = _renaming(module)
    with reading(model):
        folder = checked_folder(model.source, model.revision, weights=True)
    for file in filter(Path.is_file, safetensors_files(folder)):
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
        found |= {renamed(key): _Stored(file, key) for key in keys}
    for key, tensor in list(found.items()):  # a backbone alone, or with a head around it
        found.setdefault(key.removeprefix(prefix), tensor)
        found.setdefault(f"{prefix}{key}", tensor)
    missing = [name for name, _ in module.named_parameters() if name not in found]
    if missing:
        raise InputError(
            f"model {model.source}: {len(missing)} weights are missing in its safetensors files, "
            f"the first is {missing[0]}"
        )

    def read(name: str) -> Tensor:
        with safe_open(found[name].file, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(found[name].key)
            return tensor

    return read


def _renaming(module: PreTrainedModel) -> Callable[[str], str]:
    """From names in files, of which some architectures have others, to those of the module."""
    transforms = get_model_conversion_mapping(module)
    renamings = [of for of in transforms if isinstance(of, WeightRenaming)]

    def renamed(key: str) -> str:
        for renaming in renamings:
            key, _ = renaming.rename_source_key(key)
        return key

    return renamed
