"""Training a ``TextJob`` in one process of however many: load, score, train, write.

The same function runs in the calling process with the torch engine and in each worker of a group
with DeepSpeed's, as ``fit`` does.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.contents import write_content
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import CausalModel, load_causal, load_text_state, set_text_trainable
from w2s_ray.models.partitioned import Partition
from w2s_ray.models.partitioned_causal import load_partitioned_causal
from w2s_ray.models.structure import whole_shape
from w2s_ray.models.weight_files import write_file
from w2s_ray.training.early_end import hearing
from w2s_ray.training.engine import Engine, MakeEngine, TorchEngine
from w2s_ray.training.loop import Curve, train
from w2s_ray.training.outputs import curve_table, size_metrics, training_metrics
from w2s_ray.training.peak_memory import peak_memory
from w2s_ray.training.progress import Progress
from w2s_ray.training.resume import Checkpointer
from w2s_ray.training.text_batches import (
    Keep,
    TextRows,
    cut_equally,
    log_probs,
    text_rows,
    text_stream,
)
from w2s_ray.training.text_job import Dpo, TextJob, Wspo
from w2s_ray.training.text_losses import SCORER, loss_of, module_of

Kinds = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Dtype and shape of each trained parameter, by its name in the module that is trained."""


class LoadedText(NamedTuple):
    """A job's model before its first update.

    Attributes:
        parameters: those to be trained.
    """

    causal: CausalModel
    scorer: AnswerScorer
    parameters: list[nn.Parameter]


def load_text(
    job: TextJob, device: str | None = None, partition: Partition | None = None, rank: int = 0
) -> LoadedText:
    """The job's model with the trained state that it starts from.

    Args:
        device: where to; None: the job's own.
        partition: shards each module's parameters as soon as it is loaded (ZeRO 3); None: the
            model is loaded whole.
        rank: of this process; with ``partition`` only rank 0 reads the weights.

    Raises:
        InputError, ValueError, FloatingPointError: as ``load_causal``.
    """
    state = None if job.initial is None else partial(_initial_state, job)
    scorer = None
    if partition is not None and job.model.source is not None:
        whole, state = (state, None) if job.trainable == "full" else (None, state)
        causal, scorer = load_partitioned_causal(
            job.model, job.precision, partition, reads=rank == 0, state=whole
        )
    else:
        causal = load_causal(job.model, job.precision, device=device or job.device)
    parameters = set_text_trainable(causal.module, job.trainable, job.lora, job.seed)
    if state is not None:
        load_text_state(causal.module, state())
    causal.module.train()  # no dropout; without it activations are not checkpointed
    if job.execution.activation_checkpointing:
        causal.module.activation_checkpointing_enable()
    return LoadedText(causal, scorer or AnswerScorer(causal.module), parameters)


def _initial_state(job: TextJob) -> Mapping[str, Tensor]:
    """The trained parameters that a job starts from."""
    assert job.initial is not None
    return load_file(job.initial) if isinstance(job.initial, Path) else job.initial()


