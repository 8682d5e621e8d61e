"""torch.compile of a backbone's blocks, where it pays.

Inductor fuses the norms, rotary embeddings, gates and residuals between the matrix products:
measured on a CPU with AMX, +17 % in training and +25 % in inference of SmolLM2-135M. The first
compilation costs 30 to 40 s of a core, later ones of the same machine 6 s (inductor keeps its work
on disk). So short steps run eagerly. Whether to compile follows from the work to be done alone,
never from a clock: the same step takes the same path each time, and a resumed run the path of an
uninterrupted one. Attention itself stays eager: its groups are of different sizes at each batch.
"""

import shutil
import warnings
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from w2s_ray.models import packed_attention

if TYPE_CHECKING:
    from w2s_ray.models.backbone import Backbone

PAYS_FROM_FLOPS = 1e14  # five minutes of eager training on one core


def compile_if_it_pays(backbone: "Backbone", tokens: int, flops_a_parameter: int) -> bool:
    """Compiles the blocks of ``backbone`` in place, if so much work makes up for it.

    Not yet on a GPU: there training gains (docs/gpu.md), but scoring, adapters and DeepSpeed have
    not run compiled, and the planner counts eager activations. Not without a C++ compiler either.
    Blocks that turn out not to compile stay eager, with a warning; the step's record tells
    (``compiled``).

    Args:
        tokens: that will pass the model in all.
        flops_a_parameter: operations a token and parameter: 2 forward, 6 with backward.
    """
    blocks = blocks_of(backbone.module)
    parameters = [p for block in blocks for p in block.parameters()]
    work = float(flops_a_parameter) * tokens * sum(p.numel() for p in parameters)
    on_cpu = parameters[0].device.type == "cpu"
    if work < PAYS_FROM_FLOPS or not on_cpu or not backbone.shares_prompts or not _compiler():
        return False
    compile_blocks(backbone.module)
    try:
        with torch.no_grad():
            few = torch.zeros(4, dtype=torch.int64), torch.tensor([[2, 1, 1]])
            packed_attention.packed(backbone.module, *few)
    except Exception as error:  # no headers, a cache that cannot be written, …
        leave_eager(backbone.module)
        warnings.warn(f"not compiled: {type(error).__name__}: {error}", stacklevel=2)
        return False
    return True


def compile_blocks(module: nn.Module, keep: float = 1.0) -> None:
    """Has each block compiled when it is first called; blocks of one kind share the work.

    Blocks that are checkpointed stay so, from outside: torch compiles nothing within a checkpoint,
    which is where transformers puts a block's ``forward``.

    Args:
        keep: share of what the backward pass needs that may be kept for it; the rest is computed
            again, cheapest first. 1: what is fastest by inductor's own account. 0.9 leaves out a
            gated MLP's product and the normed states, which cost next to nothing: a token of a
            Qwen2.5-7B keeps 3.4 MB instead of 4.7 (eager: 6.5). 0.5 leaves out matrix products too.
    """
    # else a norm's epsilon is an input on the CPU, and a GPU's graphs need g++ (20 s and more)
    torch._dynamo.config.specialize_float = True
    for block in blocks_of(module):
        if keep == 1.0:
            block.compile(dynamic=True)
        else:
            block.compile(dynamic=True, backend=_thrifty(keep))
        if getattr(block, "gradient_checkpointing", False):
            block.gradient_checkpointing = False  # type: ignore[assignment]
            compiled = block._compiled_call_impl
            block._compiled_call_impl = partial(checkpoint, compiled, use_reentrant=False)


def leave_eager(module: nn.Module) -> None:
    """Undoes ``compile_blocks``."""
    for block in blocks_of(module):
        if isinstance(block._compiled_call_impl, partial):
            block.gradient_checkpointing = True  # type: ignore[assignment]
        block._compiled_call_impl = None


@cache  # one object for all blocks, or each would be compiled by itself
def _thrifty(keep: float) -> Any:
    """Inductor under a memory budget: of the blocks alone, not of FlexAttention, which is compiled
    apart and would be run twice."""

    def backend(graph: Any, inputs: Any) -> Any:
        from torch._functorch import config
        from torch._inductor.compile_fx import compile_fx

        with config.patch(activation_memory_budget=keep):
            return compile_fx(graph, inputs)

    return backend


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The transformer blocks: the one list of modules that a backbone holds."""
    (blocks,) = (child for child in module.children() if isinstance(child, nn.ModuleList))
    return list(blocks)


def _compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "clang++"))
