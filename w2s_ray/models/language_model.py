"""A model with its language-model head: log-probabilities of answers after their prompts.

The backbone is the one that everything else here uses, with packed rows and shared prompts. Logits
are made of its states by the forward function of transformers' own class, whose backbone is
replaced by the states at hand; so scales, caps and biases of an architecture hold. A test at
loading compares them with those of the whole model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from w2s_ray.data.tokens import Tokens
from w2s_ray.errors import InputError
from w2s_ray.models.answer_states import packed_states, separate_states
from w2s_ray.models.backbone import (
    Backbone,
    backbone_of,
    check_dimensions,
    load_backbone,
    quiet,
    reading,
    training_config,
)
from w2s_ray.models.finite_weights import check_scores, weights_not_finite
from w2s_ray.models.folders import model_folder
from w2s_ray.models.given_states import GivenStates
from w2s_ray.models.inference import sweep, token_budget_of
from w2s_ray.models.split import split
from w2s_ray.models.structure import PRECISIONS, own_attention, untrained_language_model
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.spec.schema import ModelSpec

_LOGITS_AT_ONCE = 2**25  # numbers: 128 MiB in float32


@dataclass(frozen=True)
class LanguageModel:
    """A backbone and the class of transformers that makes logits of its states."""

    backbone: Backbone
    causal: PreTrainedModel
    states: GivenStates

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """(n, V) float32 from (n, H) states."""
        self.states.last_hidden_state = states[None]
        ids = torch.zeros(1, len(states), dtype=torch.int64, device=states.device)
        output: Any = self.causal(input_ids=ids, use_cache=False)
        logits: Tensor = output.logits[0].float()
        return logits


def load_language_model(model: ModelSpec, precision: str, gpus: int = 1) -> LanguageModel:
    """Loads weights, head and tokenizer.

    Args:
        gpus: of this machine, over which the backbone is split; the first one has the head.

    Raises:
        InputError: unreadable or unsupported model, no head, or one that cannot be computed apart
            from its backbone.
    """
    device = None if gpus == 1 else "cpu"  # until it is split
    if model.source is None:
        backbone = load_backbone(model, precision, device)
        causal = random_causal(model, backbone.module)
        setattr(causal, causal.base_model_prefix, backbone.module)
        causal.tie_weights()
    else:
        check_dimensions(model)
        causal = pretrained_causal(model, PRECISIONS[precision])
        base: Any = causal.base_model
        backbone = backbone_of(model, base, load_tokenizer(model), device)
    module = backbone.module
    causal.to(module.device)  # type: ignore[arg-type]
    sample = _sample(causal, module)
    if not sample.logits.isfinite().all():
        raise FloatingPointError(
            f"model {model.source or model.architecture}: the logits of a few tokens are not "
            f"finite{weights_not_finite(causal)}"
        )
    given = GivenStates()
    setattr(causal, causal.base_model_prefix, given)
    language_model = LanguageModel(backbone, causal, given)
    error = (language_model.logits(sample.states) - sample.logits).abs().max()
    relative = error / sample.logits.abs().max().clamp_min(1e-6)
    if not bool(relative < (1e-3 if module.dtype == torch.float32 else 0.1)):
        raise InputError(
            f"model {model.source or model.architecture}: the control untrained needs logits that "
            f"depend on the last states alone; those of {module.config.model_type} do not"
        )
    split_model = replace(language_model, backbone=split(backbone, gpus))
    causal.to(next(module.parameters()).device)  # type: ignore[arg-type]
    return split_model


class _Sample(NamedTuple):
    """What a whole model makes of a few tokens: (t, H) states and (t, V) float32 logits."""

    states: Tensor
    logits: Tensor


@torch.no_grad()
def _sample(causal: PreTrainedModel, module: PreTrainedModel) -> _Sample:
    """States and logits by transformers' own attention, to compare with."""
    config: Any = module.config
    used, config._attn_implementation = config._attn_implementation, own_attention(config)
    ids = torch.arange(1, 7, device=module.device)[None] * 7919 % int(config.vocab_size)
    try:
        states = module(input_ids=ids, use_cache=False).last_hidden_state[0]
        return _Sample(states, causal(input_ids=ids, use_cache=False).logits[0].float())
    finally:
        config._attn_implementation = used


def random_causal(model: ModelSpec, module: PreTrainedModel) -> PreTrainedModel:
    """The class with a head drawn at random, for a backbone with random weights."""
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(model.init_seed)
        causal = untrained_language_model(module.config)
    for parameter in causal.parameters():
        parameter.data = parameter.data.to(module.dtype)
    return causal


def pretrained_causal(model: ModelSpec, dtype: torch.dtype) -> PreTrainedModel:
    """The class with the weights of a pretrained model."""
    config = training_config(model)
    assert model.source is not None
    source, revision = model.source, model.revision
    with quiet(), reading(model), model_folder(source, revision, weights=True) as folder:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=own_attention(config),
            trust_remote_code=False,
            output_loading_info=True,
        )
    causal, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"model {source}: {len(missing)} weights are missing, the first is {missing[0]}"
        )
    whole: PreTrainedModel = causal
    return whole


def answer_log_probs(
    model: LanguageModel,
    tokens: Tokens,
    token_budget: int | None = None,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """(n, m) log p(answer | prompt), summed over the answer's tokens; equal for equal texts.

    The first token of a text has no token before it and is not counted.

    Args:
        token_budget: tokens of a forward pass; None: that of the device.
        progress: called after every forward pass, with the number of tokens done so far.
    """
    budget = token_budget or token_budget_of(model.backbone.module)
    sums = sweep(partial(_row_sums, model), tokens, budget, progress=progress)
    sums[tokens.identical] = sums[tokens.identical, :1]  # whatever rounding makes of them
    check_scores(sums, "the model's log-probabilities", tokens.row_ids, model.causal)
    return sums


def _row_sums(model: LanguageModel, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b, m) summed log-probabilities of the answers of b packed rows."""
    module = model.backbone.module
    input_ids, segments = input_ids.to(module.device), segments.to(module.device)
    read = packed_states if model.backbone.shares_prompts else separate_states
    scored = read(module, input_ids, segments)
    rows, answers = len(segments), segments.shape[1] - 1
    sums = torch.zeros(rows * answers, device=module.device)
    at_once = max(1, _LOGITS_AT_ONCE // int(module.config.vocab_size))
    for part in torch.split(torch.arange(len(scored.targets), device=module.device), at_once):
        logits = model.logits(scored.states[scored.before[part]])
        chosen = logits.gather(1, scored.targets[part, None])[:, 0]
        sums.index_add_(0, scored.answer[part], chosen - logits.logsumexp(dim=1))
    return sums.view(rows, answers)
