"""Random models small enough for every test, one of each architecture."""

from typing import Any

import torch
from torch import Tensor

from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.plan.untrained import ARCHITECTURES
from w2s_ray.spec.schema import ModelSpec

__all__ = ["ARCHITECTURES", "batch", "tiny", "tiny_spec"]


def tiny_spec(architecture: str, **fields: Any) -> ModelSpec:
    config: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    # Weights well above the usual scale: blocks must matter, or no test here would see them.
    config |= {"initializer_range": 0.2, **fields.pop("config", {})}
    return ModelSpec.model_validate(
        {"init": "random", "architecture": architecture, "config": config, **fields}
    )


def tiny(architecture: str, precision: str = "fp32", **fields: Any) -> Backbone:
    return load_backbone(tiny_spec(architecture, **fields), precision, "cpu")


def batch(*texts: list[int], padding: int = 0) -> tuple[Tensor, Tensor]:
    """input_ids (rows, T) padded on the right, lengths (rows,)."""
    width = max(map(len, texts))
    rows = [text + [padding] * (width - len(text)) for text in texts]
    return torch.tensor(rows), torch.tensor([len(text) for text in texts])
