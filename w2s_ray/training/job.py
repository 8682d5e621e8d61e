"""A training job: everything a process needs to train one scorer and score the test rows.

The same function runs in the calling process with the torch engine and in each worker of a Ray
Train group with the DeepSpeed engine; only ``engine`` and ``stream`` differ.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches, pack
from w2s_ray.data.labels import as_matrix
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.compiled import compile_if_it_pays
from w2s_ray.models.inference import TOKEN_BUDGET, sweep
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.trainable import load_state, set_trainable
from w2s_ray.models.warm import own_backbone
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.objectives.objective import Objective
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.training.engine import Adam, Batch, Engine, TorchEngine
from w2s_ray.training.loop import Progress, train
from w2s_ray.training.outputs import training_metrics, write_curve, write_predictions
from w2s_ray.training.peak_memory import peak_memory

WEIGHTS = "model.safetensors"
MICRO_BATCH_TOKENS = {"cpu": 4_096, "gpu": 16_384}  # where the spec does not say


@dataclass(frozen=True)
class TrainJob:
    """A model to train on soft labels. Plain values and Arrow tables: it travels by pickle.

    Attributes:
        name: stable, unique: names the run when a worker group trains it.
        rows: columns row_id, prompt, answers, and probs (list of K float32, the soft label).
        test: columns row_id, prompt, answers, label.
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

    @property
    def total_steps(self) -> int:
        steps: int = self.epochs * math.ceil(self.rows.num_rows / self.batch_size)
        return steps

    @property
    def token_budget(self) -> int:
        """Most tokens of a forward and backward pass of one worker."""
        given = self.execution.get("micro_batch_tokens")
        return int(given or MICRO_BATCH_TOKENS["gpu" if self.on_gpu else "cpu"])

    @property
    def on_gpu(self) -> bool:
        """Whether its processes are given GPUs."""
        return float(self.execution.get("gpus_per_worker", 0.0)) > 0


MakeEngine = Callable[[nn.Module, Sequence[nn.Parameter], Adam], Engine]


def memory_stream(job: TrainJob, tokens: Tokens) -> Iterator[list[Batch]]:
    """The micro-batches of one process, one list an optimizer step, from rows held in memory."""
    soft_labels = torch.from_numpy(as_matrix(job.rows["probs"]))
    for epoch in range(job.epochs):
        order = epoch_order(tokens.row_ids, job.seed, epoch)
        for rows in optimizer_batches(order, job.batch_size):
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
    stream: Iterable[list[Batch]] | None = None,
    progress: Progress = lambda numbers: None,
) -> dict[str, Any]:
    """Trains the job and writes ``test.parquet``, ``curve.parquet`` and, if kept, the weights.

    Only rank 0 writes. Returns the step's metrics.

    Args:
        stream: this rank's batches; None: made here, in memory, for one process.
    """
    with peak_memory() as peak:
        backbone = own_backbone(job.model, job.precision)
        scorer = Scorer(
            backbone.module, backbone.hidden_size, job.num_classes, job.per_row, seed=job.seed
        )
        parameters = set_trainable(scorer, job.trainable, job.lora, job.seed)
        engine = make_engine(scorer, parameters, job.adam)
        test = encode(job.test, backbone.tokenizer, job.max_length_tokens)
        told = {"truncated_test_rows": test.truncated, "compiled": False}
        if stream is None:
            tokens = encode(job.rows, backbone.tokenizer, job.max_length_tokens)
            told["truncated_rows"] = tokens.truncated
            stream = memory_stream(job, tokens)
            work = job.epochs * len(tokens.ids)
            told["compiled"] = compile_if_it_pays(backbone, work, flops_a_parameter=6)
        curve = train(
            engine,
            stream,
            job.objective,
            total_steps=job.total_steps,
            learning_rate=job.learning_rate,
            schedule=job.schedule,
            buffer=threshold_buffer(job.objective, job.rows, job.per_row),
            progress=progress,
        )
        logits = score(engine, test, job.on_gpu)
        state = engine.state() if job.keep_weights else {}
        most = engine.gather(torch.tensor([peak()])).max()
    if engine.rank == 0:
        write_predictions(out / "test.parquet", job.test, logits)
        write_curve(out / "curve.parquet", curve)
        if job.keep_weights:
            save_file({name: t.contiguous() for name, t in state.items()}, out / WEIGHTS)
    return {
        **training_metrics(curve),
        **told,
        "shares_prompts": backbone.shares_prompts,
        "workers": engine.world,
        "peak_memory_bytes": int(most),
        "device": next(scorer.parameters()).device.type,
    }


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


def score(engine: Engine, tokens: Tokens, on_gpu: bool) -> NDArray[np.float32]:
    """(n, K) float32 logits of all rows, in table order, on every rank."""

    def forward(input_ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        return engine.logits({"input_ids": input_ids, "segments": segments})

    return sweep(
        forward,
        tokens,
        TOKEN_BUDGET["cuda" if on_gpu else "cpu"],
        rank=engine.rank,
        world=engine.world,
        gather=engine.gather,
    )
