"""What the planner says that a variant of ``gpu_train.py`` needs.

``capacity/memory.py`` counts eager blocks, all of them checkpointed or none. For what it does not
know, compiled blocks and every n-th of them checkpointed, the activations are put in its place
here.
"""

from typing import Any

from transformers import Qwen2Config

from benchmarks.gpu_model import Variant
from w2s_ray.capacity.memory import activation_bytes, training_bytes
from w2s_ray.catalog.shapes import Shape, shape_of


def predicted_bytes(config: dict[str, Any], chosen: Variant) -> int:
    """The peak of one optimizer step after another, in bytes of the device."""
    shape = shape_of(Qwen2Config(**config).to_dict())
    every = chosen.checkpoint_every
    memory = training_bytes(
        shape,
        precision="bf16",
        stage=0,
        world=1,
        tokens=chosen.tokens,
        checkpointing=every == 1,
        micro_batches=chosen.passes,
    )
    if chosen.keep is None and every <= 1:
        return memory.total
    tokens = chosen.tokens
    kept, beside = activation_bytes(shape, precision="bf16", tokens=tokens)
    stream = 2 * shape.hidden_size * tokens
    block = (kept - 4 * stream) // shape.layers
    if chosen.keep is not None:
        block = tokens * compiled_bytes(shape, chosen.keep)
    again = shape.layers // every if every else 0  # blocks computed again, one at a time
    activations = (shape.layers - again) * block + (again + 4) * stream + beside
    activations += block if again == shape.layers else 0
    before = memory.gradients if chosen.passes > 1 else 0
    lasting = memory.weights + memory.optimizer + memory.buffers
    return lasting + max(before + activations, memory.gradients)


def compiled_bytes(shape: Shape, keep: float) -> int:
    """Bytes that a compiled block of Qwen2 keeps of one token for its backward pass, in bf16.

    Of width H: its input, the normed input, q, attention's output as computed and in order, the
    sum after attention; at ``keep`` 1 the normed sum too. Of the gated MLP: gate, up and (at 1)
    their product; at 0.5 one of them alone.
    """
    wide, normed = {1.0: (3, 7), 0.9: (2, 6), 0.5: (1, 6)}[keep]
    keys = shape.kv_heads * shape.head_width
    values = wide * shape.intermediate_size + normed * shape.hidden_size + 2 * keys
    return 2 * values + 4 * (shape.heads + 2)
