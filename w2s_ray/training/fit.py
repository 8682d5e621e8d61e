"""Training a ``TrainJob`` in one process of however many: load, train, score, write.

The same function runs in the calling process with the torch engine and in each worker of a Ray
Train group with the DeepSpeed engine; only ``make_engine`` and ``stream`` differ.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS
from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.contents import write_content
from w2s_ray.data.batches import trained_rows
from w2s_ray.data.tokens import Tokens
from w2s_ray.finite import check_rows
from w2s_ray.half_logits import relative
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.compiled import compile_if_it_pays
from w2s_ray.models.finite_weights import check_scores
from w2s_ray.models.inference import sweep
from w2s_ray.models.partitioned import Partition, load_partitioned
from w2s_ray.models.scorer import Scorer
from w2s_ray.models.split import backbone_for, split
from w2s_ray.models.structure import whole_shape
from w2s_ray.models.trainable import load_state, set_trainable
from w2s_ray.models.warm import own_backbone
from w2s_ray.models.weight_files import write_file
from w2s_ray.plan.configs import Training
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.training.early_end import hearing
from w2s_ray.training.engine import Batch, Engine, MakeEngine, TorchEngine
from w2s_ray.training.evaluations import Evaluations
from w2s_ray.training.job import (
    ScoredTokens,
    TrainedModel,
    TrainJob,
    memory_stream,
    rows_to_train_on,
    threshold_buffer,
)
from w2s_ray.training.loop import Curve, train
from w2s_ray.training.outputs import counts_of, size_metrics, training_metrics, write_outputs
from w2s_ray.training.peak_memory import peak_memory
from w2s_ray.training.progress import Progress
from w2s_ray.training.resume import Checkpointer
from w2s_ray.training.trained_rows import scored_rows
from w2s_ray.training.validation import evaluated_steps

Stream = Callable[[int], Iterable[list[Batch]]]


class LoadedModel(NamedTuple):
    """A job's model before its first update.

    Attributes:
        parameters: those to be trained.
        shapes: whole shape of every parameter of the scorer by name, frozen ones too.
        trained: names of ``parameters``.
    """

    backbone: Backbone
    scorer: Scorer
    parameters: list[nn.Parameter]
    shapes: dict[str, tuple[int, ...]]
    trained: list[str]

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of parameters of the scorer, and of those to be trained."""
        sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        return sum(sizes.values()), sum(sizes[name] for name in self.trained)


def load_model(job: TrainJob, partition: Partition | None = None, rank: int = 0) -> LoadedModel:
    """The job's backbone with a new head and, where it trains them, adapters.

    Args:
        partition: shards each module's parameters as soon as it is loaded (ZeRO 3); None: the
            model is loaded whole.
        rank: of this process; with ``partition`` only rank 0 reads the weights.
    """
    if partition is not None and job.model.source is not None:
        backbone = load_partitioned(job.model, job.precision, partition, reads=rank == 0)
    else:
        backbone = own_backbone(job.model, job.precision)
    scorer = Scorer(
        backbone.module, backbone.hidden_size, job.num_classes, job.per_row, seed=job.seed
    )
    parameters = set_trainable(scorer, job.trainable, job.lora, job.seed)
    if job.execution.activation_checkpointing:
        backbone.module.activation_checkpointing_enable()
    shapes = {name: whole_shape(p) for name, p in scorer.named_parameters()}
    trained = [name for name, p in scorer.named_parameters() if p.requires_grad]
    return LoadedModel(backbone, scorer, parameters, shapes, trained)


