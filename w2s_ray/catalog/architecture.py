"""The names that other rooms import from here; they live in the modules named below."""

from w2s_ray.catalog.configs import config_fields, untrained_config
from w2s_ray.catalog.identity import weights_identity
from w2s_ray.catalog.shapes import Shape, shape, shape_of

__all__ = [
    "Shape",
    "config_fields",
    "shape",
    "shape_of",
    "untrained_config",
    "weights_identity",
]
