"""Bytes that one process of a training or inference run needs, from the model's dimensions alone.

``shape`` is ``catalog.shapes.Shape`` (``shape_of(config.json's fields)``). Nothing but
the standard library is imported, so a measuring program can load this module by itself.

The peak is the largest of some moments of an optimizer step:

* the backward pass begins: everything persistent, gradients summed so far, all activations;
* the backward pass ends: everything persistent, all gradients, the largest one being computed;
* the update: everything persistent, all gradients and what the engine copies them to;
* test rows are scored: everything persistent and the scratch space of a forward pass.

The formulas follow the engines of ``training/`` and the installed versions of transformers and
DeepSpeed, line by line where they are not obvious; ``tests/capacity/test_memory.py`` compares
activations with what autograd saves, ``benchmarks/memory.py`` the sum with measured processes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from w2s_ray.catalog.shapes import Shape

GIB = 1 << 30
BYTES_PER_WEIGHT = {"bf16": 2, "fp32": 4}
BUCKET_ELEMENTS = 50_000_000  # of one of DeepSpeed's communication buffers, at most
MAX_LIVE_ELEMENTS = 1_000_000_000  # weights that ZeRO 3 keeps gathered for their next use, at most
GPU_WORKSPACES = 64 << 20  # bytes: cuBLAS and FlexAttention, inside torch's allocator
LARGEST_WARM_BYTES = GIB  # of a model that ``models.warm`` keeps loaded
LOGITS_BYTES = 2 * 4 * 2**25  # fp32 logits of a language model at once, and their softmax
CPU_SCRATCH = 4 << 20  # bytes that malloc does not return

Device = Literal["gpu", "cpu"]
Offload = Literal["none", "optimizer", "parameters"]
Engine = Literal["torch", "deepspeed"]


def gib(count: int) -> str:
    """Bytes in GiB, for people."""
    return f"{count / GIB:.1f} GiB"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process. ``total`` is the peak, which parts may reach at different moments.

    Attributes:
        weights: the model's weights that this process stores, in the model's precision.
        gradients: all of them, in the precision in which they are summed.
        optimizer: fp32 masters, Adam's two moments and the weights that an anchor pulls to.
        activations: of one micro-batch, when the backward pass begins.
        buffers: communication buckets, gathered weights, workspaces.
        total: the peak.
        host: offloaded state in host memory, beyond what every process needs.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    total: int
    host: int = 0


class Activations(NamedTuple):
    """Bytes of activations: kept for the backward pass, and scratch space while one block runs."""

    kept: int
    scratch: int


def training_bytes(
    shape: "Shape",
    *,
    precision: str,
    stage: int,
    world: int,
    tokens: int,
    engine: Engine | None = None,
    trainable: str = "full",
    adapters: int = 0,
    anchored: bool = False,
    offload: Offload = "none",
    checkpointing: bool = False,
    micro_batches: int = 2,
    row_tokens: int = 512,
    scoring_tokens: int = 0,
    bucket: int = BUCKET_ELEMENTS,
    device: Device = "gpu",
) -> Memory:
    """The peak of one of ``world`` processes that train ``shape``.

    Args:
        precision: bf16 or fp32, of the model.
        stage: DeepSpeed ZeRO, 0 to 3; ignored for the torch engine.
        tokens: of one micro-batch of one process.
        engine: None: torch for a single process that offloads nothing, else DeepSpeed.
        trainable: full, lora or last_layer (head only, the backbone runs without gradients).
        adapters: LoRA parameters, fp32.
        anchored: the initial weights of all that is trained are kept too, in fp32.
        offload: what is kept in host memory (or on a disk) between uses.
        checkpointing: blocks are recomputed in the backward pass.
        micro_batches: per optimizer step; with 1 there are no gradients when backward begins.
        row_tokens: mean length of a row, which the CPU's attention scores grow with.
        scoring_tokens: of a forward pass without gradients, by which test rows are scored.
        bucket: elements of DeepSpeed's communication buffers, at most.
        device: whose attention and workspaces to count.
    """
    width = BYTES_PER_WEIGHT[precision]
    if engine is None:
        engine = "torch" if world == 1 and offload == "none" else "deepspeed"
    sharded = engine == "deepspeed" and stage == 3
    parts = _stored(shape, width, trainable, adapters, engine, stage, world, offload, bucket)
    if micro_batches == 1 and not sharded:
        parts.begun = 0
    if anchored:
        parts.optimizer += 4 * (shape.parameters if trainable == "full" else adapters)
    activations = activation_bytes(
        shape,
        precision=precision,
        tokens=tokens,
        row_tokens=row_tokens,
        checkpointing=checkpointing,
        trainable=trainable,
        device=device,
    )
    scoring = _scratch(shape, width, scoring_tokens)
    return _peak(parts, sum(activations), scoring, device)


def inference_bytes(
    shape: "Shape",
    *,
    precision: str,
    tokens: int,
    row_tokens: int = 512,
    language_model: bool = False,
    gpus: int = 1,
    device: Device = "gpu",
) -> Memory:
    """The peak of one process that runs ``shape`` forward: features, labels, scores.

    Args:
        gpus: over which its blocks are split (``models.split``); the peak is that of the fullest.
        language_model: with the output head, counted as if it shared no weights with the
            embeddings, and a slice of its logits.
    """
    scratch = activation_bytes(
        shape,
        precision=precision,
        tokens=tokens,
        row_tokens=row_tokens,
        checkpointing=False,
        trainable="last_layer",
        device=device,
    ).scratch
    workspaces = GPU_WORKSPACES if device == "gpu" else CPU_SCRATCH
    first, *others = blocks_of_gpus(shape.layers, gpus)
    weights = shape.parameters
    if others:  # of the largest blocks, where they differ
        outside = shape.parameters - shape.block * sum(others)
        held = (shape.block * count for count in others)
        weights = max(outside, shape.embeddings + shape.block * first, *held)
    weights *= BYTES_PER_WEIGHT[precision]
    if language_model:
        weights += shape.embeddings * BYTES_PER_WEIGHT[precision]
        scratch += LOGITS_BYTES
    return Memory(weights, 0, 0, scratch, workspaces, weights + scratch + workspaces)


def blocks_of_gpus(blocks: int, gpus: int) -> list[int]:
    """How many blocks each GPU has of a model that is split; the first one has all else too."""
    fewest, more = divmod(blocks, gpus)
    return [fewest + (number >= gpus - more) for number in range(gpus)]


@dataclass(slots=True)
class _Parts:
    """What an engine stores persistently (the first three), and at single moments besides."""

    weights: int  # trained and frozen ones
    gradients: int
    optimizer: int
    begun: int  # gradients when the backward pass of a later micro-batch begins
    ended: int  # gradients, and copies of them, when the last one ends
    update: int  # gradients, and copies of them, in the update
    bucket: int = 0  # communication buffers while the backward pass begins
    gathered: int = 0  # weights gathered for the blocks at work
    host: int = 0


def _stored(
    shape: "Shape",
    width: int,
    trainable: str,
    adapters: int,
    engine: Engine,
    stage: int,
    world: int,
    offload: Offload,
    bucket: int,
) -> _Parts:
    """Trained weights by the engine's rules, and frozen ones, which ZeRO 3 shards as well."""
    full = trainable == "full"
    trained, trained_width = (shape.parameters, width) if full else (adapters, 4)
    largest = shape.embeddings if full else 0
    if engine == "torch":
        parts = _torch(trained, trained_width, largest)
    else:
        parts = _deepspeed(shape, trained, trained_width, largest, stage, world, offload, bucket)
    frozen = 0 if full else width * shape.parameters
    if frozen and engine == "deepspeed" and stage == 3:
        parts.gathered += min(frozen, width * MAX_LIVE_ELEMENTS)
        frozen //= world
    parts.weights += frozen
    return parts


