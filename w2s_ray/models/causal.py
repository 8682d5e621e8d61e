"""A causal language model as transformers has it, to generate with and to train on text.

It has its head, transformers' own attention (SDPA where the architecture has it) and a cache of
keys and values; scorers, in contrast, are backbones with packed rows. Sources and the number of
blocks are those of every model of a spec. A trained state is a file of the trained parameters by
their names in the whole module, after adapters were added to its base model for LoRA.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from w2s_ray.errors import InputError
from w2s_ray.models.backbone import check_dimensions, quiet, state_width, untrained_backbone
from w2s_ray.models.finite_weights import weights_not_finite
from w2s_ray.models.language_model import pretrained_causal, random_causal
from w2s_ray.models.structure import PRECISIONS
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.models.trainable import inject_adapters, load_state
from w2s_ray.plan.configs import Training
from w2s_ray.spec.schema import Lora, ModelSpec


@dataclass(frozen=True)
class CausalModel:
    """A language model in eval mode, its tokenizer, and the tokens that end a text.

    Attributes:
        module: returns ``logits`` (rows, T, V) and, with ``use_cache=True``, its cache.
        tokenizer: has a pad token.
        end_ids: generation stops at any of them; the first is the one that a trained text ends in.
        name: of the model in messages.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    end_ids: tuple[int, ...]
    name: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.module.device
        return device


def load_causal(
    model: ModelSpec,
    precision: str,
    state: Path | None = None,
    training: Training | None = None,
    *,
    device: torch.device | str | None = None,
) -> CausalModel:
    """Loads weights, head and tokenizer, and puts a trained state into them.

    Args:
        model: what to load.
        precision: "bf16" or "fp32", of the weights; random weights are drawn in fp32 first.
        state: a safetensors file of the trained parameters; None: the model as it is.
        training: how ``state`` was trained; given if and only if ``state`` is.
        device: of the weights; None: the GPU if this process sees one, else the CPU.

    Raises:
        InputError: an unreadable or unsupported model, one whose tokens see later ones, or one
            without an end token.
        ValueError: the state is that of another model or of another training.
        FloatingPointError: the logits of a few tokens are not finite.
    """
    assert (state is None) == (training is None), "a state is read as its training wrote it"
    check_dimensions(model)
    dtype = PRECISIONS[precision]
    if model.source is None:
        with quiet(), torch.random.fork_rng(devices=[]):
            base = untrained_backbone(model, dtype)
        module = random_causal(model, base)
        setattr(module, module.base_model_prefix, base)
        module.tie_weights()
    else:
        module = pretrained_causal(model, dtype)
    tokenizer = load_tokenizer(model)
    if state is not None and training is not None:
        set_text_trainable(module, training.trainable, training.lora, seed=0)
        load_text_state(module, load_file(state))
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    module.to(device)  # type: ignore[arg-type]
    backbone: Any = module.base_model
    module.config.use_cache = backbone.config.use_cache = True
    module.train(False)
    _check(module, model.source or model.architecture)
    ends = end_ids_of(module, tokenizer, model)
    return CausalModel(module, tokenizer, ends, str(model.source or model.architecture))


def set_text_trainable(
    module: PreTrainedModel, trainable: str, lora: Lora | None, seed: int
) -> list[nn.Parameter]:
    """Freezes what is not trained; adds adapters to the base model for "lora".

    The head has none: it is often tied to the embeddings.

    Args:
        module: a causal language model, changed in place.
        trainable: "full" or "lora".
        lora: rank, alpha and the modules that get adapters; None for "full".
        seed: of the adapters' first factor; the second starts at 0, so outputs are unchanged.

    Returns:
        The parameters to train, in the order of ``module.named_parameters()``.

    Raises:
        InputError: the base model has none of the named modules, or they are experts.
    """
    assert trainable in ("full", "lora"), trainable
    module.requires_grad_(trainable == "full")
    if trainable == "lora":
        assert lora is not None
        base: Any = module.base_model
        inject_adapters(base, lora, seed)
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def load_text_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads the trained parameters of ``set_text_trainable``, cast to the module's dtypes.

    Raises:
        ValueError: names or shapes are not those of the trained parameters.
    """
    load_state(module, state)


def end_ids_of(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, model: ModelSpec
) -> tuple[int, ...]:
    """The tokens that generation stops at, the tokenizer's own first.

    They are those of the model's config and of its tokenizer. A random model's config names ids of
    the vocabulary that its architecture was published with, so only its tokenizer counts; where
    that has no end token either (bytes), its pad token ends a text, which no text contains.

    Raises:
        InputError: there is none.
    """
    ids: list[int] = []
    if tokenizer.eos_token_id is not None:
        ids.append(int(tokenizer.eos_token_id))
    if model.source is not None:
        given = module.config.eos_token_id
        ids += [] if given is None else [given] if isinstance(given, int) else given
    elif not ids and tokenizer.pad_token_id is not None:
        ids.append(int(tokenizer.pad_token_id))
    size = int(module.config.vocab_size)
    ends = tuple(token for token in dict.fromkeys(ids) if 0 <= token < size)
    if not ends:
        raise InputError(
            f"model {model.source or model.architecture}: no token ends its texts: expected "
            "eos_token_id in config.json or eos_token in the tokenizer"
        )
    return ends


@torch.no_grad()
def _check(module: PreTrainedModel, name: object) -> None:
    """Refuses a model whose tokens see later ones, or whose logits are not finite."""
    base: Any = module.base_model
    state_width(base, name)
    ids = torch.arange(1, 7, device=module.device)[None] * 7919 % int(module.config.vocab_size)
    if not module(input_ids=ids, use_cache=False).logits.isfinite().all():
        raise FloatingPointError(
            f"model {name}: the logits of a few tokens are not finite{weights_not_finite(module)}"
        )