def fit_text(
    job: TextJob,
    out: Path,
    *,
    make_engine: MakeEngine = TorchEngine,
    partition: Partition | None = None,
    rank: int = 0,
    progress: Progress = lambda numbers: None,
    keep: Keep = lambda name, make: make(),
    preempted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains the job; resumes from its newest checkpoint if there is one.

    The initial model scores all rows once, before any update. Rank 0 writes ``model.safetensors``,
    the trained parameters by their names in the language model, and ``curve.parquet`` into
    ``out``. Longer than other functions so that a training reads from top to bottom in one piece.

    Args:
        make_engine: that of a group moves the model to its device.
        partition: shards a module's parameters while the model is loaded (ZeRO 3).
        rank: of this process.
        keep: an array under a name, made if an earlier try of this step has not left it. Where
            there are several ranks it must make it: all of them take part.
        preempted: whether this process's machine is about to be reclaimed.

    Returns:
        The metrics of the step's record.

    Raises:
        FloatingPointError: a loss, gradient, log-probability or trained weight is not finite.
        InputError, ValueError: as ``load_text``, ``TextJob.encoded`` and ``text_rows``.
    """
    with peak_memory() as peak:
        device = None if make_engine is TorchEngine else "cpu"
        model = load_text(job, device, partition, rank)
        causal, scorer = model.causal, model.scorer
        tokens = job.encoded(causal.tokenizer, causal.end_ids[0])
        module = module_of(job.objective, scorer)
        size = sum(math.prod(whole_shape(p)) for p in module.parameters())
        kinds = {
            n: (p.dtype, whole_shape(p)) for n, p in module.named_parameters() if p.requires_grad
        }
        engine = make_engine(module, model.parameters, job.adam)
        rows = text_rows(job, tokens, engine, scorer, keep)
        total_steps = rows.total_steps(job)
        checkpointer = _checkpointer(job, engine, rows, kinds, total_steps, preempted)
        curve = checkpointer.restore(None) if checkpointer else Curve()
        resumed_at = len(curve.loss)
        cut_equally(scorer, rows.tokens, job.token_budget)
        with hearing(can_save=checkpointer is not None):
            curve = train(
                engine,
                text_stream(job, rows, resumed_at, engine.rank, engine.world),
                loss_of(job.objective),
                total_steps=total_steps,
                learning_rate=job.learning_rate,
                schedule=job.schedule,
                warmup=job.warmup,
                curve=curve,
                checkpointer=checkpointer,
                progress=progress,
            )
        measured = _pair_metrics(job, rows, engine, scorer)
        _write_weights(out / WEIGHTS, engine, kinds)
        if engine.rank == 0:
            write_content(out / "curve.parquet", curve_table(curve))
        trained_size = sum(math.prod(shape) for _, shape in kinds.values())
        metrics = {
            "device": job.device,
            "compiled": False,
            **rows.counted,
            "answer_tokens": int(rows.counts.sum()),
            **training_metrics(curve),
            **size_metrics(size, trained_size, curve.tokens),
            **({"checkpoints": checkpointer.metrics(resumed_at)} if checkpointer else {}),
            **measured,
            "micro_batch_tokens": job.token_budget,
            "out_of_memory": job.oom_retries,
            "peak_memory_bytes": int(engine.gather(torch.tensor([peak()])).max()),
            "shares_prompts": scorer.shares_prompts,
            "workers": engine.world,
        }
        engine.close()
        return metrics


def _pair_metrics(
    job: TextJob, rows: TextRows, engine: Engine, scorer: AnswerScorer
) -> dict[str, float]:
    """Of pairs: how the trained model's implicit rewards order the pairs that it was trained on.

    Every rank takes part. The chosen answer is the one that the pair's label prefers.

    ``preference_accuracy`` is the share of pairs whose first answer has the higher reward, where a
    tie counts ½; ``mean_margin`` the mean of their difference, in nats.
    """
    if not isinstance(job.objective, Dpo) or rows.references is None:
        return {}
    sums = torch.from_numpy(log_probs(job, rows.tokens, engine, scorer)).double()
    references = torch.stack([torch.from_numpy(of_row) for of_row in rows.references]).double()
    rewards = job.objective.beta * (sums - references)
    chosen = torch.from_numpy(np.stack(rows.labels)[:, 1] < 0.5).long()[:, None]  # 0 or 1
    wanted, other = (rewards.gather(1, of)[:, 0] for of in (chosen, 1 - chosen))
    margins = wanted - other
    return {
        "preference_accuracy": float(((margins.sign() + 1) / 2).mean()),
        "mean_margin": float(margins.mean()),
        "mean_chosen_reward": float(wanted.mean()),
    }


def _checkpointer(
    job: TextJob,
    engine: Engine,
    rows: TextRows,
    kinds: Kinds,
    total_steps: int,
    preempted: Callable[[], bool],
) -> Checkpointer | None:
    """The job's checkpointer; None if the job has no storage for checkpoints."""
    if job.checkpoints is None:
        return None
    minutes = job.execution.checkpoint_minutes
    objective = job.objective
    # By value: an array's repr is abridged.
    named = ["wspo", objective.beta] if isinstance(objective, Wspo) else repr(objective)
    trained = [job.seed, job.epochs, job.batch_size, job.max_length_tokens, named]
    values = b"".join(of_row.tobytes() for of_row in rows.labels)
    tokens = rows.tokens
    data = [trained, tokens.row_ids, sha256(tokens.ids.tobytes() + values).hexdigest()]
    shapes = {name: shape for name, (_, shape) in kinds.items()}
    return Checkpointer(
        job.checkpoints,
        engine,
        {"model": _digest(sorted(shapes.items())), "data": _digest(data)},
        total_updates=total_steps,
        every_updates=job.execution.checkpoint_steps,
        every_seconds=None if minutes is None else 60.0 * minutes,
        preempted=preempted,
    )


def _digest(value: Any) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()[:16]


def _write_weights(file: Path, engine: Engine, kinds: Kinds) -> None:
    """Rank 0 writes the trained parameters as the model has them, by their names in it; the other
    ranks take part in gathering them.

    They are read into a model of the same precision, so the fp32 masters of bf16 weights would only
    take twice the room.

    Raises:
        FloatingPointError: one has a number that is not finite.
    """
    whole = (_finite(name, tensor, kinds[name][0]) for name, tensor in engine.whole(kinds))
    if engine.rank == 0:
        write_file(file, {name.removeprefix(SCORER): of for name, of in kinds.items()}, whole)
    else:
        deque(whole, maxlen=0)


def _finite(name: str, tensor: Tensor, dtype: torch.dtype) -> tuple[str, Tensor]:
    name = name.removeprefix(SCORER)
    if not tensor.isfinite().all():
        raise FloatingPointError(f"the trained weights {name} are not finite")
    return name, tensor.to(dtype)
