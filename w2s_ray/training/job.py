"""A training job: everything a process needs to train one scorer and score the test rows.

The same function runs in the calling process with the torch engine and in each worker of a Ray
Train group with the DeepSpeed engine; only ``engine`` and ``stream`` differ.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches, pack
from w2s_ray.data.labels import as_matrix
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.compiled import compile_if_it_pays
from w2s_ray.models.inference import TOKEN_BUDGET, sweep
from w2s_ray.models.model_card import Card
from w2s_ray.models.partitioned import Partition, load_partitioned
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.trainable import load_state, set_trainable
from w2s_ray.models.warm import own_backbone
from w2s_ray.models.weight_files import write_file
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.training.engine import Adam, Batch, Engine, TorchEngine
from w2s_ray.training.exports import export_trained
from w2s_ray.training.loop import Curve, Progress, train
from w2s_ray.training.outputs import training_metrics, write_curve, write_predictions
from w2s_ray.training.peak_memory import peak_memory
from w2s_ray.training.resume import Keeper

WEIGHTS = "model.safetensors"
MICRO_BATCH_TOKENS = {"cpu": 4_096, "gpu": 16_384}  # where the spec does not say


@dataclass(frozen=True)
class TrainJob:
    """A model to train on soft labels. Plain values and Arrow tables: it travels by pickle.

    Attributes:
        name: stable, unique: names the run when a worker group trains it.
        rows: columns row_id, prompt, answers, and probs (list of K float32, the soft label).
        test: columns row_id, prompt, answers, label.
        card: what the model card of its export tells; None: it is not exported.
        checkpoints: where it may keep its state; None: nowhere.
        halvings: how often memory ran out, and passes were made half as long.
    """

    name: str
    model: ModelSpec
    rows: pa.Table
    test: pa.Table
    num_classes: int
    per_row: int
    objective: Objective
    trainable: str
    lora: Lora
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    adam: Adam
    max_length_tokens: int
    precision: str
    keep_weights: bool
    execution: Mapping[str, Any] = field(default_factory=dict)
    card: Card | None = None
    checkpoints: Checkpoints | None = None
    halvings: int = 0

    @property
    def total_steps(self) -> int:
        steps: int = self.epochs * math.ceil(self.rows.num_rows / self.batch_size)
        return steps

    @property
    def token_budget(self) -> int:
        """Most tokens of a forward and backward pass of one worker."""
        given = self.execution.get("micro_batch_tokens")
        whole = int(given or MICRO_BATCH_TOKENS["gpu" if self.on_gpu else "cpu"])
        return max(1, whole >> self.halvings)

    @property
    def on_gpu(self) -> bool:
        """Whether its processes are given GPUs, and this one sees one."""
        given = float(self.execution.get("gpus_per_worker", 0.0)) > 0
        return given and torch.cuda.is_available()

    @property
    def device(self) -> str:
        return "cuda" if self.on_gpu else "cpu"


MakeEngine = Callable[[nn.Module, Sequence[nn.Parameter], Adam], Engine]
Stream = Callable[[int], Iterable[list[Batch]]]


def memory_stream(job: TrainJob, tokens: Tokens, start: int = 0) -> Iterator[list[Batch]]:
    """The micro-batches of one process, one list an optimizer step, from rows held in memory.

    Args:
        start: optimizer steps to leave out at the beginning.
    """
    soft_labels = torch.from_numpy(as_matrix(job.rows["probs"]))
    orders = (epoch_order(tokens.row_ids, job.seed, epoch) for epoch in range(job.epochs))
    batches = (rows for order in orders for rows in optimizer_batches(order, job.batch_size))
    for rows in islice(batches, start, None):
        yield [
            token_batch(tokens, indices, soft_labels[indices], weights)
            for indices, weights in micro_batches(rows, tokens.row_lengths, job.token_budget)
        ]


def token_batch(
    tokens: Tokens,
    indices: NDArray[np.int64],
    soft_labels: torch.Tensor,
    weights: NDArray[np.float32],
) -> Batch:
    """The rows ``indices`` as one packed micro-batch."""
    input_ids, segments = pack(tokens, indices)
    return Batch(
        inputs={"input_ids": torch.from_numpy(input_ids), "segments": torch.from_numpy(segments)},
        soft_labels=soft_labels,
        weights=torch.from_numpy(weights),
        tokens=len(input_ids),
    )


def fit(
    job: TrainJob,
    out: Path,
    *,
    make_engine: MakeEngine = TorchEngine,
    partition: Partition | None = None,
    rank: int = 0,
    stream: Stream | None = None,
    hurry: Callable[[], bool] = lambda: False,
    progress: Progress = lambda numbers: None,
) -> dict[str, Any]:
    """Trains the job and writes ``test.parquet``, ``curve.parquet`` and, where the job asks for
    them, the weights and an export.

    Only rank 0 writes. Returns the step's metrics. A run that was interrupted goes on from its
    last checkpoint.

    Args:
        partition: shards a module's parameters while the model is loaded (ZeRO-3); None: every rank
            loads it whole.
        rank: of this process.
        stream: gives this rank's batches from an optimizer step on; None: made here, in memory,
            for one process.
        hurry: whether this machine is about to be taken away.
    """
    with peak_memory() as peak:
        if partition is not None and job.model.source is not None:
            backbone = load_partitioned(job.model, job.precision, partition, reads=rank == 0)
        else:
            backbone = own_backbone(job.model, job.precision)
        scorer = Scorer(
            backbone.module, backbone.hidden_size, job.num_classes, job.per_row, seed=job.seed
        )
        parameters = set_trainable(scorer, job.trainable, job.lora, job.seed)
        if job.execution.get("activation_checkpointing"):
            backbone.module.activation_checkpointing_enable()
        shapes = {name: whole_shape(p) for name, p in scorer.named_parameters()}
        trained = [name for name, p in scorer.named_parameters() if p.requires_grad]
        engine = make_engine(scorer, parameters, job.adam)
        over = stream is None  # a process of its own is done with its engine in any case
        told: dict[str, Any] = {"compiled": False, "device": next(scorer.parameters()).device.type}
        try:
            if stream is None:
                tokens = encode(job.rows, backbone.tokenizer, job.max_length_tokens)
                told["truncated_rows"] = tokens.truncated
                stream = partial(memory_stream, job, tokens)
                work = job.epochs * len(tokens.ids)
                told["compiled"] = compile_if_it_pays(backbone, work, flops_per_parameter=6)
            told |= _run(job, out, backbone, engine, shapes, trained, stream, hurry, progress)
            told["peak_memory_bytes"] = int(engine.gather(torch.tensor([peak()])).max())
            over = True
        finally:
            if over:  # a worker whose peers may be gone just ends
                engine.close()
    return {**told, "shares_prompts": backbone.shares_prompts, "workers": engine.world}


def _run(
    job: TrainJob,
    out: Path,
    backbone: Backbone,
    engine: Engine,
    shapes: Mapping[str, tuple[int, ...]],
    trained: Sequence[str],
    stream: Stream,
    hurry: Callable[[], bool],
    progress: Progress,
) -> dict[str, Any]:
    """Trains from the last checkpoint on, scores, and writes what the job asks for.

    Args:
        shapes: of all parameters, by name.
        trained: names of those that are trained.
    """
    test = encode(job.test, backbone.tokenizer, job.max_length_tokens)
    buffer = threshold_buffer(job.objective, job.rows, job.per_row)
    keeper = _keeper(job, engine, {name: shapes[name] for name in trained}, hurry)
    curve = keeper.restore(buffer) if keeper else Curve()
    resumed_at = len(curve.loss)
    curve = train(
        engine,
        stream(resumed_at),
        job.objective,
        total_steps=job.total_steps,
        learning_rate=job.learning_rate,
        schedule=job.schedule,
        buffer=buffer,
        curve=curve,
        keeper=keeper,
        progress=progress,
    )
    logits = score(engine, test, max(1, TOKEN_BUDGET[job.device] >> job.halvings))
    if job.keep_weights:
        kept = ((name, tensor.float()) for name, tensor in engine.whole(trained))
        layout = {name: (torch.float32, shapes[name]) for name in trained}
        if engine.rank == 0:
            write_file(out / WEIGHTS, layout, kept)
        else:
            deque(kept, maxlen=0)
    if job.card is not None:
        folder = out if engine.rank == 0 else None
        export_trained(folder, job.card, job, backbone, shapes, engine.whole, test, logits)
    if engine.rank == 0:
        write_predictions(out / "test.parquet", job.test, logits)
        write_curve(out / "curve.parquet", curve)
    return {
        **training_metrics(curve),
        **({"checkpoints": keeper.told(resumed_at)} if keeper else {}),
        "truncated_test_rows": test.truncated,
        "micro_batch_tokens": job.token_budget,
        "out_of_memory": job.halvings,
    }


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape of a parameter, of which this process may hold a part."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _keeper(
    job: TrainJob,
    engine: Engine,
    shapes: Mapping[str, tuple[int, ...]],
    hurry: Callable[[], bool],
) -> Keeper | None:
    if job.checkpoints is None:
        return None
    minutes = job.execution.get("checkpoint_minutes")
    place = [job.seed, job.epochs, job.batch_size, job.max_length_tokens]
    rows = job.rows["row_id"].to_pylist(), as_matrix(job.rows["probs"]).tobytes().hex()
    return Keeper(
        job.checkpoints,
        engine,
        {"model": _digest(sorted(shapes.items())), "data": _digest([*place, *rows])},
        total_updates=job.total_steps,
        every_updates=job.execution.get("checkpoint_steps"),
        every_seconds=None if minutes is None else 60.0 * minutes,
        hurry=hurry,
    )


def _digest(value: Any) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()[:16]


def trained_scorer(
    model: ModelSpec, settings: Mapping[str, Any], folder: Path, shape: tuple[int, int]
) -> tuple[Scorer, PreTrainedTokenizerFast]:
    """The model of a training step's artifact, and its tokenizer.

    Args:
        settings: the ``training`` part of the configuration that it was trained with.
        shape: number of classes, texts a row.
    """
    backbone = own_backbone(model, settings["precision"])
    scorer = Scorer(backbone.module, backbone.hidden_size, *shape, seed=0)
    set_trainable(scorer, settings["trainable"], Lora.model_validate(settings.get("lora", {})), 0)
    load_state(scorer, load_file(folder / WEIGHTS))
    return scorer, backbone.tokenizer


def threshold_buffer(objective: Objective, rows: pa.Table, per_row: int) -> ThresholdBuffer | None:
    """For two-class texts under confidence regularisation, with the prior of the soft labels.

    Pairs need none: their prior is exactly ½ and the threshold z = 0.
    """
    soft_labels = as_matrix(rows["probs"])
    if not objective.confidence_weight or per_row > 1 or soft_labels.shape[1] > 2:
        return None
    return ThresholdBuffer(prior=float(soft_labels[:, 1].mean()))


def score(engine: Engine, tokens: Tokens, token_budget: int) -> NDArray[np.float32]:
    """(n, K) float32 logits of all rows, in table order, on every rank.

    Args:
        token_budget: most tokens of a pass.
    """

    def forward(input_ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        return engine.logits({"input_ids": input_ids, "segments": segments})

    return sweep(
        forward, tokens, token_budget, rank=engine.rank, world=engine.world, gather=engine.gather
    )
