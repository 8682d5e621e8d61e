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
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = PRECISIONS[precision]
    with quiet(), torch.random.fork_rng(devices=[]):
        config = training_config(model)
        attention = _attention(config, model, dtype, device)
        config._attn_implementation = own_attention(config)
        with init_empty_weights(include_buffers=False):
            module = untrained_module(config)
        tokenizer = load_tokenizer(model)
        stored = _stored(model, module) if reads else {}
    for buffers in (part._buffers for part in module.modules()):
        for name, buffer in buffers.items():
            buffers[name] = None if buffer is None else buffer.to(device)
    for prefix, part in module.named_modules():
        own = list(part.named_parameters(recurse=False))
        for name, parameter in own:
            whole = torch.empty(parameter.shape, dtype=dtype, device=device)
            if reads:
                source = stored[f"{prefix}.{name}".lstrip(".")]
                with safe_open(source.file, framework="pt") as opened:
                    whole.copy_(opened.get_tensor(source.key))
            part._parameters[name] = nn.Parameter(whole)
        if own:
            partition(part)
    if attention.shares_prompts:
        config._attn_implementation = packed_attention.NAME
    layers = config.num_hidden_layers
    return Backbone(module.train(), tokenizer, attention.width, layers, attention.shares_prompts)


class _Attention(NamedTuple):
    """What a test of a few random blocks says of the whole model.

    Attributes:
        width: of the last states.
        shares_prompts: whether prompts can be shared.
    """

    width: int
    shares_prompts: bool


def _attention(
    config: PreTrainedConfig, model: ModelSpec, dtype: torch.dtype, device: str
) -> _Attention:
    """Tests the first blocks of the architecture, with random weights: one of each type."""
    small = deepcopy(config)
    types = getattr(config, "layer_types", None) or ["any"]
    keep_first_blocks(small, 1 + max(types.index(kind) for kind in set(types)))
    small.vocab_size, small._attn_implementation = 64, own_attention(config)
    torch.default_generator.manual_seed(0)
    with torch.device(device):
        blocks = untrained_module(small)
    for parameter in blocks.parameters():
        parameter.data = parameter.data.to(dtype)
    width = state_width(blocks, model.source)
    return _Attention(width, packed_attention.use_if_exact(blocks.train()))


class _Stored(NamedTuple):
    """A tensor in a safetensors file."""

    file: Path
    key: str


def _stored(model: ModelSpec, module: PreTrainedModel) -> dict[str, _Stored]:
    """The stored tensor of every parameter, by the parameter's name."""
    assert model.source is not None
    prefix = f"{module.base_model_prefix}."
    stored: dict[str, _Stored] = {}
    with reading(model):
        folder = checked_folder(model.source, model.revision, weights=True)
    for file in filter(Path.is_file, safetensors_files(folder)):
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
        stored |= {key.removeprefix(prefix): _Stored(file, key) for key in keys}
    missing = [name for name, _ in module.named_parameters() if name not in stored]
    if missing:
        raise InputError(
            f"model {model.source}: {len(missing)} weights are missing in its safetensors files, "
            f"the first is {missing[0]}"
        )
    return stored
