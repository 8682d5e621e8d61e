"""Memory and time of generating text, from the dimensions of the models.

A token of every row of a batch takes one pass of each model, which reads all of its weights and the
keys and values of all tokens before it: memory's bandwidth bounds it at these sizes.
"""

from collections.abc import Sequence

from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.memory import BYTES_PER_WEIGHT, GPU_WORKSPACES, Memory
from w2s_ray.capacity.speed import flops_per_token
from w2s_ray.catalog.shapes import Shape

_COPIES_OF_LOGITS = 4  # scores, sorted, cumulated, drawn; in float32


def cache_bytes_per_token(model: Shape, precision: str) -> int:
    """Keys and values of one token in all blocks; sliding windows are not counted off."""
    width = BYTES_PER_WEIGHT[precision]
    return 2 * model.layers * model.kv_heads * model.head_width * width


def generation_bytes(
    models: Sequence[Shape], *, precision: str, rows: int, row_tokens: int
) -> Memory:
    """The peak of one process that decodes with several models at once.

    Args:
        rows: that generate text together.
        row_tokens: of prompt and answer, at most.
    """
    width = BYTES_PER_WEIGHT[precision]
    weights = sum((model.parameters + model.embeddings) * width for model in models)
    cache = sum(rows * row_tokens * cache_bytes_per_token(model, precision) for model in models)
    logits = _COPIES_OF_LOGITS * 4 * rows * sum(model.vocab_size for model in models)
    kept = cache + logits
    return Memory(weights, 0, 0, kept, GPU_WORKSPACES, weights + kept + GPU_WORKSPACES)


def generation_seconds(
    models: Sequence[Shape],
    gpu: Gpu,
    *,
    precision: str,
    batch_rows: int,
    prompts: int,
    samples: int,
    prompt_tokens: float,
    answer_tokens: float,
) -> float:
    """Wall clock of answering so many prompts so often.

    Args:
        batch_rows: that generate text together, at most.
        answer_tokens: mean length of an answer.
    """
    width, rate = BYTES_PER_WEIGHT[precision], gpu.flops[precision] * gpu.utilization
    rows, row_tokens = prompts * samples, prompt_tokens + answer_tokens
    together = min(rows, batch_rows)
    batches = rows / together
    seconds = 0.0
    for model in models:
        forward = flops_per_token(model, row_tokens) / 3
        cached = together * row_tokens * cache_bytes_per_token(model, precision)
        read = (width * model.parameters + cached) / gpu.bandwidth
        token = max(read, forward * together / rate)
        seconds += batches * answer_tokens * token + forward * prompts * prompt_tokens / rate
    return seconds
