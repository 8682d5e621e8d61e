"""The memory that the planner predicts for a variant of ``gpu_train.py``.

``capacity/memory.py`` models eager blocks, all or none of them checkpointed. For compiled blocks
and for every n-th block checkpointed, this module computes the activations instead.
"""

from typing import Any

from transformers import Qwen2Config

from benchmarks.gpu_model import Variant
from w2s_ray.capacity.memory import activation_bytes, training_bytes
from w2s_ray.catalog.shapes import Shape, shape_of


def predicted_bytes(config: dict[str, Any], chosen: Variant) -> int:
    """The peak over repeated optimizer steps, in bytes of device memory."""
    shape = shape_of(Qwen2Config(**config).to_dict())
    every = chosen.checkpoint_every
    memory = training_bytes(
        shape,
        precision="bf16",
        stage=0,
        world=1,
        tokens=chosen.tokens,
        checkpointing=every == 1,
        micro_batches=chosen.micro_batches,
    )
    if chosen.keep is None and every <= 1:
        return memory.total
    tokens = chosen.tokens
    kept, beside = activation_bytes(shape, precision="bf16", tokens=tokens)
    stream = 2 * shape.hidden_size * tokens
    block = (kept - 4 * stream) // shape.layers
    if chosen.keep is not None:
        block = tokens * compiled_bytes(shape, chosen.keep)
    recomputed = shape.layers // every if every else 0  # blocks, one at a time
    activations = (shape.layers - recomputed) * block + (recomputed + 4) * stream + beside
    activations += block if recomputed == shape.layers else 0
    accumulated = memory.gradients if chosen.micro_batches > 1 else 0
    permanent = memory.weights + memory.optimizer + memory.buffers
    return permanent + max(accumulated + activations, memory.gradients)


def compiled_bytes(shape: Shape, keep: float) -> int:
    """Bytes per token that a compiled Qwen2 block saves for its backward pass, in bf16.

    Of width H it saves its input, the normed input, q, attention's output before and after
    reordering, and the sum after attention; with ``keep`` 1 also the normed sum. Of the gated MLP
    it saves gate and up, with ``keep`` 1 also their product, and with 0.5 only one of them.
    """
    wide, normed = {1.0: (3, 7), 0.9: (2, 6), 0.5: (1, 6)}[keep]
    keys = shape.kv_heads * shape.head_width
    values = wide * shape.intermediate_size + normed * shape.hidden_size + 2 * keys
    return 2 * values + 4 * (shape.heads + 2)
