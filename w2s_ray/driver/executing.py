"""The run itself: the steps in this process or on Ray, with their progress and results so far."""

import shlex
from collections.abc import Mapping

from w2s_ray.console.cell_scores import CellScores
from w2s_ray.console.progress import OF_DAMAGE, ProgressDisplay
from w2s_ray.driver.results_so_far import ResultsSoFar
from w2s_ray.driver.study import Study
from w2s_ray.plan.cost import flops
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Step
from w2s_ray.running.events import to_all
from w2s_ray.running.run_state import RunState


def execute(study: Study, todo: Mapping[str, Step], *, local: bool) -> int:
    """Runs the steps, and returns how many failed for an input that is damaged."""
    failed = _schedule(study, todo, local=local).failed
    notes = study.store.failures() if failed else {}
    return sum(notes[key]["error"].startswith(OF_DAMAGE) for key in failed & notes.keys())


def display_of(
    study: Study, todo: Mapping[str, Step], cost: Mapping[str, float]
) -> ProgressDisplay:
    """A display of the steps to do, which knows the scores that cells are compared with."""
    compared = study.store.records(CellScores.compared(study.plan) - todo.keys())
    scores = CellScores(study.plan, {key: of["metrics"] for key, of in compared.items()})
    state = RunState(todo, len(study.plan.steps) - len(todo), cost, study.plan.cells)
    explain = f"{shlex.join(study.command)} --explain"
    return ProgressDisplay(state, study.say, study.names, scores, explain)


def costs(todo: Mapping[str, Step]) -> dict[str, float]:
    """Operations by key, of the steps that have some."""
    return {key: count for key, count in flops(todo.values()).items() if count}


def _schedule(study: Study, todo: Mapping[str, Step], *, local: bool) -> Schedule:
    """Runs the steps in this process, or on Ray (``cluster.session``)."""
    cost = costs(todo)
    with display_of(study, todo, cost) as display, ResultsSoFar(study) as results:
        on_event = to_all(display, study.sinks, results)
        if local:
            from w2s_ray.running.local import run

            workers = max(step.execution.processes for step in todo.values())
            if workers > 1:
                study.say(f"--local: one process instead of {workers} workers")
            return run(todo, study.store, on_event, cost, study.say)
        from w2s_ray.cluster.watched_run import run_watched

        store, execution, name = study.store.uri, study.spec.execution, study.plan.study
        counts = display.state.counts
        return run_watched(todo, store, name, execution, counts, on_event, study.say, cost)
