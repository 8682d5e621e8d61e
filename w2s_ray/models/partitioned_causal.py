"""Loads a language model that no process can hold whole, as ``partitioned`` does a backbone."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import PreTrainedConfig

from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.backbone import quiet, state_width, training_config
from w2s_ray.models.causal import CausalModel, end_ids_of
from w2s_ray.models.partitioned import Partition, fill, random_blocks, stored
from w2s_ray.models.structure import PRECISIONS, untrained_language_model
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.spec.schema import ModelSpec


def load_partitioned_causal(
    model: ModelSpec,
    precision: str,
    partition: Partition,
    *,
    reads: bool,
    state: Callable[[], Mapping[str, Tensor]] | None = None,
) -> tuple[CausalModel, AnswerScorer]:
    """Loads a language model and its scorer as ``load_causal`` does, but in shards.

    Every rank must call it. What ``AnswerScorer`` tests is tested on a few random blocks.

    Args:
        model: a pretrained model; random weights are only drawn whole.
        partition: shards a module's own parameters, with the values of rank 0.
        reads: whether this process is rank 0, which reads the files.
        state: gives all parameters of an earlier full training, by their names, in place of those
            in the files; asked on rank 0 alone.

    Raises:
        InputError: as ``load_causal`` and ``AnswerScorer``.
        ValueError: the state is that of another model.
        FloatingPointError: a parameter that was read is not finite; names it.
    """
    assert model.source is not None
    dtype = PRECISIONS[precision]
    with quiet(), torch.random.fork_rng(devices=[]):
        config = training_config(model)
        shares_prompts = _shares_prompts(config, model, dtype)
        with init_empty_weights(include_buffers=False):
            module = untrained_language_model(config)
        module.tie_weights()
        tokenizer = load_tokenizer(model)
        read = None
        if reads:
            read = stored(model, module) if state is None else _of_state(state(), module)
    fill(module, dtype, partition, read)
    ends = end_ids_of(module, tokenizer, model)
    causal = CausalModel(module.train(), tokenizer, ends, model.source)
    return causal, AnswerScorer(module, shares_prompts=shares_prompts)


def _shares_prompts(config: PreTrainedConfig, model: ModelSpec, dtype: torch.dtype) -> bool:
    """Whether prompts can be shared, if the model can be used at all."""
    blocks = random_blocks(untrained_language_model, config, dtype)
    base: Any = blocks.base_model
    state_width(base, model.source)
    return AnswerScorer(blocks).shares_prompts


def _of_state(state: Mapping[str, Tensor], module: torch.nn.Module) -> Callable[[str], Tensor]:
    """What reads the parameters of a trained state.

    Raises:
        ValueError: names or shapes are not those of the module.
    """
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if own != given:
        differ = sorted(
            name for name in own.keys() | given.keys() if own.get(name) != given.get(name)
        )
        raise ValueError(
            f"state of another model: {len(differ)} parameters differ, the first is {differ[0]}"
        )
    return state.__getitem__
