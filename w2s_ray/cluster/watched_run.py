"""A run on Ray that can be watched: its dashboard, metrics of the study, a log of the driver."""

from collections.abc import Callable, Mapping

from w2s_ray.cluster.environment import fixed_threads
from w2s_ray.cluster.gauges import StudyGauges
from w2s_ray.cluster.logs import driver_log
from w2s_ray.cluster.session import connect
from w2s_ray.cluster.tune_run import run
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Step
from w2s_ray.running.tally import OnEvent, Tally, to_all
from w2s_ray.spec.execution import Execution


def run_watched(
    todo: Mapping[str, Step],
    store_uri: str,
    plan: Plan,
    execution: Execution,
    already_done: int,
    on_event: OnEvent,
    say: Callable[[str], None],
    cost: Mapping[str, float],
) -> Schedule:
    """Connects to Ray and runs the unfinished steps there, as ``tune_run.run`` does.

    Args:
        already_done: number of steps of the plan that were finished in the store before.
        say: takes the line that tells where the dashboard is, and a note on another Ray here.
    """
    study, tally = plan.study, Tally(todo, already_done, plan.cells, cost)
    with (
        connect() as session,
        StudyGauges(study, tally.counts),
        driver_log(session.logs_folder, study, tally.counts) as log,
    ):
        for line in filter(None, (session.dashboard_line, session.note)):
            say(line)
        return run(
            todo,
            store_uri,
            study=study,
            max_concurrent_steps=execution.max_concurrent_steps,
            on_event=to_all(tally, on_event, log),
            cost=cost,
            threads=fixed_threads(execution),
        )
