"""The Tune trainable: a warm actor that runs one step after the other.

A step runs in a thread, as Tune's own function trainables and Train's workers do. The actor's main
thread stays free: it reports the newest numbers every half second, takes those of a worker group,
and can stop the step, which then gives up its claim and its unfinished folder.

After an error the actor is not used again (Tune ends it): a broken CUDA context or a half-loaded
model must not reach the next step.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.tune import Trainable

from w2s_ray.cluster.gauges import Gauges
from w2s_ray.cluster.process import use_only
from w2s_ray.plan.graph import Step
from w2s_ray.store.artifacts import Store

Numbers = dict[str, Any]
Execute = Callable[[Step, Store, Any], Mapping[str, Any]]
NUMBERS = "numbers"  # in a Tune result: a list of one, which Tune does not take apart
STOP_SECONDS = 8.0  # Tune kills an actor that takes longer than ten to stop


@dataclass(frozen=True)
class Settings:
    """What every actor of a run knows.

    Attributes:
        study: tag of the metrics.
        steps: all steps of the run, by key.
        store_uri: the store.
        storage: URI where worker groups may keep what they pass on.
        execute: runs a step; None: the steps' own runner.
        cpus: of one actor.
        gpus: of one actor.
        period: seconds between two reports of an actor.
    """

    study: str
    steps: Mapping[str, Step]
    store_uri: str
    storage: str
    execute: Execute | None
    cpus: float
    gpus: float
    period: float


class StepError(RuntimeError):
    """A step failed; the text is one line, the traceback is in the store."""


class RunningStep(threading.Thread):
    """A step in a thread of its own, with the newest numbers it has told."""

    def __init__(self, work: Callable[[Callable[[Numbers], None]], Mapping[str, Any]]) -> None:
        super().__init__(name="step", daemon=True)
        self._work = work
        self.over = threading.Event()
        self._numbers: Numbers = {}
        self.metrics: Numbers = {}
        self.error: BaseException | None = None

    def note(self, numbers: Numbers) -> None:
        """Takes the newest numbers; from any thread."""
        self._numbers = dict(numbers)

    def newest(self) -> Numbers:
        """The newest numbers; none if they have been told already."""
        newest, self._numbers = self._numbers, {}
        return newest

    def run(self) -> None:
        try:
            self.metrics = dict(self._work(self.note))
        except BaseException as error:  # handed to the main thread, which tells Tune
            self.error = error
        finally:
            self.over.set()

    def interrupt(self) -> None:
        """Raises KeyboardInterrupt in the step, as Ctrl-C does in a local run, and waits for it."""
        if self.ident is not None and self.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(KeyboardInterrupt)
            )
            self.join(STOP_SECONDS)


class StepActor(Trainable):
    """Runs the step whose key is in the trial's configuration."""

    def setup(self, config: dict[str, Any], settings: Settings | None = None) -> None:
        """Tune calls this once for each new process."""
        assert settings is not None
        use_only(settings.cpus, settings.gpus)
        self._settings = settings
        self._execute = settings.execute or _runner()
        self._store = Store.open(settings.store_uri)
        self._gauges = Gauges(settings.study)
        self._self = ray.get_runtime_context().current_actor
        self._key = config["key"]
        self._running: RunningStep | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes over the next step; everything loaded stays."""
        self._key = new_config["key"]
        self._running = None
        return True

    def step(self) -> dict[str, Any]:
        """Waits for the end of the step, but not longer than one period."""
        step = self._settings.steps[self._key]
        if self._running is None:
            self._started = time.monotonic()
            self._running = RunningStep(partial(self._run, step))
            self._running.start()
        running = self._running
        if running.over.wait(self._settings.period):
            if running.error is not None:
                raise StepError(f"{type(running.error).__name__}: {running.error}")
            return {"done": True, NUMBERS: [running.metrics]}
        newest = running.newest()
        self._gauges.show(step, newest, time.monotonic() - self._started)
        return {NUMBERS: [newest]}

    def note(self, key: str, numbers: Numbers) -> None:
        """Takes numbers of a step from another process, the first worker of its group."""
        if self._running is not None and key == self._key:
            self._running.note(numbers)

    def cleanup(self) -> None:
        """Ends a step that still runs."""
        if self._running is not None:
            self._running.interrupt()

    def _run(self, step: Step, note: Callable[[Numbers], None]) -> Mapping[str, Any]:
        from w2s_ray.steps.context import Context

        if int(step.execution.get("workers", 1)) == 1:
            return self._execute(step, self._store, Context(progress=note, runner="ray"))
        from w2s_ray.cluster.launch import WorkerGroup

        group = WorkerGroup(self._settings.storage, partial(_note, self._self, step.key))
        return self._execute(step, self._store, Context(note, group.fit, "ray train"))


def _note(actor: Any, key: str, numbers: Numbers) -> None:
    actor.note.remote(key, numbers)


def _runner() -> Execute:
    from w2s_ray.steps.runner import execute

    return execute
