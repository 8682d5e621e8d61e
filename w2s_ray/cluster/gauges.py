"""Metrics of a study and of its running steps, for the Ray dashboard and any Prometheus.

Ray 2.60 exports a gauge once for each time it is set, and forgets the value after two report
intervals (20 s). So a series of a step vanishes by itself when the step ends, and every number that
is still true is set again, at least every ``REFRESH_SECONDS``. Ray puts ``ray_`` before each name.
"""

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from ray.util.metrics import Gauge

from w2s_ray.plan.step import Step
from w2s_ray.running.run_state import Counts

OF_STEPS = {
    "loss": "loss of a running step in nats",
    "tokens_per_second": "real tokens that a running step trains on in a second",
    "progress": "part of a running step that is done, 0 to 1",
    "running_seconds": "seconds for which a step has been running",
}
OF_STUDIES = {
    "steps": "steps of the study, by state",
    "cells": "cells of the study, by state",
    "gpu_hours": "GPU-hours of this run; a fused step counts once it has ended",
    "elapsed_seconds": "seconds since this run began",
    "left_seconds": "estimated seconds until the study is finished",
}
WITH_STATES = ("steps", "cells")
PREFIX = "w2s_ray_"
MIN_STEP_SECONDS = 5.0  # a shorter step would end before the next scrape
REFRESH_SECONDS = 5.0


class Gauges:
    """The gauges ``w2s_ray_<name>`` of this process, tagged by study, kind and step."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._gauges = {
            name: Gauge(PREFIX + name, text, tag_keys=("study", "kind", "step"))
            for name, text in OF_STEPS.items()
        }
        self._key, self._newest = "", dict[str, Any]()

    def show(self, step: Step, numbers: Mapping[str, Any], seconds: float) -> None:
        """Exports the newest numbers of a step that has run for ``seconds``, also unchanged ones.

        Called for as long as the step runs, so that a step that says nothing keeps its series.
        """
        if step.key != self._key:
            self._key, self._newest = step.key, {}
        self._newest.update(numbers, running_seconds=seconds)
        if seconds < MIN_STEP_SECONDS:
            return
        values = self._newest
        if values.get("steps"):
            values["progress"] = values.get("step", 0) / values["steps"]
        tags = {"study": self._study, "kind": step.kind.name, "step": f"{step.slug}-{step.key}"}
        for name, gauge in self._gauges.items():
            if name in values:
                gauge.set(float(values[name]), tags)


class StudyGauges:
    """Exports the counts of a study for as long as the context lasts, from the driver.

    Args:
        read: returns the counts; called in a thread of its own.
    """

    def __init__(self, study: str, read: Callable[[], Counts]) -> None:
        self._study, self._read = study, read
        self._gauges = {
            name: Gauge(PREFIX + name, text, tag_keys=("study", *_state_key(name)))
            for name, text in OF_STUDIES.items()
        }
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="study-gauges", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _refresh(self) -> None:
        self._show()
        while not self._ended.wait(REFRESH_SECONDS):
            self._show()
        self._show()  # a cluster that stays up exports the end of the study, too

    def _show(self) -> None:
        counts = self._read()
        for name, states in (("steps", counts.steps), ("cells", counts.cells)):
            for state, count in states.items():
                self._gauges[name].set(count, {"study": self._study, "state": state})
        tags = {"study": self._study}
        self._gauges["gpu_hours"].set(counts.gpu_hours, tags)
        self._gauges["elapsed_seconds"].set(counts.seconds_elapsed, tags)
        if counts.seconds_left is not None:
            self._gauges["left_seconds"].set(counts.seconds_left, tags)


def _state_key(name: str) -> tuple[str, ...]:
    return ("state",) if name in WITH_STATES else ()