def fit(
    job: TrainJob,
    out: Path,
    *,
    make_engine: MakeEngine = TorchEngine,
    partition: Partition | None = None,
    rank: int = 0,
    stream: Stream | None = None,
    scored: ScoredTokens | None = None,
    preempted: Callable[[], bool] = lambda: False,
    progress: Progress = lambda numbers: None,
) -> dict[str, Any]:
    """Trains the job; resumes from its newest checkpoint if there is one.

    Rank 0 writes ``test.parquet``, ``curve.parquet`` and, where the job asks for them, the weights
    and an export into ``out``.

    Args:
        partition: shards a module's parameters while the model is loaded (ZeRO 3).
        rank: of this process.
        stream: yields this rank's batches from an optimizer step on; None: they are made here, in
            memory, for one process.
        scored: tokens of the job's other rows; None: they are made here.
        preempted: whether this process's machine is about to be reclaimed.

    Returns:
        The metrics of the step's record.
    """
    with peak_memory() as peak:
        model = load_model(job, partition, rank)
        engine = make_engine(model.scorer, model.parameters, job.adam)
        device = next(model.scorer.parameters()).device.type
        metrics: dict[str, Any] = {"compiled": False, "device": device}
        # On an error only a single process frees its engine: a worker's peers may be gone.
        closes = stream is None
        try:
            if stream is None:
                tokens = job.encoded(job.rows, model.backbone.tokenizer)
                metrics |= counts_of(tokens)
                job, tokens = rows_to_train_on(job, tokens)
                stream = partial(memory_stream, job, tokens)
                work = job.epochs * len(tokens.ids)
                metrics["compiled"] = compile_if_it_pays(
                    model.backbone, work, flops_per_parameter=6
                )
            scored = scored or job.scored_tokens(model.backbone.tokenizer)
            metrics |= _train_and_write(
                job, out, model, engine, stream, scored, preempted, progress
            )
            metrics["peak_memory_bytes"] = int(engine.gather(torch.tensor([peak()])).max())
            closes = True
        finally:
            if closes:
                engine.close()
    shares_prompts = model.backbone.shares_prompts
    return {**metrics, "shares_prompts": shares_prompts, "workers": engine.world}


def _train_and_write(
    job: TrainJob,
    out: Path,
    model: LoadedModel,
    engine: Engine,
    stream: Stream,
    scored: ScoredTokens,
    preempted: Callable[[], bool],
    progress: Progress,
) -> dict[str, Any]:
    """Trains from the newest checkpoint on, scores the test rows and writes the job's files.

    Longer than other functions so that it reads from top to bottom in one piece.
    """
    test = scored.test
    budget = max(1, INFERENCE_TOKENS[job.device] >> job.oom_retries)
    score = partial(_score, engine, token_budget=budget)
    evaluations: Evaluations | None = None
    if scored.validation is not None:
        steps = evaluated_steps(job.total_steps, job.evaluations)
        evaluations = Evaluations(steps, score, scored.validation, test)
    buffer = threshold_buffer(job)
    trained_shapes = {name: model.shapes[name] for name in model.trained}
    checkpointer = _checkpointer(job, engine, trained_shapes, preempted, evaluations)
    curve = checkpointer.restore(buffer) if checkpointer else Curve()
    resumed_at = len(curve.loss)
    with (
        _naming_the_weights_at_fault(job, model, engine, curve, budget),
        hearing(can_save=checkpointer is not None),
    ):
        curve = train(
            engine,
            stream(resumed_at),
            job.objective,
            total_steps=job.total_steps,
            learning_rate=job.learning_rate,
            schedule=job.schedule,
            buffer=buffer,
            curve=curve,
            checkpointer=checkpointer,
            evaluations=evaluations,
            progress=progress,
        )
    logits, evaluated = score(test), None
    if evaluations is not None:
        assert job.held_out is not None
        evaluated = evaluations.evaluated(job.held_out, job.objective)
    flipped = _score_trained_rows(job, out, engine, scored.trained, budget)
    if job.keep_weights:
        _write_weights(out / WEIGHTS, engine, trained_shapes)
    if job.export is not None:
        trained = TrainedModel(model.backbone, model.shapes, engine.whole, test, logits)
        job.export(out if engine.rank == 0 else None, job, trained)
    if engine.rank == 0:
        write_outputs(out, job.test, logits, curve, evaluated)
    return {
        **training_metrics(curve),
        **size_metrics(*model.sizes, curve.tokens),
        **({"checkpoints": checkpointer.metrics(resumed_at)} if checkpointer else {}),
        **counts_of(test, "test_"),
        **flipped,
        "micro_batch_tokens": job.token_budget,
        "out_of_memory": job.oom_retries,
    }


@contextmanager
def _naming_the_weights_at_fault(
    job: TrainJob, model: LoadedModel, engine: Engine, curve: Curve, token_budget: int
) -> Iterator[None]:
    """If the first loss is not finite since the model's scores are not, names row and weights.

    Only then are the training rows scored. In a worker group, which has no texts, the first error
    stays.

    Args:
        curve: of the training inside; empty before its first update.
    """
    try:
        yield
    except FloatingPointError:
        if not curve.loss and "prompt" in job.rows.column_names:
            tokens = job.encoded(job.rows, model.backbone.tokenizer)
            logits = sweep(partial(_logits, engine), tokens, token_budget)
            name = f"the logits of the model {job.model.source or job.model.architecture}"
            check_scores(logits, name, tokens.row_ids, model.scorer)
        raise


