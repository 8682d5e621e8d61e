"""Runs one step once: claim, look again, compute, commit; a failure is recorded, then raised."""

import time
from typing import Any

from w2s_ray.plan.graph import Step
from w2s_ray.steps import evaluate, features, label, prepare, student, supervised
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store
from w2s_ray.training.peak_memory import peak_memory

STEPS = {
    "prepare": prepare.run,
    "features": features.run,
    "weak": supervised.run,
    "label": label.run,
    "ceiling": supervised.run,
    "student": student.run,
    "evaluate": evaluate.run,
}

POLL_SECONDS = 0.5


def execute(step: Step, store: Store, context: Context | None = None) -> dict[str, Any]:
    """The metrics of the step's artifact, computed now unless somebody has done so already.

    When another process holds the step, this one waits for its artifact, or takes over when that
    process dies.

    Raises:
        Exception: whatever the step raised; it stands in the store's failures by then.
    """
    while not store.has(step.key):
        with store.claim(step.key) as held:
            if held and not store.has(step.key):
                _compute(step, store, context or Context())
                break
        if not held:
            time.sleep(POLL_SECONDS)
    metrics: dict[str, Any] = store.record(step.key)["metrics"]
    return metrics


def _compute(step: Step, store: Store, context: Context) -> None:
    try:
        inputs = {role: store.artifact(key) for role, key in step.inputs.items()}
        started = time.monotonic()
        with store.draft(step, {"runner": context.runner}) as draft, peak_memory() as peak:
            STEPS[step.kind](step, inputs, draft, context)
            draft.metrics.setdefault("peak_memory_bytes", peak())
            draft.metrics["seconds"] = time.monotonic() - started
    except Exception as error:
        store.record_failure(step, error)
        raise
