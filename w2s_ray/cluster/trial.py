"""The Tune trainable: a warm actor that runs one step, or group of steps, after the other.

A group runs in a thread, as Tune's own function trainables and Train's workers do. The actor's main
thread stays free: it reports the newest numbers every half second, receives those of a worker
group, and can end the step, which then releases its claim and removes its unfinished folder. A loop
that saves checkpoints ends after its update, with one; all else is interrupted.

When all steps of a group fail, Tune ends the actor and does not reuse it: a broken CUDA context or
a half-loaded model must not reach the next step. When some of them succeed, the process is sound.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import ray
from ray.tune import Trainable

from w2s_ray.cluster.asking import ask_worker
from w2s_ray.cluster.gauges import Gauges
from w2s_ray.cluster.logs import StepLog, described
from w2s_ray.cluster.process import machine_cpus, use_only
from w2s_ray.cluster.ray_internals import name_process
from w2s_ray.cluster.threads import Share
from w2s_ray.errors import line_of
from w2s_ray.plan.schedule import Group
from w2s_ray.plan.step import Step
from w2s_ray.store.artifacts import Store
from w2s_ray.training.early_end import ask

Numbers = dict[str, Any]
Execute = Callable[[Step, Store, Any], Mapping[str, Any]]
Outcomes = Mapping[str, Mapping[str, Any] | Exception]  # by key: metrics, or what was raised
NUMBERS = "numbers"  # in a Tune result: a list of one, since Tune would flatten a dictionary
STOP_SECONDS = 8.0  # for a step that is interrupted
SAVE_SECONDS = 300.0  # for one that ends after its update, with a checkpoint
KILL_SECONDS = SAVE_SECONDS + STOP_SECONDS + 2.0  # until Tune kills an actor that does not end


class ActorSize(NamedTuple):
    """What Ray reserves for one actor, which runs the one-process steps."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Settings:
    """Settings of a run that all its actors share.

    Attributes:
        study: tag of the metrics.
        steps: all steps of the run, by key.
        store_uri: URI of the store.
        storage: URI under which worker groups may keep temporary files.
        execute: runs a single step; None: the steps' own runner.
        actor: CPUs and GPUs of one actor.
        period: seconds between two reports of an actor.
        threads: of each process; None: steps share the CPUs of their machine.
    """

    study: str
    steps: Mapping[str, Step]
    store_uri: str
    storage: str
    execute: Execute | None
    actor: ActorSize
    period: float
    threads: int | None = None


