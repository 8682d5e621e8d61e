"""Attention over packed rows: many groups ``prompt | answer 1 | … | answer m`` in one line.

A token attends to the earlier tokens of its own group's prompt and of its own answer, and to no
others; at each answer positions restart after the prompt. So the answers share one computation of
their prompt, and every state equals that of prompt and answer in a row of their own.

It is registered with transformers as an attention function and as a mask function (``NAME``). The
mask function hands the rule by which a model masks the layers of one kind (causal, sliding window,
chunks) and the layout of the line to the attention function. A rule is applied to positions, so it
holds in a packed line too. Outside a packed line this is transformers' own SDPA. No model is
patched.

* CPU: a few groups of similar size at a time (``packed_layout.Block``). The kernel behind torch's
  SDPA is fast forward but not backward (2.8 ms against 0.8 for 9 heads of 120 tokens), so with
  gradients attention is computed by matrix products, scores and softmax in fp32.
* GPU: FlexAttention with a block mask, over the whole line.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from w2s_ray.models.finite_weights import weights_not_finite
from w2s_ray.models.packed_layout import BLOCK, Layout, PackedLine, lay_out

NAME = "w2s_packed"
# Keywords of attention functions that say nothing which masks and positions do not.
_WITHOUT_EFFECT = {
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "sliding_window",  # the mask function's rule
    "use_cache",
}
# Kinds of layers, as configurations name them, in which tokens meet in attention alone.
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass
class _Line:
    """The packed line of a forward pass, and in how many layers attention was computed here."""

    layout: Layout
    layers: int = 0


_line: ContextVar[_Line | None] = ContextVar("line", default=None)


class Pattern:
    """The rule by which a model masks the layers of one kind: its attention mask under ``NAME``.

    It is made once for each kind of layer in a forward pass.

    Args:
        arguments: of a mask function of transformers.
    """

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        self._restricted: Layout | None = None
        self.line = _line.get()

    def layout(self) -> Layout:
        """The layout of the packed line of this forward pass, restricted by the rule."""
        assert self.line is not None
        rule = self._arguments["mask_function"]
        if rule is causal_mask_function:
            return self.line.layout
        if self._restricted is None:
            self._restricted = self.line.layout.restricted(rule)
        return self._restricted

    def dense(self) -> Tensor | None:
        """The mask of separate rows for SDPA; None: causal."""
        mask: Tensor | None = sdpa_mask(**self._arguments)
        return mask


AttentionMaskInterface.register(NAME, Pattern)


@contextmanager
def packing(layout: Layout) -> Iterator[_Line]:
    """Within it, a model with this attention computes one line with this layout.

    The layout is no argument of the model, because some models hand no arguments on to attention.
    """
    line = _Line(layout)
    token = _line.set(line)
    try:
        yield line
    finally:
        _line.reset(token)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Pattern | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by transformers' interface: (C, heads, T, d) → (C, T, heads, d).

    ``key`` and ``value`` may have fewer heads than ``query`` (grouped queries). C is 1, unless
    several models compute the same line.

    Raises:
        ValueError: the model asks for something else than masks and soft-capping.
    """
    pattern = attention_mask if isinstance(attention_mask, Pattern) else None
    if pattern is None or pattern.line is None:
        mask: Any = attention_mask if pattern is None else pattern.dense()
        out, _ = sdpa_attention_forward(
            module, query, key, value, mask, dropout, scaling, softcap=softcap, **kwargs
        )
        return out, None
    unknown = [k for k, v in kwargs.items() if v is not None and k not in _WITHOUT_EFFECT]
    if unknown:
        raise ValueError(f"attention with {', '.join(unknown)} cannot be packed")
    pattern.line.layers += 1
    layout = pattern.layout()
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if layout.block_mask is not None:
        out = _flex(query, key, value, layout.block_mask, scale, softcap)
    elif torch.is_grad_enabled() or softcap is not None:
        repeat = query.shape[1] // key.shape[1]
        if repeat > 1:
            key, value = (t.repeat_interleave(repeat, dim=1) for t in (key, value))
        flat = (t.flatten(0, 1) for t in (query * scale, key, value))
        out = _GroupedAttention.apply(*flat, layout, softcap)  # type: ignore[no-untyped-call]
        out = out.view(*query.shape[:-1], value.shape[-1])
    else:
        out = _forward_only(query, key, value, layout, scale)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)


