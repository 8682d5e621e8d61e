"""Forward passes of a model on torch's meta device, where tensors have shapes but no values.

Attention computes nothing, but keeps for the backward pass what the packed attention of a device
keeps. A model that does not use transformers' attention interface is computed with its own
attention.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

_NAMES = {"cpu": "w2s_shapes_cpu", "gpu": "w2s_shapes_gpu"}


class Pass(NamedTuple):
    """A forward pass.

    Attributes:
        states: the last ones, (1, T, H).
        heads: of all layers whose attention is replaced; 0: the model has its own.
    """

    states: Tensor
    heads: int


def forward(
    module: PreTrainedModel,
    tokens: int,
    device: str = "cpu",
    restart: Callable[[], None] = lambda: None,
) -> Pass:
    """The states of one row.

    Args:
        module: a backbone on the meta device.
        device: gpu or cpu, whose attention is replaced.
        restart: called before each attempt.

    Raises:
        Exception: the model's forward pass depends on values.
    """
    config: Any = module.config
    own = config._attn_implementation
    inputs = {"input_ids": torch.zeros(1, tokens, dtype=torch.int64, device="meta")}
    # With a mask, because without one transformers asks whether positions restart.
    masked = {**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])}
    heads: list[int] = []
    try:
        config._attn_implementation = _NAMES[device]
        AttentionInterface.register(_NAMES[device], partial(_attend, heads, device == "gpu"))
        return _pass(module, masked, heads, restart)
    except Exception:
        config._attn_implementation = own
        heads.clear()
        try:
            return _pass(module, inputs, heads, restart)
        except Exception:
            return _pass(module, masked, heads, restart)
    finally:
        config._attn_implementation = own


def _pass(
    module: PreTrainedModel,
    inputs: dict[str, Tensor],
    heads: list[int],
    restart: Callable[[], None],
) -> Pass:
    restart()
    states: Tensor = module(**inputs, use_cache=False).last_hidden_state
    return Pass(states, sum(heads))


class _Mask:
    """A mask that only ``_attend`` accepts."""

    def __init__(self, **arguments: Any) -> None:
        del arguments


for _name in _NAMES.values():
    AttentionMaskInterface.register(_name, _Mask)


def _attend(
    heads: list[int],
    gpu: bool,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: _Mask,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention that keeps what ``packed_attention.attend`` keeps, but for the CPU's scores."""
    heads.append(query.shape[1])
    if gpu:  # each is padded, and so copied
        query, key, value = query.clone(), key.clone(), value.clone()
    else:
        query = query * 1.0  # scaled
        repeat = query.shape[1] // key.shape[1]
        if repeat > 1:
            key, value = (t.repeat_interleave(repeat, dim=1) for t in (key, value))
    keep: Any = _Kept.apply
    out = keep(query, key, value, gpu)
    return out.transpose(1, 2).contiguous(), None


class _Kept(torch.autograd.Function):
    """Keeps queries, keys, values, and on a GPU the output and its normalisers."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, gpu: bool) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        more = [out, query.new_empty(query.shape[:-1], dtype=torch.float32)] if gpu else []
        ctx.save_for_backward(query, key, value, *more)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError
