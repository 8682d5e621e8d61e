"""A backbone that no process ever holds whole: read a parameter at a time, sharded at once.

The model is built without numbers. Then rank 0 reads one parameter after the other from the
safetensors files and ``partition`` spreads it over the ranks, so that a process holds its share and
one parameter, in host memory as on its device. Whether prompts can be shared is a matter of the
architecture, not of the weights: one random block of the same shape answers it.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel

from w2s_ray.errors import InputError
from w2s_ray.models import packed_attention
from w2s_ray.models.backbone import (
    PRECISIONS,
    Backbone,
    first_blocks,
    own_config,
    place,
    quiet,
    readable,
)
from w2s_ray.models.preflight import weight_files
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.spec.schema import ModelSpec

Partition = Callable[[nn.Module], None]


def load_partitioned(
    model: ModelSpec, precision: str, partition: Partition, *, reads: bool
) -> Backbone:
    """As ``load_backbone``, in shards; every rank must call it.

    Args:
        model: not one with random weights, which are drawn as a whole.
        partition: shards the parameters that a module owns itself; the values of rank 0 count.
        reads: whether this process is rank 0, which reads the files.

    Raises:
        InputError: unreadable or unsupported model, or a Hub that cannot be reached.
    """
    assert model.source is not None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = PRECISIONS[precision]
    with quiet(), torch.random.fork_rng(devices=[]):
        config = own_config(model)
        shares = _shares_prompts(config, dtype, device)
        with init_empty_weights(include_buffers=False):
            module: PreTrainedModel = MODEL_MAPPING[type(config)](config)  # type: ignore[operator]
        tokenizer = load_tokenizer(model)
        places = _places(model, module) if reads else {}
    for buffers in (part._buffers for part in module.modules()):
        for name, buffer in buffers.items():
            buffers[name] = None if buffer is None else buffer.to(device)
    for prefix, part in module.named_modules():
        own = list(part.named_parameters(recurse=False))
        for name, parameter in own:
            whole = torch.empty(parameter.shape, dtype=dtype, device=device)
            if reads:
                file, key = places[f"{prefix}.{name}".lstrip(".")]
                with safe_open(file, framework="pt") as opened:
                    whole.copy_(opened.get_tensor(key))
            part._parameters[name] = nn.Parameter(whole)
        if own:
            partition(part)
    config._attn_implementation = packed_attention.NAME if shares else "sdpa"
    return Backbone(module.train(), tokenizer, config.hidden_size, config.num_hidden_layers, shares)


def _shares_prompts(config: PreTrainedConfig, dtype: torch.dtype, device: str) -> bool:
    """What ``use_if_exact`` says of the architecture, by one random block of it."""
    small = deepcopy(config)
    first_blocks(small, 1)
    small.vocab_size, small._attn_implementation = 64, "sdpa"
    torch.default_generator.manual_seed(0)
    with torch.device(device):
        block: PreTrainedModel = MODEL_MAPPING[type(small)](small)  # type: ignore[operator]
    for parameter in block.parameters():
        parameter.data = parameter.data.to(dtype)
    alike = len(set(getattr(config, "layer_types", None) or ["any"])) == 1  # else it speaks for few
    return alike and packed_attention.use_if_exact(block.train())


def _places(model: ModelSpec, module: PreTrainedModel) -> dict[str, tuple[Path, str]]:
    """Parameter -> its file and its name there."""
    folder = _folder(model)
    prefix = f"{module.base_model_prefix}."
    found: dict[str, tuple[Path, str]] = {}
    for file in filter(Path.is_file, weight_files(folder)):
        with safe_open(file, framework="pt") as opened:
            found |= {key.removeprefix(prefix): (file, key) for key in opened.keys()}  # noqa: SIM118
    missing = [name for name, _ in module.named_parameters() if name not in found]
    if missing:
        raise InputError(
            f"model {model.source}: {len(missing)} weights are missing in its safetensors files, "
            f"the first is {missing[0]}"
        )
    return found


def _folder(model: ModelSpec) -> Path:
    found = place(model)
    if isinstance(found, Path):
        return found
    wanted = ["*.safetensors", "*.json"]
    with readable(model):
        return Path(snapshot_download(found, revision=model.revision, allow_patterns=wanted))
