"""The search algorithm of the one Tune run: it "searches" by handing out what is ready.

It is a ``SearchAlgorithm``, not a ``Searcher``: Tune asks it for whole trials, so that every trial
has its first step's key as id, its own resources, and no number of samples has to be guessed. A
trial is made only when its processes fit beside those that run. Hence no trial blocks the queue
before one that could start, and Tune's reuse of warm actors always finds one that is free.

A trial is a group of steps (``plan.fusion``), mostly of one. Each step of it is done or has failed
on its own; a process that dies takes only those with it that are not in the store.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Experiment, Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import SearchAlgorithm

from w2s_ray.cluster.placement import Need, Node, fits, most_at_once
from w2s_ray.cluster.trial import NUMBERS, StepError
from w2s_ray.plan.schedule import Group, Schedule
from w2s_ray.store.artifacts import Store

RETRIES = 2  # of a step whose process died; an error of the step itself is final
NODES_REFRESH_SECONDS = 5.0
# The trial that starts a worker group only waits for it. It takes no CPU away from its workers
# and lives on the head node, a resource that every cluster has.
LAUNCHER = {"CPU": 0, "node:__internal_head__": 0.001}


class StepTrial(Trial):
    """A group of steps as a Tune trial: retried when its process died, never when a step failed.

    Attributes:
        group: its steps.
        reason: why it failed, one line.
        crashed: it failed because its process, or machine, died.
        outcome: by key, once it is over: metrics, or ``{"error": one line}``.
    """

    group: Group
    reason: str
    crashed: bool
    outcome: dict[str, dict[str, Any]]

    def handle_error(self, exc: Any = None) -> None:
        self.crashed = isinstance(exc, RayActorError)
        cause = exc.cause if isinstance(exc, RayTaskError) else exc
        reason = " ".join(str(cause).split())
        if self.crashed:  # out of Ray's paragraph, what it knows of this death
            detail = re.search(r"Worker exit detail: (.*?)( Some common causes|$)", reason)
            reason = f"the process that ran the step died: {detail[1] if detail else reason}"
        self.reason = reason
        if isinstance(cause, StepError):
            self.outcome = {key: {"error": error} for key, error in cause.errors.items()}
        if self.crashed:
            self.config = {**self.config, "attempt": self.config["attempt"] + 1}
        super().handle_error(exc)

    def conclude(self, store: Store) -> None:
        """Finds ``outcome``; of what went wrong only the store knows how much was finished."""
        if self.last_result.get("done"):
            self.outcome = self.last_result[NUMBERS][0]
        elif not self.outcome:
            self.outcome = {step.key: {"error": self.reason} for step in self.group}
        failed = [key for key, numbers in self.outcome.items() if "error" in numbers]
        if failed:
            for key, record in store.records(failed).items():
                self.outcome[key] = record["metrics"]

    def should_recover(self) -> bool:
        return self.crashed and bool(super().should_recover())  # type: ignore[no-untyped-call]

    def get_json_state(self) -> tuple[str, str]:
        """Nothing: Tune would write 10 kB a trial to a state that is never restored."""
        return "{}", "{}"


class FirstPending(FIFOScheduler):
    """Tune's own order, without a look at every finished trial at every turn of its loop."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        pending = (t for t in tune_controller.get_live_trials() if t.status == Trial.PENDING)
        return next(pending, None)


class StepSearch(SearchAlgorithm):
    """Drives a ``Schedule`` by the trials of one Tune run.

    Args:
        schedule: it is changed here and nowhere else.
        needs: what each step needs, by key.
        nodes: looks at the cluster; asked again every few seconds, since clusters change.
        limit: largest number of trials at a time.
        store: the store.
    """

    def __init__(
        self,
        schedule: Schedule,
        needs: Mapping[str, Need],
        nodes: Callable[[], Sequence[Node]],
        limit: int,
        store: Store,
    ) -> None:
        self._schedule = schedule
        self._needs = needs
        self._store = store
        self._running: dict[str, StepTrial] = {}
        self._kinds = set(needs.values())
        self._look = nodes
        self._nodes = list(nodes())
        self._looked = time.monotonic()
        self._limit = limit
        self._unchanged = False  # since the last time nothing could be started
        self._spec: dict[str, Any] = {}

    @property
    def total_samples(self) -> int:
        return len(self._schedule)

    def add_configurations(self, experiments: Any) -> None:
        """Takes Tune's description of the run, from which trials are made."""
        (experiment,) = experiments
        assert isinstance(experiment, Experiment)
        self._spec = experiment.spec

    def next_trial(self) -> StepTrial | None:
        """The most urgent step that is ready and fits, as a trial; None if there is none now."""
        self._refresh_nodes()
        if self._unchanged or len(self._running) >= self._limit:
            return None
        running = [self._needs[key] for key in self._running]
        fitting = {need for need in self._kinds if fits([*running, need], self._nodes)}
        if not running:  # what cannot be placed even now waits in Tune for machines that were lost
            fitting = self._kinds
        group: Group = ()
        if fitting:
            accept = lambda step: self._needs[step.key] in fitting  # noqa: E731
            group = self._schedule.start(accept, processes=self._free())
        self._unchanged = not group
        return self._trial(group) if group else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The group is over; Tune calls this after the last retry only, before its callbacks."""
        self._unchanged = False
        trial = self._running.pop(trial_id)
        trial.conclude(self._store)
        for key, numbers in trial.outcome.items():
            (self._schedule.fail if "error" in numbers else self._schedule.succeed)(key)

    def is_finished(self) -> bool:
        """No step will be handed out any more, though some may still run."""
        return self._finished or not (self._schedule.ready or self._schedule.waiting)

    def _refresh_nodes(self) -> None:
        if time.monotonic() - self._looked > NODES_REFRESH_SECONDS:
            nodes = list(self._look())
            self._unchanged = self._unchanged and nodes == self._nodes
            self._nodes, self._looked = nodes, time.monotonic()

    def _free(self) -> int:
        """How many one-process trials could start now."""
        alone = [need for need in self._kinds if need.workers == 1]
        most = most_at_once(alone[:1] * min(self._limit, len(self._schedule)), self._nodes)
        return max(1, min(most, self._limit) - len(self._running))

    def _trial(self, group: Group) -> StepTrial:
        step = group[0]
        need = self._needs[step.key]
        name = f"{step.kind}-{step.slug}-{step.key}"
        trial = StepTrial(
            self._spec["run"],
            config={"keys": [step.key for step in group], "attempt": 0},
            trial_id=step.key,
            experiment_tag=name,
            storage=self._spec["storage"],
            placement_group_factory=PlacementGroupFactory(
                [need.process if need.workers == 1 else LAUNCHER]
            ),
            checkpoint_config=self._spec["checkpoint_config"],
            max_failures=RETRIES,
            trial_name_creator=lambda trial: name,
        )
        trial.group, trial.reason, trial.crashed, trial.outcome = group, "", False, {}
        self._running[trial.trial_id] = trial
        assert trial.storage is not None
        # One folder for the scraps of all trials, in place of one each.
        trial.storage.trial_dir_name = "trials"
        trial.relative_logdir = "trials"  # type: ignore[assignment]
        return trial
