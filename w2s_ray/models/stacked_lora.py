"""Adapters and heads of C cells on one frozen backbone, which reads a line for all of them at once.

The cells are one more dimension: the backbone's states are (C, T, H), its frozen layers see C·T
tokens in one matrix product, and each adapted layer adds every cell's own product to its cell's
tokens. What peft would train for one cell is one row of a matrix (C, P), and the layers hold views
of its columns. So an optimizer, a norm or a state of a cell is that of a row, and no cell's
gradient can reach another's.

Names, initial values and scales are read from the adapters that peft put there (``trainable``);
the casts are peft's as well: the product of the adapter in float32, its sum with the layer's output
rounded back to the backbone's dtype.
"""

from typing import Any

import torch
from torch import Tensor, nn

from w2s_ray.models import packed_attention
from w2s_ray.models.scorer import Scorer

CACHED_TOKENS = 512


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
        """(rows, T, in) → (rows, T, out), in the dtype of the base; rows is a multiple of C, those
        of a cell follow one another."""
        result: Tensor = self.base(x)
        of_cells = (t.reshape(len(self.down), -1, t.shape[-1]) for t in (result, x))
        out: Tensor = _adapt(*of_cells, self.down, self.up, self.scale)[0]
        return out.view_as(result)


# Written out, because the adapter and not the frozen layer is what takes time on a CPU: peft's six
# operations each make float32 copies of states that are bf16. Here they are made for a few tokens
# at a time, which stay in the core's cache, and none is kept for the backward pass: 60 to 90 % of
# a layer's time. An operator of its own: torch.compile would unroll the parts for every length.
@torch.library.custom_op("w2s_ray::adapt", mutates_args=())
def _adapt(
    result: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """result + scale · x Aᵀ Bᵀ of each cell, and scale · x Aᵀ (C, T, r).

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
    of_out: Tensor, x: Tensor, low: Tensor, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, A and B."""
    of_x, of_down, of_up = x.new_empty(x.shape), torch.zeros_like(down), torch.zeros_like(up)
    for part in _parts(x):
        slope = of_out[:, part].to(up.dtype)
        of_low = torch.bmm(slope, up).mul_(scale)
        of_up.baddbmm_(slope.mT, low[:, part])
        of_down.baddbmm_(of_low.mT, x[:, part].to(down.dtype))
        of_x[:, part] = torch.bmm(of_low, down)
    return of_x, of_down, of_up


@_adapt_backward.register_fake
def _(
    of_out: Tensor, x: Tensor, low: Tensor, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(down), torch.empty_like(up)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, x, down, up, ctx.scale = inputs
    ctx.save_for_backward(x, output[1], down, up)


def _back(ctx: Any, of_out: Tensor, of_low: Tensor) -> tuple[Tensor | None, ...]:
    return of_out, *_adapt_backward(of_out, *ctx.saved_tensors, ctx.scale), None


_adapt.register_autograd(_back, setup_context=_keep)


def _parts(x: Tensor) -> list[slice]:
    """Slices of T that hold ``CACHED_TOKENS`` of (C, T, in) on a CPU, all of them on a GPU."""
    size = max(1, CACHED_TOKENS // len(x)) if x.device.type == "cpu" else max(1, x.shape[1])
    return [slice(start, start + size) for start in range(0, x.shape[1], size)]


class StackedScorer:
    """C scorers that differ in their adapters and heads alone.

    Args:
        scorer: a scorer whose adapters and head are to be trained (``set_trainable`` with "lora");
            all C cells begin as it is. Its backbone is changed in place.
        cells: C.

    Attributes:
        weights: (C, P) float32, all that cell c trains in row c.
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
        self._put_adapters()

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
        slopes = torch.autograd.grad(loss, leaves, materialize_grads=True)
        torch._foreach_add_(self._split(self.gradient), slopes)

    def state(self, cell: int) -> dict[str, Tensor]:
        """What one cell has trained, named as ``trainable_state`` names it; float32 on the CPU."""
        return {
            name: column[cell].detach().to("cpu", copy=True).contiguous()
            for name, column in self._columns.items()
        }

    def _split(self, matrix: Tensor) -> list[Tensor]:
        """Views (C, …) of a (C, P) matrix, one a parameter."""
        sizes = [shape.numel() for shape in self._shapes]
        pieces = torch.split(matrix, sizes, dim=1)
        return [piece.view(-1, *s) for piece, s in zip(pieces, self._shapes, strict=True)]

    def _put_adapters(self) -> None:
        """Stacked layers where peft's were."""
        from peft.tuners.lora import LoraLayer  # nearly a second, for few

        for name, module in list(self.backbone.named_modules()):
            if isinstance(module, LoraLayer):
                layer: Any = module
                prefix = f"backbone.{name}.lora_"
                down, up = (self._columns[f"{prefix}{factor}.default.weight"] for factor in "AB")
                stacked = StackedLora(layer.get_base_layer(), down, up, layer.scaling["default"])
                self.backbone.set_submodule(name, stacked, strict=True)

    def _states(self, input_ids: Tensor, segments: Tensor) -> Tensor:
        """(C, b·m, H) last states of every text, as each cell sees it."""
        config: Any = self.backbone.config
        if config._attn_implementation != packed_attention.NAME:
            rows = input_ids.repeat(self.cells), segments.repeat(self.cells, 1)
            flat = packed_attention.separate(self.backbone, *rows)
            return flat.view(self.cells, -1, flat.shape[-1])
        layout, positions, last = packed_attention.lay_out(segments)
        states: Tensor = self.backbone(
            input_ids=input_ids.expand(self.cells, -1),
            position_ids=positions[None],
            use_cache=False,
            layout=layout,
        ).last_hidden_state
        return states[:, last]
