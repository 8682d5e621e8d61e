"""Runs each step once: claim it, check the store again, compute, commit; failures are recorded.

Fused steps are computed together, yet each has its own claim, draft, record and failure: one that
fails keeps none of the others from being committed. Many are committed as one bundle.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, Protocol, cast

from w2s_ray.catalog.identity import template_identity, weights_identity
from w2s_ray.errors import InputError
from w2s_ray.plan.step import Kind, Step
from w2s_ray.running.waiting import Waiting
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.drafts import Draft
from w2s_ray.store.parts import Parts
from w2s_ray.training.progress import Throttle

Outcome = dict[str, Any] | Exception  # metrics, or what the step raised

SMALLEST_BUNDLE = 16  # steps; fewer have folders of their own, which people can read


class StepModule(Protocol):
    """The module of a kind: computes one step into its draft."""

    def run(
        self, step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context
    ) -> None: ...


class FusedModule(Protocol):
    """The module of a fusion: gives a writer, or an error, for each step of a group."""

    def run_together(
        self, steps: Sequence[Step], artifacts: Artifacts, context: Context
    ) -> Sequence[Write | Exception]: ...


def execute(step: Step, store: Store, context: Context | None = None) -> dict[str, Any]:
    """The metrics of the step's artifact, computed now unless it is finished.

    If another process holds the step, this one waits for its artifact, and takes over if that
    process dies.

    Raises:
        Exception: whatever the step raised; it is in the store's failures by then.
    """
    outcome = execute_group([step], store, context or Context())[step.key]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def execute_group(steps: Sequence[Step], store: Store, context: Context) -> dict[str, Outcome]:
    """As ``execute``, for a single step or steps with equal ``fusion``: key → outcome.

    Steps that other processes hold are waited for last; who holds them goes to the progress.
    """
    outcomes: dict[str, Outcome] = {}
    pending = {step.key: step for step in steps}
    wait = Waiting(store, context.progress)
    try:
        while pending:
            claims = dict.fromkeys(step.claim for step in pending.values())
            with store.claims(claims) as claimed:
                held = {key for key, step in pending.items() if step.claim in claimed}
                finished = store.records(pending)
                for key in finished.keys() & held:  # a driver that died may not have cleaned up
                    _discard_partial_work(pending[key], store)
                outcomes |= {key: record["metrics"] for key, record in finished.items()}
                own = [step for key, step in pending.items() if key in held - finished.keys()]
                if own:
                    outcomes |= _compute(own, store, context)
            pending = {key: step for key, step in pending.items() if key not in outcomes}
            if pending and not own:
                wait(list(pending.values()))
    except Exception as error:  # of the store itself
        unsure = [step for key, step in pending.items() if key not in outcomes]
        outcomes |= _outcomes_after_store_error(unsure, store, error)
    return {step.key: outcomes[step.key] for step in steps}


def _discard_partial_work(step: Step, store: Store) -> None:
    """Removes the checkpoints or shards of a finished step."""
    if step.backbone is None and step.kind.name != "judge":
        return
    kept: list[Checkpoints | Parts] = [Parts(store, step.key)]
    if step.kind.trains:  # on rows; what is trained on texts keeps its reference too
        checkpoints = Checkpoints(store, step.key)
        kept = [checkpoints] if step.prompts is None else [checkpoints, *kept]
    for each in kept:
        with suppress(OSError):
            each.discard()


def _outcomes_after_store_error(
    steps: Sequence[Step], store: Store, error: Exception
) -> dict[str, Outcome]:
    """The metrics of steps that were committed all the same, ``error`` for the others."""
    records: dict[str, dict[str, Any]] = {}
    with suppress(OSError, InputError):
        records = store.records(step.key for step in steps)
    for step in steps:
        if step.key not in records:
            _record_failure(step, store, error)
    return {s.key: records[s.key]["metrics"] if s.key in records else error for s in steps}


def _record_failure(step: Step, store: Store, error: Exception) -> None:
    """Records a failure if the store can be written; the caller reports it in any case."""
    with suppress(OSError):
        store.record_failure(step.identity, error)


def _compute(steps: Sequence[Step], store: Store, context: Context) -> dict[str, Outcome]:
    """Computes and commits steps whose claims are held."""
    started, began = datetime.now(UTC), time.monotonic()
    execution: dict[str, Any] = {"runner": context.runner}
    if steps[0].fusion is not None:
        execution["fused"] = len(steps)
    with _peak_memory(steps[0].kind) as peak:
        try:
            writers = _writers(steps, store, context)
        except StoreError as error:  # of an input that they share
            writers = [error] * len(steps)
        except Exception as error:
            if len(steps) > 1:  # one step's own error, or too much memory: each by itself
                return _compute_one_by_one(steps, store, context)
            writers = [error]
        share = (time.monotonic() - began) / len(steps)
        commit = _Commit(store, execution, started, share, peak)
        pairs = list(zip(steps, writers, strict=True))
        if len(steps) < SMALLEST_BUNDLE:
            return {step.key: commit.single(step, write) for step, write in pairs}
        outcomes: dict[str, Outcome] = {}
        for kind in dict.fromkeys(step.kind.name for step in steps):
            outcomes |= commit.bundle(
                [pair for pair in pairs if pair[0].kind.name == kind], context
            )
        return outcomes


def _compute_one_by_one(
    steps: Sequence[Step], store: Store, context: Context
) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for step in steps:
        outcomes |= _compute([step], store, context)
    return outcomes


@dataclass(frozen=True)
class _Commit:
    """Commits the steps of one run; the error of one is recorded and returned.

    An input that is damaged is set aside: the study plans it again (``study``).

    Attributes:
        execution: how the run was made; added to each step's own.
        share: seconds of the shared work, per step.
        peak: gives the peak memory in bytes; 0 if it was not measured.
    """

    store: Store
    execution: Mapping[str, Any]
    started: datetime
    share: float
    peak: Callable[[], int]

    def single(self, step: Step, write: Write | Exception) -> Outcome:
        """Writes and commits an artifact with a folder of its own."""
        try:
            with self.store.draft(
                step.identity, self._execution(step), started=self.started
            ) as draft:
                self._write(write, draft)
        except Exception as error:
            return self._failed([(step, error)])[step.key]
        _discard_partial_work(step, self.store)
        return draft.metrics

    def bundle(
        self, pairs: Sequence[tuple[Step, Write | Exception]], context: Context
    ) -> dict[str, Outcome]:
        """Writes artifacts of one kind and commits them together."""
        outcomes: dict[str, Outcome] = {}
        throttle = Throttle()
        first = pairs[0][0]
        try:
            with self.store.bundle(first.kind.name, first.key, started=self.started) as bundle:
                for step, write in pairs:
                    draft = bundle.draft(step.key)
                    try:
                        self._write(write, draft)
                        bundle.add(step.identity, self._execution(step), draft)
                        outcomes[step.key] = draft.metrics
                    except Exception as error:
                        bundle.drop(draft)
                        outcomes[step.key] = error
                    if throttle.due() or len(outcomes) == len(pairs):
                        numbers = {"step": len(outcomes), "steps": len(pairs), "unit": "written"}
                        context.progress(numbers)
        except Exception as error:  # of the store: nothing was committed
            outcomes = {
                step.key: of if isinstance(of := outcomes.get(step.key), Exception) else error
                for step, _ in pairs
            }
        errors = [
            (step, of) for step, _ in pairs if isinstance(of := outcomes[step.key], Exception)
        ]
        return outcomes | self._failed(errors)

    def _execution(self, step: Step) -> dict[str, Any]:
        return {**step.described_execution(), **self.execution}

    def _write(self, write: Write | Exception, draft: Draft) -> None:
        if isinstance(write, Exception):
            raise write
        began = time.monotonic()
        write(draft)
        if peak := self.peak():
            draft.metrics.setdefault("peak_memory_bytes", peak)
        resumed = draft.metrics.get("checkpoints", {}).get("seconds_before", 0.0)
        draft.metrics["seconds"] = resumed + self.share + time.monotonic() - began

    def _failed(self, errors: Sequence[tuple[Step, Exception]]) -> dict[str, Outcome]:
        """The errors, once they are recorded; or the metrics of steps that another process, which
        took this one for dead, has finished in the meantime."""
        outcomes: dict[str, Outcome] = {step.key: error for step, error in errors}
        with suppress(OSError, InputError):
            finished = self.store.records(outcomes)
            outcomes |= {key: record["metrics"] for key, record in finished.items()}
        for step, error in errors:
            if outcomes[step.key] is not error:
                continue
            if isinstance(error, StoreError):
                with suppress(OSError):
                    self.store.set_aside(error)
            _record_failure(step, self.store, error)
        return outcomes


def _writers(steps: Sequence[Step], store: Store, context: Context) -> Sequence[Write | Exception]:
    """A writer for each step. Modules are imported here: some take seconds."""
    for step in steps:
        _check_model(step)
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
    return [partial(_run, module, step, inputs, context)]


def _run(
    module: StepModule,
    step: Step,
    inputs: Mapping[str, Artifact],
    context: Context,
    draft: Draft,
) -> None:
    module.run(step, inputs, draft, context)


def _check_model(step: Step) -> None:
    """Refuses to compute with other weights than those that the key names.

    Raises:
        ValueError: the model's files were changed after the study was planned.
    """
    model = step.backbone
    if model is None or step.model_identity is None:
        return
    identity = weights_identity(model)
    if "chat_template" in step.model_identity:
        identity |= template_identity(model)
    if identity != step.model_identity:
        raise ValueError(
            f"the model {model.source or model.tokenizer} has changed since the study was planned; "
            "run the study again"
        )


def _artifacts(steps: Sequence[Step], store: Store) -> Artifacts:
    """The inputs of the steps, each opened once."""
    return partial(_input, store.artifacts(key for step in steps for key in step.inputs.values()))


def _input(artifacts: Artifacts, key: str) -> Artifact:
    try:
        return artifacts(key)
    except KeyError:
        raise StoreError(f"the input {key} is gone: it was set aside, or removed") from None


def _peak_memory(kind: Kind) -> AbstractContextManager[Callable[[], int]]:
    """Measures the peak, unless the kind's process is not to load torch."""
    if not kind.needs_torch:
        return nullcontext(lambda: 0)
    from w2s_ray.training.peak_memory import peak_memory

    return peak_memory()
