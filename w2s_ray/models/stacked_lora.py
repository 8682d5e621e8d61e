"""Adapters and heads of C cells on one frozen backbone, which computes a line for all at once.

The cells are one more dimension: the backbone's states are (C, T, H), its frozen layers multiply
C·T tokens at once, and each adapted layer adds every cell's own product to its cell's tokens. The
parameters that peft would train for one cell are one row of a matrix (C, P), and the layers hold
views of its columns. So the optimizer state and the gradient norm of a cell are those of a row, and
no cell's gradient can reach another's.

Names, initial values and scales are those of the adapters that peft created (``trainable``); the
casts are peft's too: the adapter's product in float32, its sum with the layer's output rounded to
the backbone's dtype.
"""

from typing import Any

import torch
from torch import Tensor, nn

from w2s_ray.models import packed_attention
from w2s_ray.models.packed_layout import lay_out
from w2s_ray.models.scorer import Scorer

CACHED_TOKENS = 512  # of all cells, whose float32 copies fit in a core's cache


class StackedLora(nn.Module):
    """A frozen linear layer with C adapters: W x + scale · B_c A_c x for the tokens of cell c.

    Args:
        base: maps (…, in) to (…, out); any layer that peft adapts by two matrices.
        down: (C, r, in) float32, the A of every cell.
        up: (C, out, r) float32, the B of every cell.
    """

    def __init__(self, base: nn.Module, down: nn.Parameter, up: nn.Parameter, scale: float) -> None:
        super().__init__()
        self.base = base
        self.down = down
        self.up = up
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(rows, T, in) → (rows, T, out), in the dtype of the base.

        rows is a multiple of C; the rows of a cell are adjacent.
        """
        result: Tensor = self.base(x)
        by_cell = (t.reshape(len(self.down), -1, t.shape[-1]) for t in (result, x))
        out: Tensor = _adapt(*by_cell, self.down, self.up, self.scale)[0]
        return out.view_as(result)


# Written by hand, because on a CPU the adapter takes more time than the frozen layer: each of six
# operations in peft makes a float32 copy of states that are bf16. Here the copies are of a few
# tokens at a time, which stay in the core's cache, and none is kept for the backward pass: 60 to
# 90 % of a layer's time. It is a custom operator, because torch.compile would unroll the loop for
# every length.
@torch.library.custom_op("w2s_ray::adapt", mutates_args=())
def _adapt(
    result: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(result + scale · x Aᵀ Bᵀ, scale · x Aᵀ) of each cell: (C, T, out) and (C, T, r).

    Args:
        result: (C, T, out).
        x: (C, T, in).
        down, up: A and B, as in ``StackedLora``.
    """
    low = x.new_empty(*x.shape[:2], down.shape[1], dtype=down.dtype)
    out = result.new_empty(result.shape)
    for part in _parts(x):
        low[:, part] = torch.bmm(x[:, part].to(down.dtype), down.mT).mul_(scale)
        out[:, part] = torch.baddbmm(result[:, part].to(up.dtype), low[:, part], up.mT)
    return out, low


