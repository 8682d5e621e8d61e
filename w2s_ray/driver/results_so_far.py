"""``results/`` while a study runs, so that a notebook need not wait for its end.

The table is written after a cell has finished, at most once a minute and in at most a twentieth of
the time, by a thread of its own. Cells that are not done have the status ``pending``, and the
table's metadata say ``unfinished`` until the run has concluded.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from w2s_ray.driver.study import Study
from w2s_ray.errors import line_of
from w2s_ray.plan.step import Step

SECONDS_BETWEEN = 60.0
SHARE_OF_TIME = 0.05
SECONDS_TO_END = 30.0  # that the last writing may take when the run is over


def write_so_far(study: Study) -> str | None:
    """Writes the results so far and returns their path; None, with the reason said, if it cannot.

    They are written again at the end, so no fault here may end a run.
    """
    from w2s_ray.store.study_tables import write_results_so_far

    plan = study.plan
    try:
        return write_results_so_far(study.store, plan.study, study.cells, plan.select, plan.task)
    except Exception as error:
        study.say(f"note: the results so far were not written: {line_of(error)}")
        return None


class ResultsSoFar:
    """Told of every event of a run, it writes the results now and then.

    Args:
        write: writes them.
        between: least seconds from one writing to the next, and from the start to the first.
        clock: tells the seconds.
    """

    def __init__(
        self,
        study: Study,
        write: Callable[[Study], object] = write_so_far,
        between: float = SECONDS_BETWEEN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._write, self._between, self._clock = study, write, between, clock
        self._ends = {cell.keys["student_evaluate"] for cell in study.plan.cells}
        self._next = clock() + between
        self._has_new = False
        self._writing: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writing is not None:
            self._writing.join(SECONDS_TO_END)

    def __call__(self, event: str, step: Step, numbers: dict[str, Any]) -> None:
        """Takes an event of the run."""
        self._has_new |= event == "failed" or (event == "done" and step.key in self._ends)
        is_free = self._writing is None or not self._writing.is_alive()
        if self._has_new and is_free and self._clock() >= self._next:
            self._has_new = False
            self._writing = threading.Thread(target=self._work, name="results", daemon=True)
            self._writing.start()

    def _work(self) -> None:
        began = self._clock()
        self._write(self._study)
        took = self._clock() - began
        self._next = began + max(self._between, took / SHARE_OF_TIME)
