"""One Tune run over all unfinished steps of a study.

Tune provides placement, warm actors and a clean shutdown. Its logging, checkpoints and resumption
are not used, since the store has them, nor its retries (``searcher``). The state that it writes to
``<store>/.ray/<study>`` is removed at the end.
"""

import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from w2s_ray.cluster.environment import TUNE, TUNE_MAX_PENDING, temporarily
from w2s_ray.cluster.placement import (
    Need,
    Node,
    cluster_nodes,
    most_at_once,
    needs,
    refuse_unplaceable,
)
from w2s_ray.cluster.searcher import FirstPending, StepSearch, StepTrial
from w2s_ray.cluster.trial import NUMBERS, ActorSize, Execute, Settings, StepActor
from w2s_ray.ending.signals import check
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Step
from w2s_ray.store.addresses import SCRATCH, child, remove_scratch
from w2s_ray.store.artifacts import Store
from w2s_ray.training.early_end import tell

OnEvent = Callable[[str, Step, dict[str, Any]], None]
MIN_REPORT_SECONDS = 0.5  # between two reports of one actor
REPORTS_PER_SECOND = 100  # of all actors together, which Tune's loop handles easily


def run(
    todo: Mapping[str, Step],
    store_uri: str,
    *,
    study: str = "study",
    max_concurrent_steps: int | None = None,
    on_event: OnEvent = lambda event, step, numbers: None,
    say: Callable[[str], object] = lambda line: None,
    execute: Execute | None = None,
    cost: Mapping[str, float] | None = None,
    threads: int | None = None,
) -> Schedule:
    """Runs the unfinished steps on the connected Ray. A failed step blocks its descendants only.

    Longer than other functions: it puts together all that Tune needs.

    Args:
        todo: the unfinished steps by key, every step after its inputs.
        store_uri: URI of the store.
        study: tag of the metrics, and name of Tune's temporary folder.
        max_concurrent_steps: at a time, a fused group counted as one; None: as many as fit.
        on_event: called with ``started``, ``progress``, ``done``, ``failed`` or ``crashed``, the
            step, and numbers (of the progress, the metrics, or ``{"error": one line}``), in this
            thread. ``crashed``: its process died, it runs again (``StepTrial.described_crash``).
        say: takes the line that training ends with a checkpoint, after a signal.
        execute: runs one step in an actor; None: the steps' own runner.
        cost: of steps, by key, in any one unit: steps on the most expensive path go first.
        threads: of each process; None: steps share the CPUs of their machine (``threads``).

    Raises:
        InputError: a step cannot be placed on this cluster. Nothing has been started.
        KeyboardInterrupt: after Ctrl-C; running steps have ended, training with a checkpoint, and
            their claims are released.
    """
    schedule = Schedule(todo, cost)
    if not todo:
        return schedule
    nodes = cluster_nodes()
    refuse_unplaceable(todo, nodes)
    reserved = needs(todo, nodes)
    limit = max_concurrent_steps or len(todo)
    storage, store = child(store_uri, SCRATCH), Store.open(store_uri)
    settings = Settings(
        study=study,
        steps=dict(todo),
        store_uri=store_uri,
        storage=child(storage, "workers"),
        execute=execute,
        actor=_actor_size(reserved.values()),
        period=_report_seconds(reserved.values(), nodes, limit),
        threads=threads,
    )
    actor = tune.with_parameters(StepActor, settings=settings)
    actor.__qualname__ = StepActor.__name__  # on the dashboard
    check()
    with _quiet_tune(limit):
        tune.run(
            actor,
            name=study,
            search_alg=StepSearch(schedule, reserved, cluster_nodes, limit, store),
            scheduler=FirstPending(),  # type: ignore[no-untyped-call]
            reuse_actors=True,
            callbacks=[_Events(store, on_event, say)],
            storage_path=storage,
            verbose=0,
            raise_on_failed_trial=False,
        )
    remove_scratch(child(storage, study))
    if not schedule.finished:
        raise KeyboardInterrupt
    return schedule


def _actor_size(reserved: Iterable[Need]) -> ActorSize:
    single = [need for need in reserved if need.is_alone]
    return ActorSize(
        max((need.cpus for need in single), default=1.0),
        max((need.gpus for need in single), default=0.0),
    )


def _report_seconds(reserved: Iterable[Need], nodes: Sequence[Node], limit: int) -> float:
    """Seconds between two reports of an actor: longer where many actors run at once."""
    at_once = min(limit, most_at_once(reserved, nodes))
    return max(MIN_REPORT_SECONDS, at_once / REPORTS_PER_SECOND)


class _Events(tune.Callback):
    """Passes Tune's events to the caller, and records failures whose process could not."""

    def __init__(self, store: Store, on_event: OnEvent, say: Callable[[str], object]) -> None:
        self._store, self._on_event, self._say = store, on_event, say
        self._training: set[str] = set()  # ids of trials that save checkpoints
        self._end_run: Any = None

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Tune has set its handler of SIGINT just before."""
        if threading.current_thread() is threading.main_thread():
            self._end_run = signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._training:
            tell(self._say)
        self._end_run(number, frame)

    def on_trial_start(self, iteration: int, trials: Any, trial: Trial, **info: Any) -> None:
        assert isinstance(trial, StepTrial)
        if len(trial.group) == 1 and trial.group[0].saves_checkpoints:
            self._training.add(trial.trial_id)
        self._report("started", trial, {})

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if not result.get("done") and (numbers := result[NUMBERS][0]):
            self._report("progress", trial, numbers)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Trial, **info: Any) -> None:
        assert isinstance(trial, StepTrial)
        self._training.discard(trial.trial_id)
        for step, numbers in zip(trial.given_back, trial.described_crash(), strict=True):
            self._on_event("crashed", step, numbers)
        for step in trial.group:
            if step in trial.given_back:
                continue
            numbers = trial.outcome[step.key]
            failed = "error" in numbers
            if failed and trial.crashed:
                self._store.record_failure(step.identity, trial.reason)
            self._on_event("failed" if failed else "done", step, numbers)

    on_trial_error = on_trial_complete

    def _report(self, event: str, trial: Trial, numbers: dict[str, Any]) -> None:
        assert isinstance(trial, StepTrial)
        for step in trial.group:
            self._on_event(event, step, numbers)


@contextmanager
def _quiet_tune(pending: int) -> Iterator[None]:
    """Tune's settings for this run: no messages on the terminal, signal handlers restored.

    Args:
        pending: trials that may wait for their resources. The searcher creates only trials that
            fit, so they wait for an actor to start, or for a machine.
    """
    logger = logging.getLogger("ray.tune")
    level = logger.level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    logger.setLevel(logging.CRITICAL)
    gc.freeze()  # what is loaded by now stays: looking through it again and again costs a tenth
    try:
        with temporarily({**TUNE, TUNE_MAX_PENDING: str(pending)}):
            yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)
        with suppress(ValueError):  # outside the main thread, where Tune sets none either
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
