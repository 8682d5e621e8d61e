"""Attention over packed rows: many groups ``prompt | answer 1 | … | answer m`` in one line.

A token attends to the earlier tokens of its own group's prompt and of its own answer, and to no
others; at each answer positions restart after the prompt. So the answers share one computation of
their prompt, and every state equals that of prompt and answer in a row of their own.

It is registered with transformers as an attention function (``NAME``), which receives the keyword
``layout`` in every layer; without a layout it is transformers' own SDPA. No model is patched.

* CPU: a few groups of similar size at a time (``packed_layout.Block``). The kernel behind torch's
  SDPA is fast forward but not backward (2.8 ms against 0.8 for 9 heads of 120 tokens), so with
  gradients attention is computed by matrix products, scores and softmax in fp32.
* GPU: FlexAttention with a block mask, over the whole line.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from w2s_ray.models.packed_layout import BLOCK, Layout, lay_out

NAME = "w2s_packed"


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by transformers' interface: (C, heads, T, d) → (C, T, heads, d).

    ``key`` and ``value`` may have fewer heads than ``query`` (grouped queries). C is 1, unless
    several models compute the same line.
    """
    if layout is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return out, None
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if layout.block_mask is not None:
        out = _flex(query, key, value, layout.block_mask, scale)
    elif torch.is_grad_enabled():
        repeat = query.shape[1] // key.shape[1]
        if repeat > 1:
            key, value = (t.repeat_interleave(repeat, dim=1) for t in (key, value))
        flat = (t.flatten(0, 1) for t in (query * scale, key, value))
        out = _GroupedAttention.apply(*flat, layout)  # type: ignore[no-untyped-call]
        out = out.view_as(query)
    else:
        out = _forward_only(query, key, value, layout, scale)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)


def _forward_only(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float
) -> Tensor:
    """Attention without gradients on a CPU: torch's SDPA, a block at a time."""
    out = torch.empty_like(query)
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
    """softmax(q kᵀ + mask) v of each group; q, k, v (heads, T, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        out = torch.empty_like(query)
        query_32, key_32 = query.float(), key.float()
        weights = []
        for block in layout.blocks:
            q, k, v = (block.take(t).flatten(0, 1) for t in (query_32, key_32, value))
            if block.count == 1:
                scores = torch.baddbmm(block.mask, q, k.transpose(1, 2))
            else:
                scores = torch.bmm(q, k.transpose(1, 2))
                scores.view(-1, *block.mask.shape).add_(block.mask)
            weights.append(torch.softmax(scores, dim=-1).to(query.dtype))
            block.put(out, torch.bmm(weights[-1], v))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.blocks = layout.blocks
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
            block.put(grad_query, torch.bmm(grad_scores, k))
            block.put(grad_key, torch.bmm(grad_scores.transpose(1, 2), q))
        return grad_query, grad_key, grad_value, None


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _flex(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float) -> Tensor:
    """FlexAttention on a line padded to a multiple of ``BLOCK``, without its padding."""
    total = query.shape[2]
    padded = (nn.functional.pad(t, (0, 0, 0, -total % BLOCK)) for t in (query, key, value))
    out: Tensor = _compiled_flex()(*padded, block_mask=mask, scale=scale, enable_gqa=True)
    return out[:, :, :total]


def use_if_exact(module: PreTrainedModel) -> bool:
    """Turns packed attention on for a backbone, if it passes a test on a few tokens.

    A model whose layers attend to some earlier tokens only (sliding windows), take no positions,
    or mix tokens outside attention, fails it, and keeps SDPA on separate rows.

    Returns:
        Whether packed attention is on.
    """
    config = module.config
    windows = any("full" not in kind for kind in getattr(config, "layer_types", None) or [])
    config._attn_implementation = NAME
    try:
        exact = not windows and _is_exact(module)
    except Exception as error:  # a device or a head size that it does not support
        warnings.warn(f"packed attention: {type(error).__name__}: {error}", stacklevel=2)
        exact = False
    if not exact:
        config._attn_implementation = "sdpa"
    return exact


@torch.no_grad()
def _is_exact(module: PreTrainedModel) -> bool:
    """Whether two small groups have the same last states packed and in separate rows."""
    segments = torch.tensor([[5, 3, 4], [2, 6, 1]])
    count = int(segments.sum())
    ids = torch.arange(count) * 7919 % int(module.config.vocab_size)
    device = next(module.parameters()).device
    ours, theirs = (
        compute(module, ids.to(device), segments.to(device)) for compute in (packed, separate)
    )
    error = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6)
    return bool(error < (1e-3 if next(module.parameters()).dtype == torch.float32 else 0.1))


def packed(module: nn.Module, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b·m, H) last states of every text of a packed line, each prompt computed once."""
    line = lay_out(segments)
    states: Tensor = module(
        input_ids=input_ids[None],
        position_ids=line.positions[None],
        use_cache=False,
        layout=line.layout,
    ).last_hidden_state
    return states[0, line.last]


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