class StepError(RuntimeError):
    """All steps of a group failed; the tracebacks are in the store.

    Attributes:
        errors: one line per step, by key.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(errors)  # the argument with which pickle creates the copy
        self.errors = dict(errors)

    def __str__(self) -> str:
        return next(iter(self.errors.values()))


class RunningGroup(threading.Thread):
    """Runs a group of steps in its own thread, and holds the newest numbers of its progress.

    Attributes:
        ended: set when the thread has ended.
        outcomes: of the steps; empty if ``error`` is set.
        error: raised outside of single steps.
        worker: the actor in whose process the step's loop is; None: it is in this process.
    """

    def __init__(self, work: Callable[[Callable[[Numbers], None]], Outcomes]) -> None:
        super().__init__(name="step", daemon=True)
        self._work = work
        self.ended = threading.Event()
        self._numbers: Numbers = {}
        self.outcomes: Outcomes = {}
        self.error: BaseException | None = None
        self.worker: Any = None

    def note(self, numbers: Numbers) -> None:
        """Replaces the newest numbers; may be called from any thread."""
        self._numbers = dict(numbers)

    def newest(self) -> Numbers:
        """The newest numbers; empty if they have been returned before."""
        newest, self._numbers = self._numbers, {}
        return newest

    def run(self) -> None:
        try:
            self.outcomes = self._work(self.note)
        except BaseException as error:  # the main thread reports it to Tune
            self.error = error
        finally:
            self.ended.set()

    def end(self) -> None:
        """Ends the group early: by its loop, if that can save its state, else by an interrupt."""
        if self.is_alive() and (ask() if self.worker is None else ask_worker(self.worker)):
            self.join(SAVE_SECONDS)
        self.interrupt()

    def interrupt(self) -> None:
        """Raises KeyboardInterrupt in the thread, as Ctrl-C does in a local run, and joins it."""
        if self.ident is not None and self.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(KeyboardInterrupt)
            )
            self.join(STOP_SECONDS)


class StepActor(Trainable):
    """Runs the steps whose keys are in the trial's configuration."""

    def setup(self, config: dict[str, Any], settings: Settings | None = None) -> None:
        """Tune calls this once for each new process."""
        assert settings is not None
        use_only(*settings.actor, settings.threads)
        self._share = Share(machine_cpus() if settings.threads is None else None)
        self._settings = settings
        self._store = Store.open(settings.store_uri)
        self._gauges, self._log = Gauges(settings.study), StepLog()
        self._self = ray.get_runtime_context().current_actor
        self._keys: list[str] = config["keys"]
        self._threads: int = config["threads"]
        self._running: RunningGroup | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepares for the next group; loaded models stay."""
        self._keys, self._threads = new_config["keys"], new_config["threads"]
        self._running = None
        return True

    def step(self) -> dict[str, Any]:
        """Waits until the group ends, but no longer than one period."""
        group = tuple(self._settings.steps[key] for key in self._keys)
        if self._running is None:
            self._started = time.monotonic()
            self._log.started(group)
            self._running = RunningGroup(partial(self._run, group))
            self._running.start()
        name_process(described(group))  # Ray takes the name back after each call
        running = self._running
        if running.ended.wait(self._settings.period):
            return {"done": True, NUMBERS: [self._outcomes(running)]}
        newest = running.newest()
        self._log.progress(newest)
        self._gauges.show(group[0], newest, time.monotonic() - self._started)
        return {NUMBERS: [newest]}

    def __repr__(self) -> str:
        """The name of the actor on the dashboard."""
        return f"w2s_ray {self._settings.study}"

    def _outcomes(self, running: RunningGroup) -> dict[str, Numbers]:
        """What the steps gave; how they ended is logged.

        Raises:
            StepError: all of them failed.
        """
        try:
            if running.error is not None:
                raise StepError(dict.fromkeys(self._keys, line_of(running.error)))
            outcomes = _for_tune(running.outcomes)
        except StepError as error:
            self._log.ended(f"failed ({error}):")
            raise
        failed = sum("error" in outcome for outcome in outcomes.values())
        self._log.ended(f"done, {failed:,} failed:" if failed else "done")
        return outcomes

    def note(self, key: str, numbers: Numbers) -> None:
        """Receives numbers of a step from another process, rank 0 of its worker group."""
        if self._running is not None and key in self._keys:
            self._running.note(numbers)

    def join(self, key: str, worker: Any) -> None:
        """Receives rank 0 of a step's worker group, an actor."""
        if self._running is not None and key in self._keys:
            self._running.worker = worker

    def cleanup(self) -> None:
        """Ends a step that still runs."""
        if self._running is not None:
            self._running.end()

    def _run(self, group: Group, note: Callable[[Numbers], None]) -> Outcomes:
        from w2s_ray.steps.context import Context

        execution = group[0].execution
        if execution.processes == 1 and not execution.is_pooled:
            with self._share.held(group[0], self._threads, note) as progress:
                return self._execute(group, Context(progress, runner="ray"))
        if execution.is_pooled:  # never fused
            from w2s_ray.cluster.inference_pool import InferencePool

            pool = InferencePool(group[0], self._store, note, self._settings.threads)
            return self._execute(group, Context(note, runner="ray data", spread=pool.spread))
        from w2s_ray.cluster.launch import WorkerGroup

        key, threads = group[0].key, self._settings.threads
        note_remotely = partial(_note_remotely, self._self, key)
        join_remotely = partial(_join_remotely, self._self, key)
        workers = WorkerGroup(self._settings.storage, note_remotely, join_remotely, threads)
        return self._execute(group, Context(note, workers.fit, "ray train"))  # never fused

    def _execute(self, group: Group, context: Any) -> Outcomes:
        if self._settings.execute is not None:
            return _one_by_one(self._settings.execute, group, self._store, context)
        from w2s_ray.running.runner import execute_group

        return execute_group(group, self._store, context)


def _note_remotely(actor: Any, key: str, numbers: Numbers) -> None:
    actor.note.remote(key, numbers)


def _join_remotely(actor: Any, key: str, worker: Any) -> None:
    actor.join.remote(key, worker)


def _one_by_one(execute: Execute, group: Group, store: Store, context: Any) -> Outcomes:
    outcomes: dict[str, Mapping[str, Any] | Exception] = {}
    for step in group:
        try:
            outcomes[step.key] = execute(step, store, context)
        except Exception as error:
            outcomes[step.key] = error
    return outcomes


def _for_tune(outcomes: Outcomes) -> dict[str, Numbers]:
    """Metrics by key, or ``{"error": one line}``.

    Raises:
        StepError: all steps failed.
    """
    errors = {
        key: line_of(error) for key, error in outcomes.items() if isinstance(error, Exception)
    }
    if len(errors) == len(outcomes):
        raise StepError(errors)
    return {
        key: {"error": errors[key]} if isinstance(outcome, Exception) else dict(outcome)
        for key, outcome in outcomes.items()
    }
