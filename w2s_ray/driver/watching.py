"""``--watch``: a study that another process runs, followed by what it leaves in the store.

What differs between two looks at the store becomes an event, as a run tells it, so that watching
shows what a run does. Nothing is started, and nothing is written. A look costs a listing of each
kind's folder, of failures and of claims, and reads what is new alone.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from w2s_ray.data.counting import counted
from w2s_ray.driver.executing import costs, display_of
from w2s_ray.driver.study import Study
from w2s_ray.ending import signals
from w2s_ray.ending.codes import ExitCode
from w2s_ray.plan.step import Step
from w2s_ray.running.events import OnEvent
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import FAILURES, failure_file

SECONDS_BETWEEN = 3.0
SECONDS_BETWEEN_REQUESTS = 15.0  # to an object store, where each is paid
QUIET_SECONDS = 60.0  # without anybody at work, after which it is said, or failures are the end


def watch(study: Study, *, as_json: bool) -> int:
    """Shows a study until it has ended; returns the exit code of its run."""
    plan, store = study.plan, study.store
    finished = store.finished_among(plan.steps)
    todo = plan.todo(finished)
    study.say(
        f"study {plan.study}: {counted(len(plan.cells), 'cell')}, "
        f"{counted(len(todo), 'step')} to do, "
        f"{len(finished):,} already done; watching {store.location('')}"
    )
    try:
        with display_of(study, todo, costs(todo)) as display:
            looks = Looks(store, todo, display)
            _follow(study, looks)
    except KeyboardInterrupt:
        study.say("no longer watching; nothing was stopped")
        return signals.code()
    _conclude(study, looks, as_json=as_json)
    return ExitCode.INCOMPLETE if looks.missing else ExitCode.DONE


class Looks:
    """Tells what has happened since the last look.

    Args:
        todo: the steps that are watched.
        on_event: takes ``started``, ``done``, ``failed`` or ``crashed``, as in a run.

    Attributes:
        missing: those that are not finished.
        running: keys of those that a living process holds.
        failed: keys of those that failed, and are not tried again yet.
    """

    def __init__(self, store: Store, todo: Mapping[str, Step], on_event: OnEvent) -> None:
        self._store, self._on_event = store, on_event
        self.missing = dict(todo)
        self.running: set[str] = set()
        self.failed: set[str] = set()

    def look(self) -> bool:
        """Tells what is new; returns whether anything was.

        Claims are read first: who has released one has recorded by then what came of the step.
        """
        before = (len(self.missing), set(self.running), set(self.failed))
        claims = self._store.held()
        for key, record in self._store.records(self.missing).items():
            step = self.missing.pop(key)
            self.running.discard(key)
            self.failed.discard(key)
            self._on_event("done", step, record["metrics"])
        held = {key for key, step in self.missing.items() if self._is_held(step, claims)}
        for key, note in self._notes(held):
            self.running.discard(key)
            self.failed.add(key)
            self._on_event("failed", self.missing[key], note)
        for key in self.running - held:  # its process was interrupted, or died
            self._on_event("crashed", self.missing[key], {})
        new = held - self.running
        for key, step in self.missing.items():
            if key in new:
                self.failed.discard(key)
                self._on_event("started", step, {})
        self.running = held
        return before != (len(self.missing), self.running, self.failed)

    @property
    def is_stuck(self) -> bool:
        """Whether all that remains has failed or needs what has."""
        lost = set(self.failed)
        for key, step in self.missing.items():
            if not lost.isdisjoint(step.inputs.values()):
                lost.add(key)
        return lost == self.missing.keys()

    def _is_held(self, step: Step, claims: set[str]) -> bool:
        """Whether a process computes the step. Many steps may share a claim, also such as cannot
        run yet or have failed."""
        if step.claim not in claims or not self.missing.keys().isdisjoint(step.inputs.values()):
            return False
        return step.key not in self.failed or step.claim == step.key

    def _notes(self, held: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """New notes of failures."""
        noted = {name.removesuffix(".json") for name in self._store.listing(FAILURES)}
        for key in self.missing:
            if key in noted and key not in self.failed and key not in held:
                with suppress(FileNotFoundError, ValueError):  # a run that tries again removes it
                    yield key, self._store.read_json(failure_file(key))


def _follow(study: Study, looks: Looks) -> None:
    """Looks until the study has ended."""
    is_remote = "://" in study.store.uri
    between = SECONDS_BETWEEN_REQUESTS if is_remote else SECONDS_BETWEEN
    quiet_since, is_said = time.monotonic(), False
    while looks.missing:
        if looks.look() or looks.running:
            quiet_since, is_said = time.monotonic(), False
        elif time.monotonic() - quiet_since >= QUIET_SECONDS:
            if looks.is_stuck:
                return
            if not is_said:
                study.say("note: no process works on this study")
            is_said = True
        if looks.missing:
            time.sleep(between)


def _conclude(study: Study, looks: Looks, *, as_json: bool) -> None:
    """Says how the study has ended."""
    missing, failed = len(looks.missing), len(looks.failed)
    if as_json:
        done = len(study.plan.steps) - missing
        summary = {"study": study.plan.study, "done": done, "failed": sorted(looks.failed)}
        print(json.dumps({**summary, "not_done": missing}))
    elif missing:
        study.say(f"ended: {failed:,} steps failed, {missing - failed:,} need one of them")
    else:
        study.say("all steps are done")
