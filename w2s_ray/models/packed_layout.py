"""Which tokens of a packed line attend to which, as ``packed_attention`` computes it.

A line holds groups ``prompt | answer 1 | … | answer m``, one after the other. On a CPU it is
divided into ``Block``s of adjacent groups of similar size; on a GPU it has one block mask of
FlexAttention.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128  # tokens of a FlexAttention block; on a GPU a line is padded to a multiple of it
BLOCK_SCORES = 8 * 1024  # most scores per head in a ``Block`` of several groups
SIMILAR = 0.75  # shortest group of a ``Block``, as a fraction of its longest

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Whether a token may attend to another, from batch, head, and the positions of both in a row, as
the mask functions of transformers say it; a bool tensor of the indices' common shape."""


@dataclass(frozen=True)
class Block:
    """c adjacent groups that are computed together, padded to z tokens each.

    Attributes:
        count, size: c and z.
        mask: (c, z, z) float32, 0 where a token attends to another and −∞ elsewhere. Padding
            attends to itself alone, and nothing attends to it.
        span: the groups' tokens in the line.
        source: (c·z,) int64, index in the span of each token; the span's length for padding.
            None: all groups have z tokens.
        real: which of the c·z tokens are not padding. None: all.
    """

    count: int
    size: int
    mask: Tensor
    span: slice
    source: Tensor | None
    real: Tensor | None

    def take(self, line: Tensor) -> Tensor:
        """(heads, T, d) → (heads, c, z, d), with zeros for padding."""
        part = line[:, self.span]
        if self.source is not None:
            part = nn.functional.pad(part, (0, 0, 0, 1)).index_select(1, self.source)
        return part.reshape(len(line), self.count, self.size, -1)

    def put(self, line: Tensor, values: Tensor) -> None:
        """Writes (heads·c, z, d) to its span of (heads, T, d)."""
        tokens = values.view(len(line), self.count * self.size, -1)
        line[:, self.span] = tokens if self.real is None else tokens.index_select(1, self.real)

    def restricted(self, rule: Rule, positions: Tensor) -> "Block":
        """This block under a ``Layout.restricted`` mask; ``positions`` are those of the line."""
        own = self.take(positions[None, :, None]).view(self.count, self.size)
        zero = torch.zeros((), dtype=torch.int64)
        allowed = rule(zero, zero, own[:, :, None], own[:, None, :])
        return replace(self, mask=self.mask.masked_fill(~allowed, float("-inf")))