@_adapt.register_fake
def _(result: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    low = x.new_empty(*x.shape[:2], down.shape[1], dtype=down.dtype)
    return result.new_empty(result.shape), low


@torch.library.custom_op("w2s_ray::adapt_backward", mutates_args=())
def _adapt_backward(
    grad_out: Tensor, x: Tensor, low: Tensor, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, A and B."""
    grad_x, grad_down, grad_up = x.new_empty(x.shape), torch.zeros_like(down), torch.zeros_like(up)
    for part in _parts(x):
        grad = grad_out[:, part].to(up.dtype)
        grad_low = torch.bmm(grad, up).mul_(scale)
        grad_up.baddbmm_(grad.mT, low[:, part])
        grad_down.baddbmm_(grad_low.mT, x[:, part].to(down.dtype))
        grad_x[:, part] = torch.bmm(grad_low, down)
    return grad_x, grad_down, grad_up


@_adapt_backward.register_fake
def _(
    grad_out: Tensor, x: Tensor, low: Tensor, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(down), torch.empty_like(up)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, x, down, up, ctx.scale = inputs
    ctx.save_for_backward(x, output[1], down, up)


def _backward(ctx: Any, grad_out: Tensor, grad_low: Tensor) -> tuple[Tensor | None, ...]:
    return grad_out, *_adapt_backward(grad_out, *ctx.saved_tensors, ctx.scale), None


_adapt.register_autograd(_backward, setup_context=_save)


def _parts(x: Tensor) -> list[slice]:
    """Slices of T with ``CACHED_TOKENS`` tokens of (C, T, in) on a CPU; on a GPU, one slice."""
    size = max(1, CACHED_TOKENS // len(x)) if x.device.type == "cpu" else max(1, x.shape[1])
    return [slice(start, start + size) for start in range(0, x.shape[1], size)]


class StackedScorer:
    """C scorers that differ in their adapters and heads alone.

    Args:
        scorer: a scorer whose adapters and head are trained (``set_trainable`` with "lora"); all C
            cells start with its values. Its backbone is changed in place.
        cells: C.

    Attributes:
        weights: (C, P) float32, the trained parameters of cell c in row c.
        gradient: (C, P) float32, see ``backward``.
    """

    def __init__(self, scorer: Scorer, cells: int) -> None:
        self.cells = cells
        self.backbone = scorer.backbone
        self.per_row = scorer.head.per_row
        own = {name: p for name, p in scorer.named_parameters() if p.requires_grad}
        self._shapes = [p.shape for p in own.values()]
        start = torch.cat([p.detach().flatten() for p in own.values()])
        self.weights = start.repeat(cells, 1)
        self.gradient = torch.zeros_like(self.weights)
        self._columns = {
            name: nn.Parameter(view)
            for name, view in zip(own, self._split(self.weights), strict=True)
        }
        self._stack_adapters()

    def logits(self, input_ids: Tensor, segments: Tensor) -> Tensor:
        """(C, b, K) float32 logits of b packed rows, the same for all cells.

        Args:
            input_ids, segments: as for ``scorer.readout``.
        """
        states = self._states(input_ids, segments).float()
        outputs = torch.bmm(states, self._columns["head.weight"].transpose(1, 2))
        if self.per_row == 1:
            return outputs
        rewards = outputs.view(self.cells, -1, 2)
        margin = rewards[:, :, 0] - rewards[:, :, 1]
        return torch.stack([torch.zeros_like(margin), margin], dim=2)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of ``loss``, a sum over cells, to ``gradient``."""
        leaves = list(self._columns.values())
        gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        torch._foreach_add_(self._split(self.gradient), gradients)

    def state(self, cell: int) -> dict[str, Tensor]:
        """The trained parameters of one cell, as ``trainable_state``; float32 on the CPU."""
        return {
            name: column[cell].detach().to("cpu", copy=True).contiguous()
            for name, column in self._columns.items()
        }

    def _split(self, matrix: Tensor) -> list[Tensor]:
        """Views (C, …) of a (C, P) matrix, one per parameter."""
        sizes = [shape.numel() for shape in self._shapes]
        pieces = torch.split(matrix, sizes, dim=1)
        return [piece.view(-1, *s) for piece, s in zip(pieces, self._shapes, strict=True)]

    def _stack_adapters(self) -> None:
        """Replaces peft's layers by stacked ones."""
        from peft.tuners.lora import LoraLayer  # takes nearly a second; few steps need it

        for name, module in list(self.backbone.named_modules()):
            if isinstance(module, LoraLayer):
                layer: Any = module
                prefix = f"backbone.{name}.lora_"
                down, up = (self._columns[f"{prefix}{factor}.default.weight"] for factor in "AB")
                stacked = StackedLora(layer.get_base_layer(), down, up, layer.scaling["default"])
                self.backbone.set_submodule(name, stacked, strict=True)

    def _states(self, input_ids: Tensor, segments: Tensor) -> Tensor:
        """(C, b·m, H) last states of every text, as each cell computes them."""
        config: Any = self.backbone.config
        if config._attn_implementation != packed_attention.NAME:
            rows = input_ids.repeat(self.cells), segments.repeat(self.cells, 1)
            flat = packed_attention.separate(self.backbone, *rows)
            return flat.view(self.cells, -1, flat.shape[-1])
        line = lay_out(segments)
        ids = input_ids.expand(self.cells, -1)
        return packed_attention.states_of_line(self.backbone, ids, line)[:, line.last]
