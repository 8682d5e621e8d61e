"""Random models small enough for every test, one of each architecture, and lines for them."""

from typing import Any

import torch
from torch import Tensor

from w2s_ray.catalog.architectures import ARCHITECTURES
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.spec.schema import ModelSpec

__all__ = ["ARCHITECTURES", "line", "texts", "tiny", "tiny_spec"]


def tiny_spec(architecture: str, **fields: Any) -> ModelSpec:
    config: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    # Weights well above the usual scale: blocks must matter, or no test here would see them.
    config |= {"initializer_range": 0.2, **fields.pop("config", {})}
    return ModelSpec.model_validate(
        {"init": "random", "architecture": architecture, "config": config, **fields}
    )


def tiny(architecture: str, precision: str = "fp32", **fields: Any) -> Backbone:
    return load_backbone(tiny_spec(architecture, **fields), precision, "cpu")


def line(*rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """input_ids (T,) and segments (rows, 1 + m) of rows [prompt, answer 1, …, answer m]."""
    ids = [token for row in rows for part in row for token in part]
    return torch.tensor(ids), torch.tensor([[len(part) for part in row] for row in rows])


def texts(*answers: list[int]) -> tuple[Tensor, Tensor]:
    """A line of one text a row, without prompts."""
    return line(*([[], answer] for answer in answers))