def _score_trained_rows(
    job: TrainJob, out: Path, engine: Engine, tokens: Tokens | None, token_budget: int
) -> dict[str, Any]:
    """Scores ``job.scored``, writes it and returns its metrics; every rank takes part.

    The pairs that a student's training leaves out, since their answers are the same tokens, are
    left out here too.
    """
    scored = job.scored
    if scored is None:
        return {}
    assert tokens is not None
    if scored.soft_labels is not None:
        kept = trained_rows(tokens.identical, job.identical_pairs)
        scored, tokens = scored.take(kept), tokens.take(kept)
    logits = relative(_score(engine, tokens, token_budget))
    if engine.rank != 0:
        return {}
    rows = scored_rows(scored, logits)
    write_content(out / "train.parquet", rows.table)
    return rows.metrics


def _checkpointer(
    job: TrainJob,
    engine: Engine,
    shapes: Mapping[str, tuple[int, ...]],
    preempted: Callable[[], bool],
    evaluations: Evaluations | None,
) -> Checkpointer | None:
    """The job's checkpointer; None if the job has no storage for checkpoints.

    Args:
        shapes: of the trained parameters, by name.
    """
    if job.checkpoints is None:
        return None
    minutes = job.execution.checkpoint_minutes
    batches = [job.seed, job.epochs, job.batch_size, job.max_length_tokens]
    rows = [job.rows["row_id"].to_pylist(), job.soft_labels.tobytes().hex()]
    if job.weights is not None:
        rows.append(job.weights.tobytes().hex())
    return Checkpointer(
        job.checkpoints,
        engine,
        {"model": _digest(sorted(shapes.items())), "data": _digest([*batches, *rows])},
        total_updates=job.total_steps,
        every_updates=job.execution.checkpoint_steps,
        every_seconds=None if minutes is None else 60.0 * minutes,
        preempted=preempted,
        evaluations=evaluations,
    )


def _digest(value: Any) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()[:16]


def _score(engine: Engine, tokens: Tokens, token_budget: int) -> NDArray[np.float32]:
    """(n, K) float32 logits of all rows, in table order, on every rank.

    Args:
        token_budget: most tokens of one forward pass.

    Raises:
        FloatingPointError: a logit is not finite; names the row.
    """
    logits = sweep(
        partial(_logits, engine),
        tokens,
        token_budget,
        rank=engine.rank,
        world=engine.world,
        gather=engine.gather,
    )
    logits[tokens.identical] = 0.0  # a tie, whatever rounding makes of it
    check_rows(logits, "the trained model's logits", tokens.row_ids)
    return logits


def _logits(engine: Engine, input_ids: Tensor, segments: Tensor) -> Tensor:
    return engine.logits({"input_ids": input_ids, "segments": segments})


def _write_weights(file: Path, engine: Engine, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Rank 0 writes the trained parameters in float32; the other ranks take part in gathering them.

    Args:
        shapes: of the trained parameters, by name.
    """
    tensors = ((name, tensor.float()) for name, tensor in engine.whole(shapes))
    if engine.rank == 0:
        write_file(file, {name: (torch.float32, shape) for name, shape in shapes.items()}, tensors)
    else:
        deque(tensors, maxlen=0)


def trained_scorer(
    model: ModelSpec, training: Training, folder: Path, shape: tuple[int, int], gpus: int = 1
) -> tuple[Scorer, PreTrainedTokenizerFast]:
    """The model whose weights ``fit`` wrote into ``folder``, and its tokenizer.

    Args:
        model: the weights before training.
        training: how it was trained.
        shape: number of classes, texts a row.
        gpus: of this machine, over which it is split.
    """
    backbone = backbone_for(model, training.precision, gpus)
    scorer = Scorer(backbone.module, backbone.hidden_size, *shape, seed=0)
    set_trainable(scorer, training.trainable, training.lora or Lora(), 0)
    load_state(scorer, load_file(folder / WEIGHTS))
    split(backbone, gpus)
    scorer.head.to(next(backbone.module.parameters()).device)
    return scorer, backbone.tokenizer
