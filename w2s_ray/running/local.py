"""The local mode: all missing steps in the calling process, one group after the other.

For CI and for a debugger.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from w2s_ray.errors import line_of
from w2s_ray.plan.schedule import Group, Schedule
from w2s_ray.plan.step import Step
from w2s_ray.running.interrupts import Interrupts
from w2s_ray.running.runner import execute_group
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store
from w2s_ray.training import early_end

OnEvent = Callable[[str, Step, dict[str, Any]], None]


def run(
    todo: Mapping[str, Step],
    store: Store,
    on_event: OnEvent = lambda event, step, numbers: None,
    cost: Mapping[str, float] | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Schedule:
    """Runs the unfinished steps. A failed step stops its descendants only.

    Args:
        on_event: takes ``started``, ``progress``, ``done`` or ``failed``, the step, and numbers
            (of the progress, the metrics, or ``{"error": one line}``).
        cost: of steps by key, in one unit; the head of the most costly chain goes first.
        say: takes the line that training ends with a checkpoint, after a signal.

    Raises:
        KeyboardInterrupt: after a signal; a step that trains has saved its state.
    """
    schedule = Schedule(todo, cost)
    with Interrupts(partial(_ends_by_itself, say)) as interrupts:
        while group := schedule.start():
            for step in group:
                on_event("started", step, {})
            outcomes = execute_group(group, store, Context(partial(_progress, on_event, group)))
            interrupts.check()
            for step in group:
                outcome = outcomes[step.key]
                if isinstance(outcome, Exception):  # recorded; the other steps still run
                    schedule.fail(step.key)
                    on_event("failed", step, {"error": line_of(outcome)})
                else:
                    schedule.succeed(step.key)
                    on_event("done", step, outcome)
    return schedule


def _ends_by_itself(say: Callable[[str], object]) -> bool:
    if not early_end.ask():
        return False
    early_end.tell(say)
    return True


def _progress(on_event: OnEvent, group: Group, numbers: dict[str, Any]) -> None:
    for step in group:
        on_event("progress", step, numbers)
