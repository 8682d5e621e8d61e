"""All missing steps, one after the other, in the calling process: for CI and for a debugger.

Fused steps run at once.
"""

from collections.abc import Callable, Mapping
from typing import Any

from w2s_ray.plan.schedule import Group, Schedule
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute_group
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store

OnEvent = Callable[[str, Step, dict[str, Any]], None]


def run(
    todo: Mapping[str, Step],
    store: Store,
    on_event: OnEvent = lambda event, step, numbers: None,
    cost: Mapping[str, float] | None = None,
) -> Schedule:
    """Runs what is to do. A failed step stops its descendants only.

    Args:
        on_event: takes ``started``, ``progress``, ``done`` or ``failed``, the step, and numbers
            (of the progress, the metrics, or ``{"error": one line}``).
        cost: of steps, by key, in any one unit: what leads to the most costly goes first.
    """
    schedule = Schedule(todo, cost)
    while group := schedule.start():
        for step in group:
            on_event("started", step, {})

        def progress(numbers: dict[str, Any], group: Group = group) -> None:
            for step in group:
                on_event("progress", step, numbers)

        outcomes = execute_group(group, store, Context(progress=progress))
        for step in group:
            outcome = outcomes[step.key]
            if isinstance(outcome, Exception):  # recorded; the rest of the study goes on
                schedule.fail(step.key)
                on_event("failed", step, {"error": f"{type(outcome).__name__}: {outcome}"})
            else:
                schedule.succeed(step.key)
                on_event("done", step, outcome)
    return schedule
