"""torch.compile of a backbone's blocks, where the work is long enough to repay it.

Inductor fuses the norms, rotary embeddings, gates and residuals between the matrix products:
+17 % throughput in training and +25 % in inference of SmolLM2-135M, measured on a CPU with AMX, and
+38 to +52 % in training on a GPU. The first compilation takes 30 to 40 s of a core, later ones on
the same machine 6 to 10 s, from inductor's cache on disk. So short steps run eagerly. The decision
depends on the amount of work alone, never on a clock: the same step always takes the same path, and
a resumed run that of an uninterrupted one. Attention itself stays eager, because its groups have
other sizes in each batch.
"""

import shutil
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from w2s_ray.models import packed_attention
from w2s_ray.models.structure import blocks_of

if TYPE_CHECKING:
    from w2s_ray.models.backbone import Backbone

PAYS_FROM_FLOPS = 1e14  # five minutes of eager training on one core


def compile_if_it_pays(backbone: "Backbone", tokens: int, flops_per_parameter: int) -> bool:
    """Compiles the blocks of ``backbone`` in place, if there is enough work to repay it.

    On a GPU a step of a small model is launches more than arithmetic, and compiled blocks have half
    of them (docs/gpu.md). Adapters stay eager there, since they have not run compiled on one. So do
    blocks on a CPU without a C++ compiler, and blocks that fail to compile, with a warning. The
    planner counts eager activations, which take more memory.

    Args:
        tokens: number of tokens that the model will process in all.
        flops_per_parameter: operations per token and parameter: 2 forward, 6 with backward.

    Returns:
        Whether the blocks are compiled, which the step's record states.
    """
    blocks = blocks_of(backbone.module)
    parameters = [p for block in blocks for p in block.parameters()]
    work = float(flops_per_parameter) * tokens * sum(p.numel() for p in parameters)
    if work < PAYS_FROM_FLOPS or not backbone.shares_prompts:
        return False
    device = parameters[0].device
    if not (_has_cpp_compiler() if device.type == "cpu" else _without_adapters(parameters)):
        return False
    compile_blocks(backbone.module)
    try:
        with torch.no_grad():
            ids = torch.zeros(4, dtype=torch.int64, device=device)
            segments = torch.tensor([[2, 1, 1]], device=device)
            packed_attention.packed(backbone.module, ids, segments)
    except Exception as error:  # no headers, a cache that cannot be written, …
        leave_eager(backbone.module)
        warnings.warn(f"not compiled: {type(error).__name__}: {error}", stacklevel=2)
        return False
    return True


def compile_blocks(module: PreTrainedModel, keep: float = 1.0) -> None:
    """Has each block compiled when it is first called; blocks of one kind share the compilation.

    A checkpointed block keeps its checkpoint, but around the compiled call: transformers wraps a
    block's ``forward`` in it, and torch compiles nothing within a checkpoint.

    Args:
        keep: fraction of the activations that may be kept for the backward pass; the others are
            recomputed, cheapest first. 1: inductor's own choice, the fastest. 0.9 recomputes a
            gated MLP's product and the normed states, which is almost free: a token of Qwen2.5-7B
            keeps 3.4 MB instead of 4.7 (eager: 6.5). 0.5 recomputes matrix products too.
    """
    # otherwise a norm's epsilon is an input on the CPU, and a GPU's graphs need g++ (20 s or more)
    torch._dynamo.config.specialize_float = True
    for block in blocks_of(module):
        if keep == 1.0:
            block.compile(dynamic=True)
        else:
            block.compile(dynamic=True, backend=_backend_within(keep))
        if getattr(block, "gradient_checkpointing", False):
            block.gradient_checkpointing = False  # type: ignore[assignment]
            compiled = block._compiled_call_impl
            block._compiled_call_impl = partial(checkpoint, compiled, use_reentrant=False)


def leave_eager(module: PreTrainedModel) -> None:
    """Undoes ``compile_blocks``."""
    for block in blocks_of(module):
        if isinstance(block._compiled_call_impl, partial):
            block.gradient_checkpointing = True  # type: ignore[assignment]
        block._compiled_call_impl = None


@cache  # one object for all blocks, or each would be compiled separately
def _backend_within(keep: float) -> Any:
    """Inductor under a memory budget.

    The budget holds for the blocks alone: FlexAttention is compiled separately, and would run twice
    under it.
    """
    return partial(_compile_within, keep)


def _compile_within(keep: float, graph: Any, inputs: Any) -> Any:
    from torch._functorch import config
    from torch._inductor.compile_fx import compile_fx

    with config.patch(activation_memory_budget=keep):
        return compile_fx(graph, inputs)


def _without_adapters(parameters: Sequence[Tensor]) -> bool:
    """Whether no parameter of the blocks is frozen, as those beside adapters are."""
    return all(parameter.requires_grad for parameter in parameters)


def _has_cpp_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "clang++"))
