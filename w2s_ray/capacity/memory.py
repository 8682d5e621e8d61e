"""Bytes that one process of a training run needs, from the model's dimensions alone.

    training_bytes(shape, *, precision, stage, world, tokens, engine=None, trainable="full",
                   adapters=0, offload="none", checkpointing=False, passes=2,
                   row_tokens=512, scored=0, bucket=BUCKET, device="gpu") -> Memory
    inference_bytes(shape, *, precision, tokens, row_tokens=512, device="gpu") -> Memory
    adapter_parameters(shape, rank, target_modules="all-linear") -> int

``shape`` is ``architecture.Shape`` (``architecture.shape_of(config.json's fields)``). Nothing but
the standard library is imported, so that a program that measures can bring this file along.

What a process holds at its peak is the largest of some moments of an optimizer step:

* the backward pass begins: everything that lasts, gradients of earlier passes, all activations;
* the backward pass ends: everything that lasts, all gradients, the largest one in the making;
* the update: everything that lasts, all gradients and what the engine copies them to.

The formulas follow the engines of ``training/`` and the installed versions of transformers and
DeepSpeed, line by line where they are not obvious; `tests/plan/test_memory.py` holds activations to
what autograd saves, `benchmarks/memory.py` the sum to what processes use.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from w2s_ray.catalog.architecture import Shape

WIDTH = {"bf16": 2, "fp32": 4}  # bytes of a weight
BUCKET = 50_000_000  # elements of DeepSpeed's communication buffers, at most
LIVE = 1_000_000_000  # elements within which ZeRO 3 keeps what is used again, forward and backward
GPU_WORKSPACES = 64 << 20  # bytes: cuBLAS and FlexAttention, inside torch's allocator
WARM = 1 << 30  # bytes of the largest model of which a copy is kept
CPU_SCRATCH = 4 << 20  # bytes: what malloc keeps back

Device = Literal["gpu", "cpu"]
Offload = Literal["none", "optimizer", "parameters"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process. ``total`` is the peak, which parts may reach at different moments.

    Attributes:
        weights: what is kept of the model's weights, in its precision.
        gradients: in whatever precision they are summed, when all are there.
        optimizer: fp32 masters and Adam's two moments.
        activations: of one pass, when the backward pass begins.
        buffers: communication buckets, gathered weights, workspaces.
        total: the peak.
        host: of the process's host memory, beside what every process needs: what is offloaded.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    total: int
    host: int = 0


def training_bytes(
    shape: "Shape",
    *,
    precision: str,
    stage: int,
    world: int,
    tokens: int,
    engine: Literal["torch", "deepspeed"] | None = None,
    trainable: str = "full",
    adapters: int = 0,
    offload: Offload = "none",
    checkpointing: bool = False,
    passes: int = 2,
    row_tokens: int = 512,
    scored: int = 0,
    bucket: int = BUCKET,
    device: Device = "gpu",
) -> Memory:
    """The peak of one of ``world`` processes that train ``shape``.

    Args:
        precision: bf16 or fp32, of the model.
        stage: DeepSpeed ZeRO, 0 to 3; of no account to the torch engine.
        tokens: of one pass of one process.
        engine: None: torch for a process alone that offloads nothing, else DeepSpeed.
        trainable: full, lora or last_layer (head only, the backbone is run without gradients).
        adapters: LoRA parameters, fp32.
        offload: what stands in host memory (or on a disk) between uses.
        checkpointing: blocks are computed again in the backward pass.
        passes: micro-batches an optimizer step; 1: gradients start from nothing.
        row_tokens: mean length of a row, which the CPU's attention scores grow with.
        scored: tokens of a pass without gradients, by which test rows are scored afterwards.
        bucket: elements of DeepSpeed's communication buffers, at most.
        device: which attention, and whose workspaces.
    """
    width = WIDTH[precision]
    alone = engine == "torch" or (engine is None and world == 1 and offload == "none")
    full = trainable == "full"
    trained, trained_width = (shape.parameters, width) if full else (adapters, 4)
    largest = shape.embeddings if full else 0
    if alone:
        parts = _torch(trained, trained_width, largest)
    else:
        parts = _deepspeed(shape, trained, trained_width, largest, stage, world, offload, bucket)
    frozen = 0 if full else width * shape.parameters
    if frozen and not alone and stage == 3:
        parts.gathered += min(frozen, width * LIVE)
        frozen //= world
    activations, transient = activation_bytes(
        shape,
        precision=precision,
        tokens=tokens,
        row_tokens=row_tokens,
        checkpointing=checkpointing,
        trainable=trainable,
        device=device,
    )
    workspaces = GPU_WORKSPACES if device == "gpu" else CPU_SCRATCH
    lasting = parts.weights + frozen + parts.optimizer + workspaces
    standing = parts.begun if passes > 1 or (stage == 3 and not alone) else 0
    moments = (
        standing + activations + transient + parts.gathered + parts.bucket,
        parts.ended + parts.gathered,
        parts.update,
        parts.gathered + _scratch(shape, width, scored),
    )
    return Memory(
        weights=parts.weights + frozen,
        gradients=parts.gradients,
        optimizer=parts.optimizer,
        activations=activations + transient,
        buffers=parts.gathered + parts.bucket + workspaces,
        total=lasting + max(moments),
        host=parts.host,
    )


def inference_bytes(
    shape: "Shape",
    *,
    precision: str,
    tokens: int,
    row_tokens: int = 512,
    device: Device = "gpu",
) -> Memory:
    """The peak of one process that runs ``shape`` forward: features, labels, scores."""
    width = WIDTH[precision]
    _, transient = activation_bytes(
        shape,
        precision=precision,
        tokens=tokens,
        row_tokens=row_tokens,
        checkpointing=False,
        trainable="last_layer",
        device=device,
    )
    workspaces = GPU_WORKSPACES if device == "gpu" else CPU_SCRATCH
    weights = shape.parameters * width
    return Memory(weights, 0, 0, transient, workspaces, weights + transient + workspaces)


@dataclass(slots=True)
class _Parts:
    """What an engine holds, and what it holds at each moment beside what lasts."""

    weights: int
    gradients: int
    optimizer: int
    begun: int  # gradients when a later backward pass begins
    ended: int  # gradients, and copies of them, when the last one ends
    update: int  # gradients, and copies of them, in the update
    bucket: int = 0  # communication buffers while the backward pass begins
    gathered: int = 0  # weights made whole for the blocks at work
    host: int = 0


def _torch(trained: int, width: int, largest: int) -> _Parts:
    """A bf16 gradient is added to its fp32 sum as soon as it is whole, and freed."""
    whole = 4 * trained
    masters = whole if width == 2 else 0
    return _Parts(
        weights=width * trained,
        gradients=whole,
        optimizer=masters + 8 * trained,
        begun=whole,
        ended=whole + width * largest,
        update=whole,
    )


def _deepspeed(
    shape: "Shape",
    trained: int,
    width: int,
    largest: int,
    stage: int,
    world: int,
    offload: Offload,
    most: int,
) -> _Parts:
    """ZeRO of DeepSpeed 0.19, which keeps fp32 masters of fp32 weights too (but for stage 0).

    Stage 1 sums whole fp32 gradients and reduces them after the last pass, by way of a buffer and
    a copy of it; stages 2 and 3 reduce while the backward pass runs. The update copies the
    process's part of the gradients into one piece. Stage 3's sums stand from the beginning.
    """
    stage = max(stage, 1) if width == 2 or offload != "none" else stage
    whole, part, bucket = 4 * trained, 4 * -(-trained // world), 4 * min(most, trained)
    if stage == 0:
        ended = whole + bucket + width * largest
        return _Parts(width * trained, whole, 2 * whole, whole, ended, whole)
    offloaded = offload != "none"
    optimizer, host = (0, 5 * part) if offloaded else (3 * part, 0)
    if stage == 1:
        ended, update = whole + 2 * bucket, 0 if offloaded else 2 * part
        return _Parts(width * trained, whole, optimizer, whole, ended, update, host=host)
    sums = 0 if offloaded else part
    made = (width + 4) * largest
    if stage == 2:
        return _Parts(
            weights=width * trained,
            gradients=sums,
            optimizer=optimizer,
            begun=sums,
            ended=sums + 2 * bucket + made,
            update=2 * sums,
            bucket=2 * bucket,
            host=host,
        )
    vectors = min(trained, shape.vectors)  # stay whole on every rank
    shard = width * part // 4
    weights = width * vectors
    if offload == "parameters":
        host += shard
    else:
        weights += shard
    gathered = width * min(trained, LIVE // 2 + most + max(shape.block, shape.embeddings))
    if world == 1 and offload != "parameters":  # the shard is the whole, and used as it is
        gathered = 0
    return _Parts(
        weights=weights,
        gradients=sums,
        optimizer=optimizer,
        begun=sums,
        ended=sums + 2 * bucket + made,
        update=sums + min(sums, 4 * LIVE),  # a group of parameters at a time
        bucket=2 * bucket,
        gathered=gathered,
        host=host,
    )


def activation_bytes(
    shape: "Shape",
    *,
    precision: str,
    tokens: int,
    row_tokens: int = 512,
    checkpointing: bool = False,
    trainable: str = "full",
    device: Device = "gpu",
) -> tuple[int, int]:
    """(kept for the backward pass, beside it while one block is at work), in bytes."""
    width = WIDTH[precision]
    block = _saved_a_token(shape, width, row_tokens, device)
    at_work = _scratch(shape, width, tokens)
    if trainable == "last_layer":
        return 0, at_work
    stream = tokens * shape.hidden_size * width
    if checkpointing:
        return (shape.layers + 2) * stream + block * tokens, at_work
    return shape.layers * block * tokens + 4 * stream, at_work


def _scratch(shape: "Shape", width: int, tokens: int) -> int:
    """Bytes that one block at work needs for ``tokens``, beside what it saves."""
    wide = max(3 * shape.intermediate_size, 4 * shape.hidden_size)
    return tokens * (wide * width + 8 * shape.hidden_size)


def warm_bytes(shape: "Shape", precision: str) -> int:
    """What a process keeps of a small model for the next step (``models.warm``)."""
    whole = shape.parameters * WIDTH[precision]
    return whole if whole <= WARM else 0


def _saved_a_token(shape: "Shape", width: int, row_tokens: int, device: Device) -> int:
    """Bytes that autograd keeps of one block for each token."""
    hidden, inner, family = shape.hidden_size, shape.intermediate_size, shape.family
    queries, keys = shape.queries, shape.keys
    if device == "gpu":  # q, k, v, the output twice (as computed, and in order), log-sums
        attention = width * (3 * queries + 2 * keys) + 4 * shape.heads
    else:  # q scaled, k and v repeated, the output, scores of every group
        attention = width * (4 * queries + shape.heads * row_tokens)
        if family.fused_qkv:  # a part keeps the whole alive; a rotated k is another tensor
            attention += width * queries * (1 if family.learned_positions else 2)
    # Of two norms: mean and deviation; of an RMSNorm the deviation, and one of its states is fp32.
    layer_norm = family.norm == "layer_norm"
    norms = 4 * width if layer_norm else 2 * ((4 - width) * hidden + 4)
    states = family.saved_hidden * hidden + family.saved_inner * inner
    return width * states + norms + attention


def adapter_parameters(shape: "Shape", rank: int, target_modules: object = "all-linear") -> int:
    """LoRA parameters of all linear layers of the blocks: an upper bound for fewer modules."""
    return shape.layers * rank * sum(a + b for a, b in shape.linear_layers)
