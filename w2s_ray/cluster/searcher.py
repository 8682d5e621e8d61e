"""The search algorithm of the one Tune run: its trials are the steps that are ready.

It is a ``SearchAlgorithm``, not a ``Searcher``: Tune asks it for whole trials, so that every trial
has its first step's key as id and its own resources, and no number of samples has to be guessed. A
trial is created only when its processes fit beside those that run. Hence no trial in the queue
blocks another that could start, and a warm actor is always free for Tune to reuse.

A trial is a group of fused steps (``plan.fusion``), mostly a single one. Each step of a group
succeeds or fails on its own. When a process dies, its steps that are not in the store go back into
the schedule, and the last attempt of each is made without the others. Tune itself retries nothing:
it recovers only trials that it sees running, and one that is given a warm actor which has died in
the meantime is still pending.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.tune import PlacementGroupFactory, Trainable
from ray.tune.experiment import Experiment, Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import SearchAlgorithm

from w2s_ray.cluster.placement import Need, Node, fits, slots
from w2s_ray.cluster.ray_internals import has_actor, kill_actors_after
from w2s_ray.cluster.trial import KILL_SECONDS, NUMBERS, StepError
from w2s_ray.plan.schedule import Group, Schedule
from w2s_ray.plan.step import Step
from w2s_ray.store.artifacts import Store

CRASH_RETRIES = 2  # of a step whose process died; an error of the step itself is final
NODES_REFRESH_SECONDS = 5.0
# The trial that starts a worker group only waits for it. It reserves no CPU, which its workers
# need, and runs on the head node, which every cluster has.
LAUNCHER = {"CPU": 0, "node:__internal_head__": 0.001}


class StepTrial(Trial):
    """A group of steps as a Tune trial.

    Attributes:
        group: the steps.
        reason: why the trial failed, one line.
        crashed: the trial failed because its process, or machine, died.
        outcome: once the trial has ended, by key: metrics, or ``{"error": one line}``.
        given_back: steps that will run again.
    """

    group: Group
    reason: str
    crashed: bool
    outcome: dict[str, dict[str, Any]]
    given_back: list[Step]

    def __init__(self, trainable: type[Trainable], group: Group, **options: Any) -> None:
        self._trainable = trainable
        self.group, self.reason, self.crashed = group, "", False
        self.outcome, self.given_back = {}, []
        super().__init__(trainable.__name__, stub=True, **options)

    def get_trainable_cls(self) -> type[Trainable]:
        """The actor's class: Tune would fetch and unpickle it from the cluster for every trial."""
        return self._trainable

    def set_ray_actor(self, ray_actor: Any) -> None:
        """Without Tune's call to the actor for metrics of a trial that has none yet."""
        self.temporary_state.ray_actor = ray_actor

    def handle_error(self, exc: Any = None) -> None:
        self.crashed = isinstance(exc, RayActorError)
        cause = exc.cause if isinstance(exc, RayTaskError) else exc
        reason = " ".join(str(cause).split())
        if self.crashed:  # the part of Ray's message that is about this process
            detail = re.search(r"Worker exit detail: (.*?)( Some common causes|$)", reason)
            reason = f"the process that ran the step died: {detail[1] if detail else reason}"
        self.reason = reason
        if isinstance(cause, StepError):
            self.outcome = {key: {"error": error} for key, error in cause.errors.items()}
        super().handle_error(exc)

    def conclude(self, store: Store) -> None:
        """Sets ``outcome``; only the store knows which steps of a failed trial were finished."""
        if self.last_result.get("done"):
            self.outcome = self.last_result[NUMBERS][0]
        elif not self.outcome:
            self.outcome = {step.key: {"error": self.reason} for step in self.group}
        failed = [key for key, numbers in self.outcome.items() if "error" in numbers]
        if failed:
            for key, record in store.records(failed).items():
                self.outcome[key] = record["metrics"]

    def described_crash(self) -> list[dict[str, Any]]:
        """Numbers for each step that is given back: the first one's describe the crash."""
        first = {"error": self.reason, "steps": len(self.given_back)}
        return [{} if number else first for number in range(len(self.given_back))]

    def get_json_state(self) -> tuple[str, str]:
        """Empty: Tune would write 10 kB per trial to a state that is never restored."""
        return "{}", "{}"


class FirstPending(FIFOScheduler):
    """Tune's own order, without iterating over all finished trials in every turn of its loop.

    A trial whose own actor is starting leaves idle ones to those that have none, if there are any.
    Given an idle one, as Tune's order would do, it gives up its own, and a machine whose first
    steps are short starts and ends processes for ever without a second one that runs.
    """

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """An actor may need long to end: it finishes an update and saves its state."""
        kill_actors_after(KILL_SECONDS, tune_controller)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        pending = (t for t in tune_controller.get_live_trials() if t.status == Trial.PENDING)
        return next((trial for trial in pending if not has_actor(trial, tune_controller)), None)


