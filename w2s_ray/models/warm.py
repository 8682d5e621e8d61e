"""Small backbones stay loaded from one step of a process to the next.

Loading SmolLM2-135M takes 0.7 s, a copy of it 0.1 s. What is kept is never handed out: every step
gets a copy, which it may train, fill with other weights or compile. Models above
``LARGEST_WARM_BYTES`` are loaded anew, since two of them may not fit.
"""

from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace

from w2s_ray.capacity.memory import LARGEST_WARM_BYTES
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.spec.schema import ModelSpec

KEPT_MODELS = 2  # a weak and a strong one

_kept: OrderedDict[tuple[str, str], Backbone] = OrderedDict()


def own_backbone(model: ModelSpec, precision: str) -> Backbone:
    """As ``load_backbone``, for the caller alone."""
    key = (model.model_dump_json(), precision)
    backbone = _kept.get(key) or load_backbone(model, precision)
    if sum(p.numel() * p.element_size() for p in backbone.module.parameters()) > LARGEST_WARM_BYTES:
        return backbone
    _kept[key] = backbone
    _kept.move_to_end(key)
    if len(_kept) > KEPT_MODELS:
        _kept.popitem(last=False)
    return replace(backbone, module=deepcopy(backbone.module))
