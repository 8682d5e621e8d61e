"""Training a ``TextJob`` in one process: load, compute the reference, train, write.

Loop, engine and checkpoints are those of the other half. For several workers (ZeRO) the stream of
``data.stream`` would have to carry references too; nothing else here would change.
"""

import json
import math
from collections import deque
from collections.abc import Callable
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
from w2s_ray.data.batches import length_batches, pack
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import CAUSAL, AnswerScorer
from w2s_ray.models.causal import end_ids, set_text_trainable, whole_model
from w2s_ray.models.finite_weights import check_scores
from w2s_ray.models.inference import sweep
from w2s_ray.models.trainable import load_named
from w2s_ray.models.weight_files import write_file
from w2s_ray.objectives.objective import Objective
from w2s_ray.objectives.preference import NEGATIVE_LOG_PROB, RowValue
from w2s_ray.spec.schema import Lora, ModelSpec
from w2s_ray.training.engine import Engine, TorchEngine
from w2s_ray.training.loop import Curve, RowLosses, train
from w2s_ray.training.outputs import curve_table, size_metrics, training_metrics
from w2s_ray.training.peak_memory import peak_memory
from w2s_ray.training.progress import Progress
from w2s_ray.training.resume import Checkpointer
from w2s_ray.training.text_job import (
    Dpo,
    Reference,
    Sft,
    TextJob,
    Wspo,
    answer_tokens,
    text_stream,
)

Keep = Callable[[str, Callable[[], NDArray[Any]]], NDArray[Any]]


class _Loaded(NamedTuple):
    """A job's model before its first update.

    Attributes:
        tokens: the job's rows.
        shapes: of the trained parameters, by the scorer's names.
    """

    scorer: AnswerScorer
    parameters: list[nn.Parameter]
    tokens: Tokens
    shapes: dict[str, tuple[int, ...]]


def fit_text(
    job: TextJob,
    out: Path,
    *,
    progress: Progress = lambda numbers: None,
    keep: Keep = lambda name, make: make(),
) -> dict[str, Any]:
    """Trains the job; resumes from its newest checkpoint if there is one.

    Writes the trained parameters, in float32 by their names in the causal model, and
    ``curve.parquet``.

    Args:
        keep: an array under a name; made if an earlier try has not left it.

    Returns:
        The metrics of the step's record.

    Raises:
        FloatingPointError: the first loss or gradient that is not finite.
    """
    with peak_memory() as peak:
        model = _load(job)
        reference = _reference(job, model, keep)
        engine = TorchEngine(model.scorer, model.parameters, job.adam)
        checkpointer = _checkpointer(job, engine, model)
        curve = checkpointer.restore(None) if checkpointer else Curve()
        resumed_at = len(curve.loss)
        curve = train(
            engine,
            text_stream(job, model.tokens, reference, resumed_at),
            _objective(job),
            total_steps=job.total_steps,
            learning_rate=job.learning_rate,
            schedule=job.schedule,
            warmup=job.warmup,
            curve=curve,
            checkpointer=checkpointer,
            progress=progress,
        )
        _write_weights(out / WEIGHTS, engine, model.shapes)
        write_content(out / "curve.parquet", curve_table(curve))
        parameters = sum(p.numel() for p in model.scorer.parameters())
        trained = sum(math.prod(shape) for shape in model.shapes.values())
        metrics = {
            **training_metrics(curve),
            **size_metrics(parameters, trained, curve.tokens),
            **({"checkpoints": checkpointer.metrics(resumed_at)} if checkpointer else {}),
            **_preferences(job, model, reference),
            "truncated_rows": model.tokens.truncated,
            "micro_batch_tokens": job.token_budget,
            "workers": 1,
        }
        return {**metrics, "peak_memory_bytes": int(peak())}


def answer_log_ratios(
    model: ModelSpec,
    precision: str,
    trained: Path,
    how: tuple[str, Lora],
    tokens: Tokens,
) -> NDArray[np.float32]:
    """(a,) log π_post − log π_pre of the answers' tokens, row after row.

    Their sum over an answer, times β, is its implicit reward.

    Args:
        trained: parameters of the aligned model, on top of ``model``.
        how: ``trainable`` and adapters, as they were trained.
        tokens: rows in the tokens of this model.
    """
    ratios = []
    for is_trained in (True, False):
        module, _, shares_prompts = whole_model(model, precision)
        if is_trained:
            trainable, lora = how
            set_text_trainable(module, trainable, lora, seed=0)
            load_named(module, load_file(trained))
        ratios.append(_token_log_probs(AnswerScorer(module, shares_prompts=shares_prompts), tokens))
    return ratios[0] - ratios[1]


