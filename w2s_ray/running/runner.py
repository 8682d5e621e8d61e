"""Runs steps once: claim, look again, compute, commit; a failure is recorded, then reported.

Fused steps are computed together, yet each has its own claim, draft, record and failure: whatever
becomes of the others, what is committed stays, and what failed is reported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

from w2s_ray.errors import InputError
from w2s_ray.plan.step import Kind, Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.store.artifacts import Artifact, Draft, Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.parts import Parts

Outcome = dict[str, Any] | Exception  # metrics, or what the step raised

POLL_SECONDS = 0.5
SECONDS_BETWEEN_REPORTS = 0.25
WRITERS = 4  # threads that commit a group; flushing to a disk or a bucket is mostly waiting


class StepModule(Protocol):
    """What a kind's module has: one step computed into its draft."""

    def run(
        self, step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context
    ) -> None: ...


class FusedModule(Protocol):
    """What a fusion's module has: a writer, or an error, for each step of a group."""

    def run_together(
        self, steps: Sequence[Step], artifacts: Artifacts, context: Context
    ) -> Sequence[Write | Exception]: ...


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
                finished = store.finished_among(left)
                for key in finished & held:  # a driver that died may have left something
                    _discard_kept(left[key], store)
                outcomes |= {key: store.record(key)["metrics"] for key in finished}
                own = [step for key, step in left.items() if key in held - finished]
                if own:
                    outcomes |= _compute(own, store, context)
            left = {key: step for key, step in left.items() if key not in outcomes}
            if left and not own:
                time.sleep(POLL_SECONDS)
    except Exception as error:  # of the store itself
        outcomes |= _lost([s for key, s in left.items() if key not in outcomes], store, error)
    return {step.key: outcomes[step.key] for step in steps}


def _discard_kept(step: Step, store: Store) -> None:
    """Removes what a step kept in case it was interrupted; it is finished, whatever follows."""
    if step.backbone is None:
        return
    kept = Checkpoints(store, step.key) if step.kind.trains else Parts(store, step.key)
    with suppress(OSError):
        kept.discard()


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
        store.record_failure(step.identity, error)


def _compute(steps: Sequence[Step], store: Store, context: Context) -> dict[str, Outcome]:
    """Computes and commits steps whose claims are held."""
    began, started = datetime.now(UTC), time.monotonic()
    how: dict[str, Any] = {"runner": context.runner}
    if steps[0].fusion is not None:
        how["fused"] = len(steps)
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
            execution = {**step.described_execution(), **how}
            with store.draft(step.identity, execution, started=began) as draft:
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
    fusion = steps[0].fusion
    if fusion is not None and len(steps) > 1:
        fused = cast(FusedModule, import_module(fusion.module))
        return fused.run_together(steps, artifacts, context)
    (step,) = steps
    module = cast(StepModule, import_module(step.kind.module))
    inputs = {role: artifacts(key) for role, key in step.inputs.items()}
    context = replace(
        context, keep=Parts(store, step.key).keep, checkpoints=Checkpoints(store, step.key)
    )

    def write(draft: Draft) -> None:
        module.run(step, inputs, draft, context)

    return [write]


def _artifacts(steps: Sequence[Step], store: Store) -> Artifacts:
    """The inputs of the steps, each looked up and checked once."""
    store.finished_among(key for step in steps for key in step.inputs.values())
    return cache(store.artifact)


def _peak(kind: Kind) -> AbstractContextManager[Callable[[], int]]:
    if not kind.needs_torch:
        return nullcontext(lambda: 0)
    from w2s_ray.training.peak_memory import peak_memory

    return peak_memory()
