"""A model over several GPUs of one machine, a stretch of its blocks on each: for inference.

One GPU computes at a time, so this takes more GPU time than a model that one GPU holds; it is for
those that none does (``capacity.fit_gpus``). Accelerate's hooks move the states from one GPU to the
next. They move no block masks, so each text is computed in a row of its own
(``packed_attention.separate``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from accelerate import dispatch_model
from torch import nn
from transformers import PreTrainedModel

from w2s_ray.capacity.memory import blocks_of_gpus
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.models.structure import blocks_path, own_attention
from w2s_ray.models.warm import own_backbone
from w2s_ray.spec.schema import ModelSpec


def backbone_for(model: ModelSpec, precision: str, gpus: int) -> Backbone:
    """The backbone of a step that may split it: by ``split``, once all weights are there.

    Args:
        gpus: over which it will be split; 1: it is on its device already.
    """
    return own_backbone(model, precision) if gpus == 1 else load_backbone(model, precision, "cpu")


def split(backbone: Backbone, gpus: int) -> Backbone:
    """The backbone over ``gpus`` of this process; itself where one suffices, or on the CPU.

    Raises:
        RuntimeError: the process has fewer.
    """
    if gpus == 1 or not torch.cuda.is_available():
        return backbone
    seen = torch.cuda.device_count()
    if seen < gpus:
        raise RuntimeError(f"the model needs {gpus} GPUs of one machine, this process has {seen}")
    return split_over(backbone, [torch.device("cuda", number) for number in range(gpus)])


def split_over(backbone: Backbone, devices: Sequence[torch.device]) -> Backbone:
    """The backbone with its blocks on these devices, and all else on the first of them."""
    module = backbone.module
    module.config._attn_implementation = own_attention(module.config)
    places = dict(_places(module, devices))
    dispatch_model(module, places, main_device=devices[0], force_hooks=True)
    return replace(backbone, shares_prompts=False)


def _places(
    module: PreTrainedModel, devices: Sequence[torch.device]
) -> Iterator[tuple[str, torch.device]]:
    """Names of modules and parameters, and the device of each."""
    before = ""
    part: nn.Module = module
    for step in blocks_path(module).split("."):
        beside = [name for name, _ in part.named_children() if name != step]
        own = [name for name, _ in part.named_parameters(recurse=False)]
        yield from ((before + name, devices[0]) for name in (*beside, *own))
        before, part = f"{before}{step}.", part.get_submodule(step)
    assert isinstance(part, nn.ModuleList)
    first = 0
    for device, count in zip(devices, blocks_of_gpus(len(part), len(devices)), strict=True):
        yield from ((f"{before}{number}", device) for number in range(first, first + count))
        first += count
