"""Runs steps once: claim, look again, compute, commit; a failure is recorded, then told.

Steps with one fusion key are computed together, yet each has its own claim, draft, record and
failure: whatever becomes of the others, what is committed stays, and what failed is told.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.plan.fusion import fusion_key
from w2s_ray.plan.graph import Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.store.artifacts import Draft, Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.parts import Parts

Outcome = dict[str, Any] | Exception  # metrics, or what the step raised

ALONE = {"prepare": "prepare", "features": "features", "label": "label"}  # kind -> module
# First part of a fusion key -> module.
TOGETHER = {"head": "train_heads", "lora": "train_adapters", "evaluate": "evaluate"}
WITHOUT_TORCH = ("prepare", "evaluate")  # a process that runs only these need not load it

POLL_SECONDS = 0.5
SECONDS_BETWEEN_REPORTS = 0.25
WRITERS = 4  # threads that commit a group; flushing to a disk or a bucket is mostly waiting


def execute(step: Step, store: Store, context: Context | None = None) -> dict[str, Any]:
    """The metrics of the step's artifact, computed now unless somebody has done so already.

    When another process holds the step, this one waits for its artifact, or takes over when that
    process dies.

    Raises:
        Exception: whatever the step raised; it stands in the store's failures by then.
    """
    outcome = execute_group([step], store, context or Context())[step.key]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def execute_group(steps: Sequence[Step], store: Store, context: Context) -> dict[str, Outcome]:
    """As ``execute``, for steps with one fusion key (or a single step): key -> outcome.

    Steps that other processes hold are waited for after the own ones.
    """
    outcomes: dict[str, Outcome] = {}
    left = {step.key: step for step in steps}
    try:
        while left:
            with store.claims(left) as held:
                finished = store.records(left)
                for key in finished.keys() & held:  # a driver that died may have left something
                    _discard_kept(left[key], store)
                outcomes |= {key: record["metrics"] for key, record in finished.items()}
                own = [step for key, step in left.items() if key in held - finished.keys()]
                if own:
                    outcomes |= _compute(own, store, context)
            left = {key: step for key, step in left.items() if key not in outcomes}
            if left and not own:
                time.sleep(POLL_SECONDS)
    except Exception as error:  # of the store itself
        outcomes |= _lost([s for key, s in left.items() if key not in outcomes], store, error)
    return {step.key: outcomes[step.key] for step in steps}


def _discard_kept(step: Step, store: Store) -> None:
    """What a step kept for the case that it was cut off; it is finished, whatever becomes of it."""
    with suppress(OSError):
        if step.kind in ALONE:
            Parts(store, step.key).discard()
        elif "training" in step.config and "features" not in step.inputs:
            Checkpoints(store, step.key).discard()


def _lost(steps: Sequence[Step], store: Store, error: Exception) -> dict[str, Outcome]:
    """What is known of steps of whose fate the store could not be told, or asked."""
    records: dict[str, dict[str, Any]] = {}
    with suppress(OSError, InputError):
        records = store.records(step.key for step in steps)
    for step in steps:
        if step.key not in records:
            _note(step, store, error)
    return {s.key: records[s.key]["metrics"] if s.key in records else error for s in steps}


def _note(step: Step, store: Store, error: Exception) -> None:
    """Records a failure; where even that fails, the error is still told."""
    with suppress(OSError):
        store.record_failure(step, error)


def _compute(steps: Sequence[Step], store: Store, context: Context) -> dict[str, Outcome]:
    """Computes and commits steps whose claims are held."""
    began, started = datetime.now(UTC), time.monotonic()
    execution: dict[str, Any] = {"runner": context.runner}
    if fusion_key(steps[0]) is not None:
        execution["fused"] = len(steps)
    with _peak(steps[0].kind) as peak:
        try:
            writers = _writers(steps, store, context)
        except Exception as error:
            if len(steps) > 1:  # of one of them perhaps, or too large together: each by itself
                apart = [_compute([step], store, context) for step in steps]
                return {key: outcome for part in apart for key, outcome in part.items()}
            writers = [error]
        share = (time.monotonic() - started) / len(steps)

        def commit(step: Step, write: Write | Exception) -> Outcome:
            try:
                if isinstance(write, Exception):
                    raise write
                return _commit(step, write)
            except Exception as error:
                _note(step, store, error)
                return error

        def _commit(step: Step, write: Write) -> dict[str, Any]:
            begun = time.monotonic()
            with store.draft(step, execution, started=began) as draft:
                write(draft)
                if most := peak():
                    draft.metrics.setdefault("peak_memory_bytes", most)
                earlier = draft.metrics.get("checkpoints", {}).get("seconds_before", 0.0)
                draft.metrics["seconds"] = earlier + share + time.monotonic() - begun
            _discard_kept(step, store)
            return draft.metrics

        if len(steps) == 1:
            return {steps[0].key: commit(steps[0], writers[0])}
        with ThreadPoolExecutor(min(WRITERS, len(steps))) as pool:
            outcomes: dict[str, Outcome] = {}
            told = time.monotonic()
            for step, outcome in zip(steps, pool.map(commit, steps, writers), strict=True):
                outcomes[step.key] = outcome
                now, done = time.monotonic(), len(outcomes)
                if now - told > SECONDS_BETWEEN_REPORTS or done == len(steps):
                    told = now
                    context.progress({"step": done, "steps": len(steps), "unit": "written"})
            return outcomes


def _writers(steps: Sequence[Step], store: Store, context: Context) -> Sequence[Write | Exception]:
    """A writer for each step. Modules are loaded when they are needed: some take seconds."""
    artifacts = _artifacts(steps, store)
    fusion = fusion_key(steps[0])
    if fusion is not None and (fusion[0] != "lora" or len(steps) > 1):
        together = import_module(f"w2s_ray.steps.{TOGETHER[fusion[0]]}").together
        writers: list[Write | Exception] = together(steps, artifacts, context)
        return writers
    (step,) = steps
    run = import_module(f"w2s_ray.steps.{ALONE.get(step.kind, 'train_model')}").run
    inputs = {role: artifacts(key) for role, key in step.inputs.items()}
    context = replace(
        context, keep=Parts(store, step.key).keep, checkpoints=Checkpoints(store, step.key)
    )

    def write(draft: Draft) -> None:
        run(step, inputs, draft, context)

    return [write]


def _artifacts(steps: Sequence[Step], store: Store) -> Artifacts:
    """The inputs of the steps, each opened and checked once."""
    return store.artifacts(key for step in steps for key in step.inputs.values())


def _peak(kind: str) -> AbstractContextManager[Callable[[], int]]:
    if kind in WITHOUT_TORCH:
        return nullcontext(lambda: 0)
    from w2s_ray.training.peak_memory import peak_memory

    return peak_memory()