@dataclass(frozen=True)
class Layout:
    """Which of the T tokens of a line attend to which.

    Attributes:
        blocks: on a CPU: adjacent blocks that cover the line.
        block_mask: on a GPU: the mask of the whole line.
        positions: (T,) int64 position of each token in its text.
    """

    blocks: list[Block]
    block_mask: BlockMask | None
    positions: Tensor

    def restricted(self, rule: Rule) -> "Layout":
        """This layout, in which a token attends only where ``rule`` of the positions holds too."""
        if self.block_mask is None:
            blocks = [block.restricted(rule, self.positions) for block in self.blocks]
            return replace(self, blocks=blocks)
        attends = self.block_mask.mask_mod
        padding = self.block_mask.seq_lengths[0] - len(self.positions)
        positions = nn.functional.pad(self.positions, (0, padding))

        def restricted(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            allowed = rule(batch, head, positions[query], positions[key])
            return attends(batch, head, query, key) & allowed

        mask = _mask_of_blocks(restricted, len(positions), positions.device)
        return replace(self, block_mask=mask)


class PackedLine(NamedTuple):
    """How a packed line is computed.

    Attributes:
        layout: which tokens attend to which.
        positions: (T,) int64 position_ids.
        last: (b·m,) int64, index in the line of the last token of each text (the last of its
            prompt if the answer is empty).
    """

    layout: Layout
    positions: Tensor
    last: Tensor


def lay_out(segments: Tensor) -> PackedLine:
    """Layout, positions and ends of the texts of a packed line.

    Args:
        segments: (b, 1 + m) int64, number of tokens of each prompt and answer; T in all.
    """
    device = segments.device
    prompts, answers = segments[:, :1], segments[:, 1:]
    ends = segments.flatten().cumsum(0).view_as(segments)
    last = torch.where(answers > 0, ends[:, 1:], ends[:, :1]) - 1
    flat = segments.flatten()
    begins = ends.flatten() - flat
    offset = begins.view_as(segments).clone()  # index in the line minus position
    offset[:, 1:] -= prompts
    total = int(flat.sum())
    positions = torch.arange(total, device=device) - offset.flatten().repeat_interleave(flat)
    if device.type == "cpu":
        layout = Layout(_blocks(segments.tolist()), None, positions)
    else:
        layout = Layout([], _block_mask(segments, total), positions)
    return PackedLine(layout, positions, last.flatten())


def _blocks(segments: list[list[int]]) -> list[Block]:
    """Blocks of adjacent groups of similar size, small enough for their scores to stay in cache.

    A group whose scores alone exceed ``BLOCK_SCORES`` is a block by itself: padding costs more than
    a call.
    """
    members: list[list[list[int]]] = []
    for row in segments:
        if members and _fit_together([*members[-1], row]):
            members[-1].append(row)
        else:
            members.append([row])
    blocks: list[Block] = []
    start = 0
    for rows in members:
        blocks.append(_block(rows, start))
        start += sum(map(sum, rows))
    return blocks


def _fit_together(rows: list[list[int]]) -> bool:
    """Whether groups with these segments may share a block."""
    sizes = [sum(row) for row in rows]
    similar = min(sizes) >= SIMILAR * max(sizes)
    return similar and len(sizes) * max(sizes) ** 2 <= BLOCK_SCORES


def _block(rows: list[list[int]], start: int) -> Block:
    """The block of groups with these segments, whose first token has the index ``start``."""
    sizes = [sum(row) for row in rows]
    count, size, total = len(rows), max(sizes), sum(sizes)
    mask = torch.full((count, size, size), float("-inf"))
    for group_mask, row, own in zip(mask, rows, sizes, strict=True):
        group_mask[:own, :own] = _mask(tuple(row))
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
    """(z, z) mask of a group with these segments: 0 where a token attends to another, else −∞."""
    size, prompt = sum(row), row[0]
    attends = torch.ones(size, size, dtype=torch.bool).tril_()
    begin = prompt
    for answer in row[1:]:
        attends[begin : begin + answer, prompt:begin] = False  # earlier answers
        begin += answer
    return torch.zeros(size, size).masked_fill_(~attends, float("-inf"))


def _block_mask(segments: Tensor, total: int) -> BlockMask:
    """FlexAttention's mask of a line of ``total`` tokens, padded to a multiple of ``BLOCK``.

    FlexAttention compiles ``attends`` into its kernel, with the tensors it closes over.
    """
    device = segments.device
    parts = segments.shape[1]  # prompt and answers of a group
    part_of_token = torch.arange(segments.numel(), device=device).repeat_interleave(
        segments.flatten()
    )
    padded = nn.functional.pad(part_of_token, (0, -total % BLOCK), value=-parts)
    group, part = padded.div(parts, rounding_mode="floor"), padded.remainder(parts)

    def attends(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (part[key] == 0) | (part[key] == part[query])
        return (group[query] == group[key]) & own & (query >= key)

    return _mask_of_blocks(attends, len(padded), device)


def _mask_of_blocks(attends: Rule, total: int, device: torch.device) -> BlockMask:
    """FlexAttention's mask of ``total`` tokens, a multiple of ``BLOCK``."""
    # Not create_block_mask: eagerly it makes T² numbers; compiled, its sort can take Triton minutes
    # (pytorch issue 182060).
    tokens = torch.arange(total, device=device)
    zero = tokens.new_zeros(())
    blocks = total // BLOCK
    attended = torch.cat(
        [
            attends(zero, zero, rows[:, None], tokens).view(-1, BLOCK, blocks, BLOCK).sum((1, 3))
            for rows in torch.split(tokens, 8 * BLOCK)
        ]
    )
    full = attended == BLOCK**2
    partial = _block_lists((attended > 0) & ~full)
    return BlockMask.from_kv_blocks(
        *partial, *_block_lists(full), BLOCK_SIZE=BLOCK, mask_mod=attends
    )


class _BlockLists(NamedTuple):
    """Blocks of keys for each block of queries, as ``BlockMask.from_kv_blocks`` takes them.

    Attributes:
        counts: (1, 1, blocks) int32, how many blocks of keys are selected.
        indices: (1, 1, blocks, blocks) int32, the selected ones first.
    """

    counts: Tensor
    indices: Tensor


def _block_lists(selected: Tensor) -> _BlockLists:
    """Lists of the selected blocks, from a (blocks, blocks) bool matrix."""
    indices = selected.int().argsort(dim=1, descending=True, stable=True)
    counts = selected.sum(dim=1, dtype=torch.int32)
    return _BlockLists(counts[None, None], indices.int()[None, None])