def _forward_only(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float
) -> Tensor:
    """Attention without gradients on a CPU: torch's SDPA, a block at a time."""
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    for block in layout.blocks:
        for q, k, v, target in zip(query, key, value, out, strict=True):
            q4, k4, v4 = (block.take(t).transpose(0, 1) for t in (q, k, v))
            mask = block.mask[:, None].to(q.dtype)
            values = nn.functional.scaled_dot_product_attention(
                q4, k4, v4, attn_mask=mask, scale=scale, enable_gqa=True
            )
            block.put(target, values.transpose(0, 1).flatten(0, 1))
    return out


class _GroupedAttention(torch.autograd.Function):
    """softmax(cap(q kᵀ) + mask) v of each group; q, k, v (heads, T, d)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, softcap: float | None
    ) -> Tensor:
        out = value.new_empty(value.shape)
        query_32, key_32 = query.float(), key.float()
        weights = []
        for block in layout.blocks:
            q, k, v = (block.take(t).flatten(0, 1) for t in (query_32, key_32, value))
            if block.count == 1 and softcap is None:
                scores = torch.baddbmm(block.mask, q, k.transpose(1, 2))
            else:
                scores = torch.bmm(q, k.transpose(1, 2))
                if softcap is not None:
                    scores.div_(softcap).tanh_().mul_(softcap)
                scores.view(-1, *block.mask.shape).add_(block.mask)
            weights.append(torch.softmax(scores, dim=-1).to(query.dtype))
            block.put(out, torch.bmm(weights[-1], v))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.blocks, ctx.softcap = layout.blocks, softcap
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_out,) = gradients
        query, key, value, *weights = ctx.saved_tensors
        grad_query, grad_key, grad_value = (torch.empty_like(t) for t in (query, key, value))
        for block, weight in zip(ctx.blocks, weights, strict=True):
            q, k, v, o = (block.take(t).flatten(0, 1) for t in (query, key, value, grad_out))
            block.put(grad_value, torch.bmm(weight.transpose(1, 2), o))
            grad_weight = torch.bmm(o, v.transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
            if ctx.softcap is not None:  # the slope of cap · tanh(score / cap)
                capped = torch.bmm(q.float(), k.float().transpose(1, 2)).div_(ctx.softcap).tanh_()
                grad_scores = grad_scores * (1 - capped.square_()).to(grad_scores.dtype)
            block.put(grad_query, torch.bmm(grad_scores, k))
            block.put(grad_key, torch.bmm(grad_scores.transpose(1, 2), q))
        return grad_query, grad_key, grad_value, None, None


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


@cache  # one function for each cap, or each would be compiled again
def _soft_capped(softcap: float) -> Callable[..., Tensor]:
    def capped(score: Tensor, *indices: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped


def _flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    scale: float,
    softcap: float | None = None,
) -> Tensor:
    """FlexAttention on a line padded to a multiple of ``BLOCK``, without its padding."""
    total = query.shape[2]
    padded = (nn.functional.pad(t, (0, 0, 0, -total % BLOCK)) for t in (query, key, value))
    how: dict[str, Any] = {"block_mask": mask, "scale": scale, "enable_gqa": True}
    if softcap is not None:
        how["score_mod"] = _soft_capped(softcap)
    out: Tensor = _compiled_flex()(*padded, **how)
    return out[:, :, :total]


def use_if_exact(module: PreTrainedModel) -> bool:
    """Turns packed attention on for a backbone, if it passes a test on a few tokens.

    The test compares with transformers' own attention on separate rows. A model that takes no
    positions, masks by itself (alibi), or mixes tokens outside attention (recurrent and
    convolutional layers) fails it, and keeps its own attention on separate rows.

    Returns:
        Whether packed attention is on.
    """
    config = module.config
    own = config._attn_implementation
    mixes = {*(getattr(config, "layer_types", None) or ())} - _ATTENTION
    exact = not mixes and _is_exact(module)
    config._attn_implementation = NAME if exact else own
    return exact


@torch.no_grad()
def causal_width(module: PreTrainedModel) -> int | None:
    """Width of the last states; None if a token's state depends on later ones.

    Raises:
        FloatingPointError: the states are not finite.
    """
    device = next(module.parameters()).device
    ids = torch.arange(1, 7, device=device)[None] * 7919 % int(module.config.vocab_size)
    short, whole = (module(input_ids=i, use_cache=False)[0] for i in (ids[:, :3], ids))
    if not whole.isfinite().all():
        at_fault = weights_not_finite(module)
        raise FloatingPointError(f"the states of a few tokens are not finite{at_fault}")
    tolerance = 1e-3 if whole.dtype == torch.float32 else 0.1
    error = (short - whole[:, :3]).abs().max() / whole.abs().max().clamp_min(1e-6)
    return int(whole.shape[-1]) if bool(error < tolerance) else None


@torch.no_grad()
def _is_exact(module: PreTrainedModel) -> bool:
    """Whether two small groups have the same last states packed and in separate rows."""
    segments = torch.tensor([[5, 3, 4], [2, 6, 1]])
    count = int(segments.sum())
    config: Any = module.config
    ids = torch.arange(count) * 7919 % int(config.vocab_size)
    device = next(module.parameters()).device
    theirs = separate(module, ids.to(device), segments.to(device))
    config._attn_implementation = NAME
    line = lay_out(segments.to(device))
    with packing(line.layout) as own:
        try:
            states = _forward(module, ids.to(device)[None], line.positions)
        except Exception as error:
            if own.layers:  # a device, head size or keyword that this attention does not support
                warnings.warn(f"packed attention: {type(error).__name__}: {error}", stacklevel=3)
            return False  # else a model with its own attention, which fails at the mask
    if own.layers != config.num_hidden_layers:
        return False
    difference = (states[0, line.last] - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6)
    return bool(difference < (1e-3 if next(module.parameters()).dtype == torch.float32 else 0.1))


def packed(module: nn.Module, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b·m, H) last states of every text of a packed line, each prompt computed once."""
    line = lay_out(segments)
    return states_of_line(module, input_ids[None], line)[0, line.last]


