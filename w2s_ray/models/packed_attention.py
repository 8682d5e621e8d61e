"""Attention over packed rows: many groups ``prompt | answer 1 | … | answer m`` in one line.

A token sees the tokens before it of its own group's prompt and of its own answer, nothing else, and
positions start again after the prompt at each answer. So the answers share one computation of
their prompt, and every state is exactly that of prompt and answer in a row of their own.

It is an attention function of transformers (``NAME``), which hands it the keyword ``layout``
through all layers; without one it is transformers' own SDPA. No model is patched.

* CPU: groups of like size a few at a time (``Block``). The kernel behind torch's SDPA is fast
  forward but not backward (2.8 ms against 0.8 for 9 heads of 120 tokens), so where gradients are
  wanted attention is written out in matrix products; scores and softmax in fp32.
* GPU: FlexAttention with a block mask, over the whole line.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "w2s_packed"
BLOCK = 128  # of FlexAttention: a line is filled up to a multiple of it on a GPU


BLOCK_SCORES = 8 * 1024  # of one head; longer groups are cheaper by themselves than gathered
LIKE = 0.75  # a group this much shorter than the longest of its block is filled up to it


@dataclass(frozen=True)
class Block:
    """c neighbouring groups, computed together as if all had z tokens.

    Attributes:
        count, size: c and z.
        mask: (c, z, z) float32, 0 where a token sees another and −∞ elsewhere. What only fills a
            group up sees itself, and nothing sees it.
        span: where the groups stand in the line.
        source: (c·z,) int64, of each token its place in the span; its length for what fills up.
            None: all groups have z tokens.
        real: of the c·z tokens, those that are in the span.
    """

    count: int
    size: int
    mask: Tensor
    span: slice
    source: Tensor | None
    real: Tensor | None

    def take(self, line: Tensor) -> Tensor:
        """(heads, T, d) → (heads, c, z, d), zeros where groups are filled up."""
        part = line[:, self.span]
        if self.source is not None:
            part = nn.functional.pad(part, (0, 0, 0, 1)).index_select(1, self.source)
        return part.reshape(len(line), self.count, self.size, -1)

    def put(self, line: Tensor, values: Tensor) -> None:
        """Writes (heads·c, z, d) to its span of (heads, T, d)."""
        tokens = values.view(len(line), self.count * self.size, -1)
        line[:, self.span] = tokens if self.real is None else tokens.index_select(1, self.real)


@dataclass(frozen=True)
class Layout:
    """How the T tokens of a line see each other.

    Attributes:
        blocks: on a CPU; they follow one another and make up the line.
        block_mask: on a GPU, of the whole line.
    """

    blocks: list[Block]
    block_mask: BlockMask | None


def lay_out(segments: Tensor) -> tuple[Layout, Tensor, Tensor]:
    """The layout of a packed line, position_ids (T,) and where each text ends.

    Args:
        segments: (b, 1 + m) int64, tokens of each prompt and answer; T in all.

    Returns:
        layout; (T,) int64 positions; (b·m,) int64 places of the last token of each text (of its
        prompt where the answer is empty).
    """
    device = segments.device
    prompts, answers = segments[:, :1], segments[:, 1:]
    ends = segments.flatten().cumsum(0).view_as(segments)
    last = torch.where(answers > 0, ends[:, 1:], ends[:, :1]) - 1
    flat = segments.flatten()
    begins = ends.flatten() - flat
    offset = begins.view_as(segments).clone()  # what a token's place has too much
    offset[:, 1:] -= prompts
    total = int(flat.sum())
    positions = torch.arange(total, device=device) - offset.flatten().repeat_interleave(flat)
    if device.type == "cpu":
        layout = Layout(_blocks(segments.tolist()), None)
    else:
        layout = Layout([], _block_mask(segments, total))
    return layout, positions, last.flatten()


def _blocks(segments: list[list[int]]) -> list[Block]:
    """Neighbours that are alike share a block, as long as its scores stay in the cache."""
    blocks: list[Block] = []
    rows: list[list[int]] = []
    start = 0

    def close() -> None:
        nonlocal start
        blocks.append(_block(rows, start))
        start += sum(map(sum, rows))
        rows.clear()

    for row in segments:
        sizes = [sum(member) for member in (*rows, row)]
        alike = min(sizes) >= LIKE * max(sizes)
        if rows and not (alike and len(sizes) * max(sizes) ** 2 <= BLOCK_SCORES):
            close()
        rows.append(row)
    close()
    return blocks


def _block(rows: list[list[int]], start: int) -> Block:
    sizes = [sum(row) for row in rows]
    count, size, total = len(rows), max(sizes), sum(sizes)
    mask = torch.full((count, size, size), float("-inf"))
    for of_group, row, own in zip(mask, rows, sizes, strict=True):
        of_group[:own, :own] = _mask(tuple(row))
    span = slice(start, start + total)
    if total == count * size:
        return Block(count, size, mask, span, None, None)
    mask.diagonal(dim1=1, dim2=2).zero_()
    within = torch.arange(size)[None] < torch.tensor(sizes)[:, None]
    real = within.flatten().nonzero().ravel()
    source = torch.full((count * size,), total)
    source[real] = torch.arange(total)
    return Block(count, size, mask, span, source, real)


def _mask(row: tuple[int, ...]) -> Tensor:
    size, prompt = sum(row), row[0]
    seen = torch.ones(size, size, dtype=torch.bool).tril_()
    begin = prompt
    for answer in row[1:]:
        seen[begin : begin + answer, prompt:begin] = False  # earlier answers
        begin += answer
    return torch.zeros(size, size).masked_fill_(~seen, float("-inf"))


def _block_mask(segments: Tensor, total: int) -> BlockMask:
    device = segments.device
    texts = segments.shape[1]
    of_token = torch.arange(segments.numel(), device=device).repeat_interleave(segments.flatten())
    filled = nn.functional.pad(of_token, (0, -total % BLOCK), value=-texts)
    group, part = filled.div(texts, rounding_mode="floor"), filled.remainder(texts)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (part[key] == 0) | (part[key] == part[query])
        return (group[query] == group[key]) & own & (query >= key)

    # not create_block_mask: eagerly it makes T² numbers; compiled, its sort can take Triton minutes
    # (pytorch issue 182060)
    places = torch.arange(len(filled), device=device)
    blocks = len(filled) // BLOCK
    seen = torch.cat(
        [
            sees(places, places, rows[:, None], places).view(-1, BLOCK, blocks, BLOCK).sum((1, 3))
            for rows in torch.split(places, 8 * BLOCK)
        ]
    )
    whole = seen == BLOCK**2
    partly = _listed((seen > 0) & ~whole)
    return BlockMask.from_kv_blocks(*partly, *_listed(whole), BLOCK_SIZE=BLOCK, mask_mod=sees)


def _listed(wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of a matrix of blocks, for each row: how many are wanted, and their places, these first."""
    places = wanted.int().argsort(dim=1, descending=True, stable=True)
    return wanted.sum(dim=1, dtype=torch.int32)[None, None], places.int()[None, None]


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
    """transformers' attention interface: (C, heads, T, d) → (C, T, heads, d).

    ``key`` and ``value`` may have fewer heads than ``query`` (grouped queries). C is 1, unless
    several models read the same line.
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
        out = torch.empty_like(query)
        for block in layout.blocks:
            for q, k, v, target in zip(query, key, value, out, strict=True):
                q4, k4, v4 = (block.take(t).transpose(0, 1) for t in (q, k, v))
                mask = block.mask[:, None].to(q.dtype)
                found = nn.functional.scaled_dot_product_attention(
                    q4, k4, v4, attn_mask=mask, scale=scale, enable_gqa=True
                )
                block.put(target, found.transpose(0, 1).flatten(0, 1))
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)


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
        (of_out,) = gradients
        query, key, value, *weights = ctx.saved_tensors
        of_query, of_key, of_value = (torch.empty_like(t) for t in (query, key, value))
        for block, weight in zip(ctx.blocks, weights, strict=True):
            q, k, v, o = (block.take(t).flatten(0, 1) for t in (query, key, value, of_out))
            block.put(of_value, torch.bmm(weight.transpose(1, 2), o))
            of_weight = torch.bmm(o, v.transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
            block.put(of_query, torch.bmm(of_scores, k))
            block.put(of_key, torch.bmm(of_scores.transpose(1, 2), q))
        return of_query, of_key, of_value, None


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _flex(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float) -> Tensor:
    total = query.shape[2]
    filled = (nn.functional.pad(t, (0, 0, 0, -total % BLOCK)) for t in (query, key, value))
    out: Tensor = _compiled_flex()(*filled, block_mask=mask, scale=scale, enable_gqa=True)
    return out[:, :, :total]


def use_if_exact(module: PreTrainedModel) -> bool:
    """Turns packed attention on for a backbone, if it passes a test on a few tokens.

    A model whose layers look at less than all earlier tokens (sliding windows), take no positions,
    or mix tokens elsewhere than in attention, fails it, and keeps SDPA on separate rows.
    """
    config = module.config
    windows = any("full" not in kind for kind in getattr(config, "layer_types", None) or [])
    config._attn_implementation = NAME
    try:
        exact = not windows and _is_exact(module)
    except Exception as error:  # a device or a head size that attention is not made for
        warnings.warn(f"packed attention: {type(error).__name__}: {error}", stacklevel=2)
        exact = False
    if not exact:
        config._attn_implementation = "sdpa"
    return exact


@torch.no_grad()
def _is_exact(module: PreTrainedModel) -> bool:
    """Whether two small groups get the same last states packed and in rows of their own."""
    segments = torch.tensor([[5, 3, 4], [2, 6, 1]])
    count = int(segments.sum())
    ids = torch.arange(count) * 7919 % int(module.config.vocab_size)
    device = next(module.parameters()).device
    both = [readout(module, ids.to(device), segments.to(device)) for readout in (packed, separate)]
    apart = (both[0] - both[1]).abs().max() / both[1].abs().max().clamp_min(1e-6)
    return bool(apart < (1e-3 if next(module.parameters()).dtype == torch.float32 else 0.1))


def packed(module: nn.Module, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b·m, H) last states of every text of a packed line, each prompt computed once."""
    layout, positions, last = lay_out(segments)
    states: Tensor = module(
        input_ids=input_ids[None], position_ids=positions[None], use_cache=False, layout=layout
    ).last_hidden_state
    return states[0, last]


def separate(module: nn.Module, input_ids: Tensor, segments: Tensor) -> Tensor:
    """The same from one padded row a text.

    Padding stands on the right, where a causal model cannot see it; hence no attention mask is
    passed, and attention keeps its fast causal kernel.
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
