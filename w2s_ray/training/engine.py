"""The engine protocol that the training loop runs on, and the engine for one process.

bf16 models train with fp32 master weights: at a learning rate of 1e-5 a pure bf16 weight (8 bits
of mantissa) would not move at all for most updates. Gradients of micro-batches are summed in fp32.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}  # ours -> torch's


@dataclass(frozen=True)
class Batch:
    """One micro-batch of b rows.

    Attributes:
        inputs: keyword arguments of the scorer: ``input_ids`` (T,) and ``segments`` (b, 1 + m).
        soft_labels: (b, K) float32, the target distribution.
        weights: (b,) float32, 1 / size of the whole batch; 0 marks a filler row.
        tokens: tokens in ``inputs``, without those of filler rows.
    """

    inputs: Mapping[str, Tensor]
    soft_labels: Tensor
    weights: Tensor
    tokens: int


@dataclass(frozen=True)
class Adam:
    """Settings of Adam, and what pulls weights back; the learning rate comes with every step.

    Attributes:
        weight_decay: decoupled from the gradient (AdamW), of every trained parameter.
        anchor: λ of the penalty λ/2 ‖θ - θ₀‖² on the distance from the initial weights. It is part
            of the gradient, hence of its norm, and not of the loss in a curve.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip_norm: float | None = None
    weight_decay: float = 0.0
    anchor: float = 0.0

    def arguments(self) -> dict[str, Any]:
        """Of ``torch.optim.Adam``. Without decay they are plain Adam's, bit for bit."""
        return {
            "betas": self.betas,
            "eps": self.epsilon,
            "weight_decay": self.weight_decay,
            "decoupled_weight_decay": self.weight_decay > 0.0,
        }


@dataclass(frozen=True)
class Fragment:
    """The stretch of one flat trained parameter that a rank holds, with its optimizer state.

    Attributes:
        name: of the parameter.
        start: offset of the stretch in the flat parameter, in elements.
        parts: ``master``, ``first`` and ``second`` (Adam's moments), each (n,) float32; views of
            the live state, on the state's own device.
    """

    name: str
    start: int
    parts: Mapping[str, Tensor]


class Engine(Protocol):
    """Runs the model forward, backward and one update, in one process or in many.

    Attributes:
        rank, world: of this process.
        sharded: whether ranks hold different fragments of the state; else each rank holds all.
    """

    rank: int
    world: int
    sharded: bool

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(b, K) float32 logits, with a graph where gradients are enabled."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Adds the gradient of ``loss``, this rank's Σ weight · loss, to the batch's gradient.

        Args:
            last: whether ``step`` comes next; every rank makes the same number of calls.
        """

    def step(self, learning_rate: float) -> float:
        """Clips, updates and clears; returns the norm of the whole gradient before clipping."""

    def gather(self, values: Tensor) -> Tensor:
        """(b, …) of every rank, joined in the order of ranks: (world · b, …)."""

    def whole(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Parameters by name, on the CPU: trained ones in float32, frozen ones as they are stored.

        Sharded parameters are gathered one at a time. Every rank must exhaust the iterator; above
        rank 0 the tensors are empty.
        """

    def fragments(self) -> Iterator[Fragment]:
        """This rank's part of the state, one fragment at a time.

        A fragment's tensors may be written to until the next is asked for; afterwards every rank
        must call ``restored``.
        """

    def close(self) -> None:
        """Frees what the engine holds; engine and scorer cannot be used again."""

    def restored(self, updates: int) -> None:
        """Rebuilds the weights once the fragments hold the state after ``updates`` steps."""


MakeEngine = Callable[[nn.Module, Sequence[nn.Parameter], Adam], Engine]


class TorchEngine:
    """One process, plain torch.

    Args:
        scorer: module that maps a batch's inputs to logits.
        parameters: those to be trained.
        adam: optimizer settings.
    """

    rank = 0
    world = 1
    sharded = False

    def __init__(self, scorer: nn.Module, parameters: Sequence[nn.Parameter], adam: Adam) -> None:
        self._scorer = scorer
        self._device = parameters[0].device
        self._clip = adam.clip_norm
        self._low: list[Tensor] = [p for p in parameters if p.dtype != torch.float32]
        self._masters: list[Tensor] = [nn.Parameter(p.detach().float()) for p in self._low]
        for low, master in zip(self._low, self._masters, strict=True):
            move_gradient = partial(_move_gradient, master)
            low.register_post_accumulate_grad_hook(move_gradient)  # type: ignore[no-untyped-call]
        self._trained = [*self._masters, *(p for p in parameters if p.dtype == torch.float32)]
        self._anchor = adam.anchor
        self._initial = [p.detach().clone() for p in self._trained] if adam.anchor else []
        self._optimizer = torch.optim.Adam(self._trained, lr=0.0, fused=True, **adam.arguments())

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        on_device = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        logits: Tensor = self._scorer(**on_device)
        return logits

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def step(self, learning_rate: float) -> float:
        for parameter, initial in zip(self._trained, self._initial, strict=bool(self._anchor)):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - initial, alpha=self._anchor)
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(self._trained, self._clip, norm)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._low:
            torch._foreach_copy_(self._low, self._masters)
        return float(norm)

    def gather(self, values: Tensor) -> Tensor:
        return values

    def whole(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        masters = {id(p): m for p, m in zip(self._low, self._masters, strict=True)}
        parameters = dict(self._scorer.named_parameters())
        for name in names:
            parameter = parameters[name]
            yield name, masters.get(id(parameter), parameter).detach().to("cpu", copy=True)

    def fragments(self) -> Iterator[Fragment]:
        masters = {id(p): m for p, m in zip(self._low, self._masters, strict=True)}
        for name, parameter in self._scorer.named_parameters():
            if parameter.requires_grad:
                master = masters.get(id(parameter), parameter)
                state = adam_state(self._optimizer, master)
                parts = {"master": master.detach(), **{m: state[k] for m, k in MOMENTS.items()}}
                yield Fragment(name, 0, {part: t.view(-1) for part, t in parts.items()})

    def close(self) -> None:
        """Does nothing: all that the engine holds is freed with it."""

    @torch.no_grad()
    def restored(self, updates: int) -> None:
        for state in self._optimizer.state.values():
            state["step"].fill_(updates)
        if self._low:
            torch._foreach_copy_(self._low, self._masters)


def adam_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The optimizer's state of a parameter; before the first step it is created as zeros."""
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        for name in MOMENTS.values():
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state


def _move_gradient(master: Tensor, low: Tensor) -> None:
    """Adds the gradient of a bf16 weight to that of its fp32 master and frees it.

    It runs as soon as the gradient is complete, so bf16 gradients of two weights never exist at the
    same time: for 7B parameters that saves 14 GB.
    """
    assert low.grad is not None
    if master.grad is None:
        master.grad = low.grad.float()
    else:
        master.grad += low.grad
    low.grad = None
