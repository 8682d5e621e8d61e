"""LoRA cells trained as one stacked model: their adapters share the backbone's forward pass.

Cells that differ in soft labels, objective, learning rate, schedule or Adam's settings read the
same batches through the same frozen weights (``models.stacked_lora``), in the fused loop of
``lora_cells``. Which cells are fused is execution: it changes no number beyond the rounding of
float32 (products of another shape sum in another order). This is proved by
``test_each_of_a_mixed_group_is_what_it_is_alone`` in ``tests/training/test_batched_lora.py``, which
compares curve, predictions and weights of every cell with those of ``fit.fit``, which runs
``loop.train`` for the cell alone, to 1e-5.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from w2s_ray.capacity.token_budgets import INFERENCE_TOKENS
from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.contents import write_content
from w2s_ray.data.batches import trained_rows
from w2s_ray.data.tokens import Tokens
from w2s_ray.finite import check_rows, rows_not_finite
from w2s_ray.half_logits import relative
from w2s_ray.models.compiled import compile_if_it_pays
from w2s_ray.models.finite_weights import weights_not_finite
from w2s_ray.models.inference import sweep
from w2s_ray.models.stacked_lora import StackedScorer
from w2s_ray.training.evaluations import Evaluations
from w2s_ray.training.fit import LoadedModel, load_model
from w2s_ray.training.job import TrainedModel, TrainJob, memory_stream, rows_to_train_on
from w2s_ray.training.lora_cells import Cell, cells_of, train_cells
from w2s_ray.training.outputs import counts_of, size_metrics, training_metrics, write_outputs
from w2s_ray.training.peak_memory import peak_memory
from w2s_ray.training.progress import Progress
from w2s_ray.training.trained_rows import scored_rows
from w2s_ray.training.validation import Evaluated, evaluated_steps

SHARED = (
    "model", "num_classes", "per_row", "trainable", "lora", "seed", "epochs", "batch_size",
    "max_length_tokens", "precision", "rendering", "identical_pairs", "evaluations",
)  # fmt: skip
"""Fields of ``TrainJob`` that must be equal, beside the tables ``rows``, ``test`` and
``validation``."""


def fit_batched_lora(
    jobs: Sequence[TrainJob],
    outs: Sequence[Path],
    *,
    progress: Progress = lambda numbers: None,
) -> list[dict[str, Any] | Exception]:
    """Trains every job as ``fit`` would alone, and writes the same files into its folder.

    Longer than other functions: it is ``fit`` for many jobs, in the same order.

    Args:
        jobs: trainable "lora"; equal in ``SHARED``, in their test tables and in the ids and texts
            of their rows.
        outs: one folder per job.
        progress: takes the steps of the group, the mean loss of the cells still in training, and
            tokens per second over all cells.

    Returns:
        One entry per job, in order: the metrics that ``fit`` returns, with times as the cell's even
        share, and ``fused``, the number of cells. For a cell that failed, the error instead, and
        nothing is written: FloatingPointError as ``loop.train`` raises, ValueError for an objective
        that does not allow so many classes.

    Raises:
        ValueError: the jobs differ in what they must share, which is named.
    """
    if not jobs:
        return []
    _check(jobs)
    first = jobs[0]
    with peak_memory() as peak:
        model = load_model(first)
        frozen = {n: p for n, p in model.scorer.named_parameters() if not p.requires_grad}
        stack = StackedScorer(model.scorer, len(jobs))
        test, read = (first.encoded(t, model.backbone.tokenizer) for t in (first.test, first.rows))
        jobs, tokens = _rows_to_train_on(jobs, read)
        work = len(jobs) * first.epochs * len(tokens.ids)
        compiled = compile_if_it_pays(model.backbone, work, flops_per_parameter=6)
        cells = cells_of(stack, jobs)
        score = partial(_score, stack, device=first.device)
        evaluations: Evaluations | None = None
        if first.validation is not None:
            steps = evaluated_steps(jobs[0].total_steps, first.evaluations)
            validation = first.encoded(first.validation, model.backbone.tokenizer)
            evaluations = Evaluations(steps, score, validation, test)
        train_cells(stack, cells, memory_stream(_as_one(jobs), tokens), progress, evaluations)
        logits = score(test)
        at_end = None if evaluations is None else evaluations.at_end()
        others = score(tokens) if first.scored is not None else None
        peak_bytes = peak()
    shared = {
        **_group_metrics(jobs, read, test),
        "shares_prompts": model.backbone.shares_prompts,
        "compiled": compiled,
        "peak_memory_bytes": peak_bytes,
        "device": stack.weights.device.type,
    }
    _blame_the_backbone(model, cells, logits, test.row_ids)
    outcomes: list[dict[str, Any] | Exception] = []
    for index, (cell, out) in enumerate(zip(cells, outs, strict=True)):
        evaluated = None
        try:
            if cell.error is not None:
                raise cell.error
            check_rows(logits[index], "the trained model's logits", test.row_ids)
            if others is not None:
                check_rows(others[index], "the trained model's logits", tokens.row_ids)
            if evaluations is not None and at_end is not None:
                held_out = cell.job.held_out
                assert held_out is not None
                evaluated = evaluations.of_cell(index, at_end, held_out, cell.job.objective)
        except (FloatingPointError, ValueError) as error:
            outcomes.append(error)
            continue
        state = stack.state(index)
        whole = partial(_whole, {**frozen, **state})
        trained = TrainedModel(model.backbone, model.shapes, whole, test, logits[index])
        _write(cell, out, state, trained, evaluated)
        own = {} if others is None else _write_trained_rows(cell.job, out, read, others[index])
        outcomes.append({**_metrics(model, cell), **shared, **own})
    return outcomes


def _blame_the_backbone(
    model: LoadedModel,
    cells: Sequence[Cell],
    logits: NDArray[np.float32],
    row_ids: Sequence[str],
) -> None:
    """Names the weights at fault where no cell could make a single step, if they are.

    Args:
        logits: (C, n, K) of the test rows.
    """
    if any(cell.error is None or cell.curve.loss for cell in cells):
        return
    if problem := rows_not_finite(logits[0], "the model's logits", row_ids):
        error = FloatingPointError(problem + weights_not_finite(model.scorer))
        for cell in cells:
            cell.error = error


def _group_metrics(jobs: Sequence[TrainJob], read: Tokens, test: Tokens) -> dict[str, Any]:
    """Those that all cells share by their rows and number."""
    return {
        **counts_of(read),
        **counts_of(test, "test_"),
        "micro_batch_tokens": _budget(jobs),
        "out_of_memory": 0,  # a group is not retried on OOM
        "workers": 1,
        "fused": len(jobs),
    }


def _metrics(model: LoadedModel, cell: Cell) -> dict[str, Any]:
    """Those of one cell's training."""
    return {**training_metrics(cell.curve), **size_metrics(*model.sizes, cell.curve.tokens)}


