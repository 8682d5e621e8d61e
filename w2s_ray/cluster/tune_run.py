"""One Tune run over all missing steps of a study.

Tune brings placement, warm actors, retries after crashes and a clean end; it is not asked to log,
to checkpoint or to resume, because the store already does. Whatever state it writes lies in
``<store>/.ray/<study>`` and is removed at the end.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from w2s_ray.cluster.placement import cluster_nodes, most_at_once, needs, refuse_unplaceable
from w2s_ray.cluster.searcher import FirstPending, StepSearch, StepTrial
from w2s_ray.cluster.trial import NUMBERS, Execute, Settings, StepActor
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Step
from w2s_ray.store.addresses import SCRATCH, child, remove_scratch
from w2s_ray.store.artifacts import Store

OnEvent = Callable[[str, Step, dict[str, Any]], None]
REPORTS_PER_SECOND = 100  # of all actors together: what Tune's loop takes without effort

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the old output engine is silent at verbose=0, the new is not
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files a trial
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # no periodic snapshots of a state never restored
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}


def run(
    todo: Mapping[str, Step],
    store_uri: str,
    *,
    study: str = "study",
    max_concurrent_steps: int | None = None,
    on_event: OnEvent = lambda event, step, numbers: None,
    execute: Execute | None = None,
    cost: Mapping[str, float] | None = None,
) -> Schedule:
    """Runs what is to do on the connected Ray. A failed step stops its descendants only.

    Args:
        todo: the missing steps, every step after its inputs.
        max_concurrent_steps: largest number of steps at a time, fused ones counted as one; None:
            what fits.
        on_event: takes ``started``, ``progress``, ``done`` or ``failed``, the step, and numbers
            (of the progress, the metrics, or ``{"error": one line}``). Called in this thread;
            ``started`` comes again when a step is retried after its process died.
        execute: runs one step in an actor; None: the steps' own runner.
        cost: of steps, by key, in any one unit: what leads to the most costly goes first.

    Raises:
        InputError: a step cannot be placed on this cluster. Nothing has been started.
        KeyboardInterrupt: after Ctrl-C; the running steps have been ended, their claims given up.
    """
    schedule = Schedule(todo, cost)
    if not todo:
        return schedule
    nodes = cluster_nodes()
    refuse_unplaceable(todo, nodes)
    wanted = needs(todo, nodes)
    limit = max_concurrent_steps or len(todo)
    at_once = min(limit, most_at_once(wanted.values(), nodes))
    storage, store = child(store_uri, SCRATCH), Store.open(store_uri)
    settings = Settings(
        study=study,
        steps=dict(todo),
        store_uri=store_uri,
        storage=child(storage, "workers"),
        execute=execute,
        cpus=max((need.cpus for need in wanted.values() if need.workers == 1), default=1.0),
        gpus=max((need.gpus for need in wanted.values() if need.workers == 1), default=0.0),
        period=max(0.5, at_once / REPORTS_PER_SECOND),
    )
    with _quiet_tune(limit):
        tune.run(
            tune.with_parameters(StepActor, settings=settings),
            name=study,
            search_alg=StepSearch(schedule, wanted, cluster_nodes, limit, store),
            scheduler=FirstPending(),  # type: ignore[no-untyped-call]
            reuse_actors=True,
            callbacks=[_Events(store, on_event)],
            storage_path=storage,
            verbose=0,
            raise_on_failed_trial=False,
        )
    remove_scratch(child(storage, study))
    if not schedule.finished:
        raise KeyboardInterrupt
    return schedule


class _Events(tune.Callback):
    """Tells the driver what happens; notes in the store what a dead process could not."""

    def __init__(self, store: Store, on_event: OnEvent) -> None:
        self._store, self._tell = store, on_event

    def on_trial_start(self, iteration: int, trials: Any, trial: Trial, **info: Any) -> None:
        self._tell_all("started", trial, {})

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if not result.get("done") and (numbers := result[NUMBERS][0]):
            self._tell_all("progress", trial, numbers)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Trial, **info: Any) -> None:
        assert isinstance(trial, StepTrial)
        for step in trial.group:
            numbers = trial.outcome[step.key]
            failed = "error" in numbers
            if failed and trial.crashed:
                self._store.record_failure(step.identity, trial.reason)
            self._tell("failed" if failed else "done", step, numbers)

    on_trial_error = on_trial_complete

    def _tell_all(self, event: str, trial: Trial, numbers: dict[str, Any]) -> None:
        assert isinstance(trial, StepTrial)
        for step in trial.group:
            self._tell(event, step, numbers)


@contextmanager
def _quiet_tune(pending: int) -> Iterator[None]:
    """Tune's settings for this run; its words are kept off the terminal, signals are restored.

    Args:
        pending: trials that may wait for their resources. The searcher makes only such as fit, so
            they wait for an actor to start, or for a machine.
    """
    settings = {**ENVIRONMENT, "TUNE_MAX_PENDING_TRIALS_PG": str(pending)}
    before = {name: os.environ.get(name) for name in settings}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    os.environ.update(settings)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        with suppress(ValueError):  # outside the main thread, where Tune sets none either
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
