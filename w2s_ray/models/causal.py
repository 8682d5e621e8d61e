"""A causal language model that generates: transformers' own class, with a key-value cache.

Its weights are those of a model of the spec, and on top what a step has trained (``TextState``: the
trained parameters by their names in this class).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from w2s_ray.errors import InputError
from w2s_ray.models.language_model import load_language_model
from w2s_ray.models.structure import own_attention
from w2s_ray.models.trainable import inject_adapters, load_named
from w2s_ray.plan.configs import Training
from w2s_ray.spec.schema import Lora, ModelSpec


@dataclass(frozen=True)
class CausalModel:
    """Attributes:
    module: maps tokens to (B, T, V) logits; its parameters need no gradients.
    tokenizer: of the model.
    end_ids: tokens that end an answer, the one that training writes first.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    end_ids: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        device: torch.device = self.module.device
        return device


def load_causal(
    model: ModelSpec,
    precision: str,
    state: Path | None = None,
    training: Training | None = None,
) -> CausalModel:
    """Loads a model, ready to generate.

    Args:
        state: file of the parameters that a step has trained; None: the model as it is.
        training: how they were trained.

    Raises:
        InputError: unreadable or unsupported model, or one without an end token.
    """
    module, tokenizer, _ = whole_model(model, precision)
    backbone: Any = module.base_model
    backbone.config._attn_implementation = own_attention(backbone.config)
    for config in (module.config, backbone.config):
        config.use_cache = True
    if state is not None:
        assert training is not None
        set_text_trainable(module, training.trainable, training.lora or Lora(), seed=0)
        load_named(module, load_file(state))
    module.requires_grad_(False)
    return CausalModel(module.train(False), tokenizer, end_ids(module, tokenizer, model))


class Whole(NamedTuple):
    """A backbone and its head in one module.

    Attributes:
        shares_prompts: whether the backbone computes packed lines.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    shares_prompts: bool


def whole_model(model: ModelSpec, precision: str) -> Whole:
    """The backbone that all else here uses (first blocks only, dropout off) with its head.

    Raises:
        InputError: unreadable or unsupported model, or one without a head.
    """
    loaded = load_language_model(model, precision)
    causal, backbone = loaded.causal, loaded.backbone
    setattr(causal, causal.base_model_prefix, backbone.module)
    causal.tie_weights()
    return Whole(causal, backbone.tokenizer, backbone.shares_prompts)


def end_ids(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, model: ModelSpec
) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's, and those of the generation's settings.

    Raises:
        InputError: there is none.
    """
    settings: GenerationConfig | None = getattr(module, "generation_config", None)
    configured = None if settings is None else settings.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    ids = dict.fromkeys([tokenizer.eos_token_id, *listed])
    found = tuple(int(i) for i in ids if i is not None)
    if not found:
        raise InputError(
            f"model {model.source or model.architecture}: its tokenizer has no end token, expected "
            "one, with which answers end"
        )
    return found


def set_text_trainable(
    module: PreTrainedModel, trainable: str, lora: Lora, seed: int
) -> list[nn.Parameter]:
    """Freezes what is not trained; adds adapters to the backbone for "lora".

    Args:
        module: a whole language model, changed in place.
        trainable: "full" (the head too, tied or not) or "lora" (adapters of the backbone).

    Returns:
        The parameters to train, in the order of ``module.named_parameters()``.
    """
    assert trainable in ("full", "lora")
    module.requires_grad_(trainable == "full")
    if trainable == "lora":
        inject_adapters(module.base_model, lora, seed)
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
