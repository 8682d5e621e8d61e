"""Random models small enough for every test, one of each architecture, and lines for them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from w2s_ray.catalog.architectures import ARCHITECTURES
from w2s_ray.models.backbone import Backbone, load_backbone
from w2s_ray.models.structure import untrained_language_model
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.spec.schema import ModelSpec

__all__ = ["ARCHITECTURES", "line", "saved", "texts", "tiny", "tiny_spec"]


def tiny_spec(architecture: str, **fields: Any) -> ModelSpec:
    config: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    # Weights well above the usual scale: blocks must matter, or no test here would see them.
    config |= {"initializer_range": 0.2, **fields.pop("config", {})}
    return ModelSpec.model_validate(
        {"init": "random", "architecture": architecture, "config": config, **fields}
    )


def tiny(architecture: str, precision: str = "fp32", **fields: Any) -> Backbone:
    return load_backbone(tiny_spec(architecture, **fields), precision, "cpu")


def saved(folder: Path, architecture: str = "llama", *, tied: bool = True) -> ModelSpec:
    """A tiny language model in several files."""
    config = tiny(architecture).module.config
    config.tie_word_embeddings, config.eos_token_id = tied, 0
    torch.manual_seed(1)
    module = untrained_language_model(config)
    module.save_pretrained(folder, max_shard_size="30KB")
    bytes_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return ModelSpec(source=str(folder))


def line(*rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """input_ids (T,) and segments (rows, 1 + m) of rows [prompt, answer 1, …, answer m]."""
    ids = [token for row in rows for part in row for token in part]
    return torch.tensor(ids), torch.tensor([[len(part) for part in row] for row in rows])


def texts(*answers: list[int]) -> tuple[Tensor, Tensor]:
    """A line of one text a row, without prompts."""
    return line(*([[], answer] for answer in answers))