def _rows_to_train_on(jobs: Sequence[TrainJob], tokens: Tokens) -> tuple[list[TrainJob], Tokens]:
    """As ``job.rows_to_train_on``, for jobs that share their rows."""
    remaining = [rows_to_train_on(job, tokens) for job in jobs]
    return [each.job for each in remaining], remaining[0].tokens


def _whole(parameters: Mapping[str, Tensor], names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """As ``Engine.whole``."""
    for name in names:
        yield name, parameters[name].detach().cpu()


def _write(
    cell: Cell,
    out: Path,
    state: dict[str, Tensor],
    trained: TrainedModel,
    evaluated: Evaluated | None,
) -> None:
    """Writes the files of one cell."""
    write_outputs(out, cell.job.test, trained.logits, cell.curve, evaluated)
    if cell.job.keep_weights:
        save_file(state, out / WEIGHTS)
    if cell.job.export is not None:
        cell.job.export(out, cell.job, trained)


def _write_trained_rows(
    job: TrainJob, out: Path, read: Tokens, logits: NDArray[np.float32]
) -> dict[str, Any]:
    """Writes what one cell makes of the rows that it has learned from; returns its metrics.

    Args:
        read: the rows of the group as tokens, with those that are left out.
        logits: (n, K) of the others.
    """
    if job.scored is None:
        return {}
    scored = job.scored.take(trained_rows(read.identical, job.identical_pairs))
    rows = scored_rows(scored, relative(logits))
    write_content(out / "train.parquet", rows.table)
    return rows.metrics


def _score(stack: StackedScorer, tokens: Tokens, device: str) -> NDArray[np.float32]:
    """(C, n, K) float32 logits of C cells for all rows, in table order."""
    budget = max(1, INFERENCE_TOKENS[device] // stack.cells)
    flat = sweep(partial(_flat_logits, stack), tokens, budget)
    flat[tokens.identical] = 0.0  # a tie, whatever rounding makes of it
    return np.ascontiguousarray(flat.reshape(len(flat), stack.cells, -1).swapaxes(0, 1))


def _flat_logits(stack: StackedScorer, input_ids: Tensor, segments: Tensor) -> Tensor:
    """(b, C * K) logits of all cells."""
    device = stack.weights.device
    logits = stack.logits(input_ids.to(device), segments.to(device))
    return logits.transpose(0, 1).flatten(1)


def _as_one(jobs: Sequence[TrainJob]) -> TrainJob:
    """A job with the soft labels of all cells, (n, C * K), and the micro-batches of the group."""
    first = jobs[0]
    return replace(
        first,
        soft_labels=np.concatenate([job.soft_labels for job in jobs], axis=1),
        execution=replace(first.execution, micro_batch_tokens=_budget(jobs)),
    )


def _budget(jobs: Sequence[TrainJob]) -> int:
    """Most tokens of a micro-batch of the group.

    Every cell reads each of them, so all cells together compute no more tokens at a time than one
    cell alone may (or one row each), and activations fit whatever the number of cells.
    """
    return max(1, jobs[0].token_budget // len(jobs))


def _ids(rows: pa.Table | None) -> list[str] | None:
    return None if rows is None else rows["row_id"].to_pylist()


def _check(jobs: Sequence[TrainJob]) -> None:
    first = jobs[0]
    if first.trainable != "lora":
        raise ValueError(f"trainable is {first.trainable}, expected lora")
    texts = ["row_id", "prompt", "answers"]
    if any(job.weights is not None for job in jobs):
        raise ValueError("a job has weights of rows, expected none: fused jobs share their batches")
    for job in jobs[1:]:
        odd = [name for name in SHARED if getattr(job, name) != getattr(first, name)]
        if not job.rows.select(texts).equals(first.rows.select(texts)):
            odd.append("rows")
        if not job.test.equals(first.test):
            odd.append("test")
        if _ids(job.validation) != _ids(first.validation):
            odd.append("validation")
        if odd:
            raise ValueError(f"jobs {first.name} and {job.name} differ in {', '.join(odd)}")