def states_of_line(module: nn.Module, input_ids: Tensor, line: PackedLine) -> Tensor:
    """(C, T, H) states of all tokens of a packed line, (C, T), which C models may compute."""
    with packing(line.layout):
        return _forward(module, input_ids, line.positions)


def _forward(module: nn.Module, input_ids: Tensor, positions: Tensor) -> Tensor:
    """States of a line; with a mask, for transformers else splits it where positions restart."""
    states: Tensor = module(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        position_ids=positions[None],
        use_cache=False,
    ).last_hidden_state
    return states


def separate(module: nn.Module, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b·m, H) last states of every text, each computed in a padded row of its own.

    Padding is on the right, where a causal model does not attend to it; hence no attention mask is
    needed, and attention keeps its fast causal kernel.
    """
    texts: list[Tensor] = []
    rows = torch.split(input_ids, segments.sum(dim=1).tolist())
    for row, sizes in zip(rows, segments.tolist(), strict=True):
        prompt, *answers = torch.split(row, sizes)
        texts += [torch.cat([prompt, answer]) for answer in answers]
    padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    states: Tensor = module(input_ids=padded, use_cache=False).last_hidden_state
    last = (segments[:, :1] + segments[:, 1:]).flatten() - 1
    return states[torch.arange(len(texts), device=last.device), last]
