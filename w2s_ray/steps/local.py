"""All missing steps, one after the other, in the calling process: for CI and for a debugger."""

from collections.abc import Callable, Mapping
from typing import Any

from w2s_ray.plan.graph import Step
from w2s_ray.plan.schedule import Schedule
from w2s_ray.steps.context import Context
from w2s_ray.steps.runner import execute
from w2s_ray.store.artifacts import Store

OnEvent = Callable[[str, Step, dict[str, Any]], None]


def run(
    todo: Mapping[str, Step], store: Store, on_event: OnEvent = lambda event, step, numbers: None
) -> Schedule:
    """Runs what is to do. A failed step stops its descendants only.

    Args:
        on_event: takes ``started``, ``progress``, ``done`` or ``failed``, the step, and numbers
            (of the progress, the metrics, or ``{"error": one line}``).
    """
    schedule = Schedule(todo)
    while step := schedule.start():
        on_event("started", step, {})

        def progress(numbers: dict[str, Any], step: Step = step) -> None:
            on_event("progress", step, numbers)

        try:
            metrics = execute(step, store, Context(progress=progress))
        except Exception as error:  # recorded by the runner; the rest of the study goes on
            schedule.fail(step.key)
            on_event("failed", step, {"error": f"{type(error).__name__}: {error}"})
        else:
            schedule.succeed(step.key)
            on_event("done", step, metrics)
    return schedule