def _load(job: TextJob) -> _Loaded:
    module, tokenizer, shares_prompts = whole_model(job.model, job.precision)
    set_text_trainable(module, job.trainable, job.lora, job.seed)
    if job.initial is not None:
        load_named(module, load_file(job.initial))
    if job.execution.activation_checkpointing:
        module.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]
    beta = 1.0 if isinstance(job.objective, Sft) else job.objective.beta
    scorer = AnswerScorer(module, shares_prompts=shares_prompts, beta=beta)
    parameters = [p for p in scorer.parameters() if p.requires_grad]
    shapes = {n: tuple(p.shape) for n, p in scorer.named_parameters() if p.requires_grad}
    tokens = encoded_rows(job, tokenizer, end_ids(module, tokenizer, job.model)[0])
    return _Loaded(scorer, parameters, tokens, shapes)


def encoded_rows(job: TextJob, tokenizer: PreTrainedTokenizerFast, end_id: int) -> Tokens:
    """The rows of a job as tokens.

    Raises:
        ValueError: a row has no prompt, and its answer is one token, which nothing predicts.
    """
    tokens = job.encoded(tokenizer, end_id)
    empty = np.flatnonzero(answer_tokens(tokens) == 0)
    if len(empty):
        raise ValueError(f"row {tokens.row_ids[empty[0]]}: neither a prompt nor an answer")
    return tokens


def _objective(job: TextJob) -> RowLosses:
    if isinstance(job.objective, Sft):
        return NEGATIVE_LOG_PROB
    return Objective(job.objective.loss) if isinstance(job.objective, Dpo) else RowValue()


def _reference(job: TextJob, model: _Loaded, keep: Keep) -> Reference:
    """Log-probabilities of the model before its first update; computed once for all attempts."""
    if isinstance(job.objective, Dpo):
        return Reference(sums=keep("reference", partial(_sums, model)))
    if isinstance(job.objective, Wspo):
        make = partial(_token_log_probs, model.scorer, model.tokens)
        return Reference(tokens=keep("reference", make))
    return Reference()


def _sums(model: _Loaded) -> NDArray[np.float32]:
    """(n, m) summed log-probabilities of the answers."""
    device = next(model.scorer.parameters()).device
    forward = partial(_summed, model.scorer, device)
    sums = sweep(forward, model.tokens, INFERENCE_TOKENS[device.type])
    check_scores(sums, "the model's log-probabilities", model.tokens.row_ids, model.scorer)
    return sums


def _summed(scorer: AnswerScorer, device: torch.device, ids: Tensor, segments: Tensor) -> Tensor:
    sums: Tensor = scorer(ids.to(device), segments.to(device))
    return sums


@torch.no_grad()
def _token_log_probs(scorer: AnswerScorer, tokens: Tokens) -> NDArray[np.float32]:
    """(a,) log-probabilities of the answers' tokens, row after row."""
    device = next(scorer.parameters()).device
    counted = answer_tokens(tokens)
    starts = np.cumsum(counted) - counted
    values = np.empty(int(counted.sum()), dtype=np.float32)
    for rows in length_batches(tokens.row_lengths, INFERENCE_TOKENS[device.type]):
        input_ids, segments = (torch.from_numpy(a).to(device) for a in pack(tokens, rows))
        of_rows = scorer.token_log_probs(input_ids, segments).float().cpu().numpy()
        for row, own in zip(rows, np.split(of_rows, np.cumsum(counted[rows])[:-1]), strict=True):
            values[starts[row] : starts[row] + counted[row]] = own
    return values


def _preferences(job: TextJob, model: _Loaded, reference: Reference) -> dict[str, float]:
    """Share of training pairs whose chosen answer has the higher implicit reward; the margin."""
    if not isinstance(job.objective, Dpo) or reference.sums is None:
        return {}
    rewards = job.objective.beta * (_sums(model) - reference.sums)
    margins = rewards[:, 0] - rewards[:, 1]
    return {
        "preference_accuracy": float(((margins > 0) + 0.5 * (margins == 0)).mean()),
        "mean_margin": float(margins.mean()),
        "mean_chosen_reward": float(rewards[:, 0].mean()),
    }


def _checkpointer(job: TextJob, engine: Engine, model: _Loaded) -> Checkpointer | None:
    if job.checkpoints is None:
        return None
    minutes = job.execution.checkpoint_minutes
    rows = [job.row_ids, job.answers, job.seed, job.epochs, job.batch_size, job.max_length_tokens]
    return Checkpointer(
        job.checkpoints,
        engine,
        {"model": _digest(sorted(model.shapes.items())), "data": _digest(rows)},
        total_updates=job.total_steps,
        every_updates=job.execution.checkpoint_steps,
        every_seconds=None if minutes is None else 60.0 * minutes,
    )


def _digest(value: Any) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()[:16]


def _write_weights(file: Path, engine: Engine, shapes: dict[str, tuple[int, ...]]) -> None:
    """Writes the trained parameters in float32."""
    kinds = {name.removeprefix(CAUSAL): (torch.float32, shape) for name, shape in shapes.items()}
    whole = engine.whole(shapes)
    tensors = ((name.removeprefix(CAUSAL), tensor.float()) for name, tensor in whole)
    write_file(file, kinds, tensors)
    deque(tensors, maxlen=0)
