"""A run on Ray that can be watched: its dashboard, metrics of the study, a log of the driver."""

from collections.abc import Callable, Mapping

from w2s_ray.cluster.environment import fixed_threads
from w2s_ray.cluster.gauges import StudyGauges
from w2s_ray.cluster.logs import driver_log
from w2s_ray.cluster.session import connect
from w2s_ray.cluster.tune_run import run
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Step
from w2s_ray.running.events import OnEvent, to_all
from w2s_ray.running.run_state import Counts
from w2s_ray.spec.execution import Execution


def run_watched(
    todo: Mapping[str, Step],
    store_uri: str,
    study: str,
    execution: Execution,
    counts: Callable[[], Counts],
    on_event: OnEvent,
    say: Callable[[str], None],
    cost: Mapping[str, float],
) -> Schedule:
    """Connects to Ray and runs the unfinished steps there, as ``tune_run.run`` does.

    Args:
        counts: gives the counts of the run, which hears ``on_event``.
        say: takes the line that tells where the dashboard is, a note on another Ray here, and what
            ``tune_run.run`` says.
    """
    with (
        connect() as session,
        StudyGauges(study, counts),
        driver_log(session.logs_folder, study, counts) as log,
    ):
        for line in filter(None, (session.dashboard_line, session.note)):
            say(line)
        return run(
            todo,
            store_uri,
            study=study,
            max_concurrent_steps=execution.max_concurrent_steps,
            on_event=to_all(on_event, log),
            say=say,
            cost=cost,
            threads=fixed_threads(execution),
        )