class StepSearch(SearchAlgorithm):
    """Drives a ``Schedule`` by the trials of one Tune run.

    Args:
        schedule: the unfinished steps; only this object changes it.
        needs: resources of each step, by key.
        nodes: returns the cluster's machines; called every few seconds, since clusters change.
        limit: largest number of trials at a time.
        store: the store of the study.
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
        self._running: dict[str, StepTrial] = {}  # by id
        self._crashes: Counter[str] = Counter()  # by key of the step whose process died
        self._distinct_needs = set(needs.values())
        # One object a need, as Tune compares those of all trials
        self._requests = {
            need: PlacementGroupFactory([need.process if need.is_alone else LAUNCHER])
            for need in self._distinct_needs
        }
        self._read_nodes = nodes
        self._nodes = list(nodes())
        self._nodes_read_at = time.monotonic()
        self._limit = limit
        self._slots = self._count_slots()
        self._nothing_fits = False  # and nothing has changed since that was found
        self._spec: dict[str, Any] = {}

    @property
    def total_samples(self) -> int:
        return len(self._schedule)

    def add_configurations(self, experiments: Any) -> None:
        """Keeps Tune's description of the run, from which trials are created."""
        (experiment,) = experiments
        assert isinstance(experiment, Experiment)
        self._spec = experiment.spec
        self._trainable = get_trainable_cls(experiment.spec["run"])  # type: ignore[no-untyped-call]

    def next_trial(self) -> StepTrial | None:
        """The most urgent step that is ready and fits, as a trial; None if there is none now."""
        self._refresh_nodes()
        if self._nothing_fits or len(self._running) >= self._limit:
            return None
        running = [self._needs[trial.group[0].key] for trial in self._running.values()]
        fitting = {need for need in self._distinct_needs if fits([*running, need], self._nodes)}
        if not running:  # a step that does not fit even now waits in Tune for lost machines
            fitting = self._distinct_needs
        group: Group = ()
        if fitting:
            group = self._schedule.start(partial(self._is_among, fitting), processes=self._free())
        self._nothing_fits = not group
        return self._trial(group) if group else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ends the group, or gives it back; Tune calls this before its callbacks."""
        self._nothing_fits = False
        trial = self._running.pop(trial_id)
        trial.conclude(self._store)
        for step in trial.group:
            key = step.key
            if "error" not in trial.outcome[key]:
                self._schedule.succeed(key)
            elif trial.crashed and self._crashes[key] < CRASH_RETRIES:
                self._crashes[key] += 1
                self._schedule.give_back(key, alone=self._crashes[key] == CRASH_RETRIES)
                trial.given_back.append(step)
            else:
                self._schedule.fail(key)

    def is_finished(self) -> bool:
        """No step will be started any more, though some may still run."""
        return self._finished or not (self._schedule.ready or self._schedule.waiting)

    def _refresh_nodes(self) -> None:
        if time.monotonic() - self._nodes_read_at > NODES_REFRESH_SECONDS:
            nodes = list(self._read_nodes())
            if nodes != self._nodes:
                self._nodes, self._nothing_fits = nodes, False
                self._slots = self._count_slots()
            self._nodes_read_at = time.monotonic()

    def _is_among(self, needs: Container[Need], step: Step) -> bool:
        return self._needs[step.key] in needs

    def _free(self) -> int:
        """Number of one-process trials that could start now."""
        return max(1, self._slots - len(self._running))

    def _count_slots(self) -> int:
        """How many one-process trials may run at once; they all have the same need."""
        alone = [need for need in self._distinct_needs if need.is_alone]
        limit = min(self._limit, len(self._schedule))
        return slots(alone[0], self._nodes, limit) if alone else 0

    def _threads(self) -> int:
        """Threads for a step that starts now, if those that can start beside it do so too."""
        beside = min(len(self._schedule.ready), self._free() - 1)
        cpus = sum(node.cpus for node in self._nodes)
        return max(1, int(cpus // (len(self._running) + 1 + beside)))

    def _trial(self, group: Group) -> StepTrial:
        step = group[0]
        need = self._needs[step.key]
        name = f"{step.kind}-{step.slug}-{step.key}"
        trial = StepTrial(
            self._trainable,
            group,
            config={"keys": [step.key for step in group], "threads": self._threads()},
            trial_id=f"{step.key}-{self._crashes[step.key]}",
            experiment_tag=name,
            storage=self._spec["storage"],
            placement_group_factory=self._requests[need],
            checkpoint_config=self._spec["checkpoint_config"],
            max_failures=0,
            trial_name_creator=lambda trial: name,
        )
        self._running[trial.trial_id] = trial
        assert trial.storage is not None
        # One folder for the temporary files of all trials, in place of one per trial.
        trial.storage.trial_dir_name = "trials"
        trial.relative_logdir = "trials"  # type: ignore[assignment]
        return trial