def _peak(parts: _Parts, activations: int, scoring: int, device: Device) -> Memory:
    """The largest moment, on top of all that is persistent."""
    workspaces = GPU_WORKSPACES if device == "gpu" else CPU_SCRATCH
    moments = (
        parts.begun + activations + parts.gathered + parts.bucket,
        parts.ended + parts.gathered,
        parts.update,
        parts.gathered + scoring,
    )
    return Memory(
        weights=parts.weights,
        gradients=parts.gradients,
        optimizer=parts.optimizer,
        activations=activations,
        buffers=parts.gathered + parts.bucket + workspaces,
        total=parts.weights + parts.optimizer + workspaces + max(moments),
        host=parts.host,
    )


def _torch(trained: int, width: int, largest: int) -> _Parts:
    """The torch engine adds a bf16 gradient to its fp32 sum when it is complete, and frees it."""
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
    bucket_elements: int,
) -> _Parts:
    """ZeRO of DeepSpeed 0.19, which keeps fp32 masters of fp32 weights too (except at stage 0).

    Stage 1 sums whole fp32 gradients and reduces them after the last micro-batch, through a buffer
    and a copy of it; stages 2 and 3 reduce while the backward pass runs. The update copies the
    process's part of the gradients into one piece.
    """
    if stage == 0 and (width == 2 or offload != "none"):
        stage = 1
    whole, part = 4 * trained, 4 * -(-trained // world)
    bucket = 4 * min(bucket_elements, trained)
    if stage == 0:
        ended = whole + bucket + width * largest
        return _Parts(width * trained, whole, 2 * whole, whole, ended, whole)
    offloaded = offload != "none"
    optimizer, host = (0, 5 * part) if offloaded else (3 * part, 0)
    if stage == 1:
        ended, update = whole + 2 * bucket, 0 if offloaded else 2 * part
        return _Parts(width * trained, whole, optimizer, whole, ended, update, host=host)
    sums = 0 if offloaded else part
    parts = _Parts(
        weights=width * trained,
        gradients=sums,
        optimizer=optimizer,
        begun=sums,
        ended=sums + 2 * bucket + (width + 4) * largest,
        update=2 * sums,
        bucket=2 * bucket,
        host=host,
    )
    if stage == 3:
        _shard_weights(parts, shape, trained, width, world, offload, bucket_elements)
    return parts


def _shard_weights(
    parts: _Parts,
    shape: "Shape",
    trained: int,
    width: int,
    world: int,
    offload: Offload,
    bucket_elements: int,
) -> None:
    """Turns the parts of stage 2 into those of stage 3, which shards the weights too."""
    parts.weights = width * min(trained, shape.vectors)  # stay whole on every rank
    shard = width * -(-trained // world)
    if offload == "parameters":
        parts.host += shard
    else:
        parts.weights += shard
    if world > 1 or offload == "parameters":  # else the shard is the whole, and used as it is
        live = MAX_LIVE_ELEMENTS // 2 + bucket_elements + max(shape.block, shape.embeddings)
        parts.gathered = width * min(trained, live)
    sums = parts.gradients
    parts.update = sums + min(sums, 4 * MAX_LIVE_ELEMENTS)  # a group of parameters at a time


def activation_bytes(
    shape: "Shape",
    *,
    precision: str,
    tokens: int,
    row_tokens: int = 512,
    checkpointing: bool = False,
    trainable: str = "full",
    device: Device = "gpu",
) -> Activations:
    """Bytes of the activations of one micro-batch of ``tokens``; arguments as of training."""
    width = BYTES_PER_WEIGHT[precision]
    block = _saved_per_token(shape, width, row_tokens, device)
    scratch = _scratch(shape, width, tokens)
    if trainable == "last_layer":
        return Activations(0, scratch)
    stream = tokens * shape.hidden_size * width
    if checkpointing:
        return Activations((shape.layers + 2) * stream + block * tokens, scratch)
    return Activations(shape.layers * block * tokens + 4 * stream, scratch)


def _scratch(shape: "Shape", width: int, tokens: int) -> int:
    """Bytes of scratch space that one running block needs for ``tokens``, besides what it saves."""
    wide = max(3 * shape.intermediate_size, 4 * shape.hidden_size)
    return tokens * (wide * width + 8 * shape.hidden_size)


def warm_bytes(shape: "Shape", precision: str) -> int:
    """Bytes of the copy of a small model that ``models.warm`` keeps for the next step; else 0."""
    whole = shape.parameters * BYTES_PER_WEIGHT[precision]
    return whole if whole <= LARGEST_WARM_BYTES else 0


def _saved_per_token(shape: "Shape", width: int, row_tokens: int, device: Device) -> int:
    """Bytes that autograd keeps of one block for each token."""
    if shape.measured is not None:
        name = ("bf16" if width == 2 else "fp32", device)
        (saved,) = (entry for entry in shape.measured.saved if entry[:2] == name)
        return saved.fixed + saved.per_row_token * row_tokens
    hidden, inner, family = shape.hidden_size, shape.intermediate_size, shape.family
    queries, keys = shape.queries, shape.keys
    if device == "gpu":  # q, k, v, the output twice (as computed, and in order), log-sums
        attention = width * (3 * queries + 2 * keys) + 4 * shape.heads
    else:  # q scaled, k and v repeated, the output, scores of every group
        attention = width * (4 * queries + shape.heads * row_tokens)
        if family.fused_qkv:  # a part keeps the whole alive; a rotated k is another tensor
            attention += width * queries * (1 if family.learned_positions else 2)
    norms = 4 * width  # mean and deviation of two norms
    if family.norm == "rms_norm":  # two norms, each with one state in fp32 and the deviation
        norms = 2 * ((4 - width) * hidden + 4)
    states = family.saved_hidden * hidden + family.saved_inner * inner
    return width * states + norms + attention


def adapter_parameters(shape: "Shape", rank: int, target_modules: object = "all-linear") -> int:
    """LoRA parameters of all linear layers of the blocks: an upper bound for fewer modules."""
    return rank * shape.linear_widths
