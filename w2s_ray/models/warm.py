"""Small backbones stay loaded between the steps of a process.

Loading SmolLM2-135M takes 0.7 s, copying it 0.1 s. Every step gets a copy of the cached backbone,
which it may train, fill with other weights or compile. Models above ``LARGEST_WARM_BYTES`` are
loaded each time, since two of them may not fit in memory.
"""

from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace

from w2s_ray.capacity.memory import LARGEST_WARM_BYTES
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.spec.schema import ModelSpec

CACHED = 2  # backbones: a weak and a strong one

_cached: OrderedDict[tuple[str, str], Backbone] = OrderedDict()


def own_backbone(model: ModelSpec, precision: str) -> Backbone:
    """As ``load_backbone``, from the cache if possible; the caller may change the backbone."""
    key = (model.model_dump_json(), precision)
    backbone = _cached.get(key) or load_backbone(model, precision)
    if sum(p.numel() * p.element_size() for p in backbone.module.parameters()) > LARGEST_WARM_BYTES:
        return backbone
    _cached[key] = backbone
    _cached.move_to_end(key)
    if len(_cached) > CACHED:
        _cached.popitem(last=False)
    return replace(backbone, module=deepcopy(backbone.module))
