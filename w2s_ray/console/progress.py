"""The progress of a study: steps done, running, waiting, failed, and the time remaining.

On a terminal the display is live. In a pipe or a log there is a line each half minute and at each
event; events of one moment (a thousand heads trained together) are one line.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.live import Live

from w2s_ray.console.cell_scores import CellScores
from w2s_ray.console.drawing import drawn, summary
from w2s_ray.console.lines import Display, Lines
from w2s_ray.plan.step import Step
from w2s_ray.running.run_state import RunState
from w2s_ray.store.backend import DAMAGED, StoreError

OF_DAMAGE = f"{StoreError.__name__}: "  # begins the error of a step whose input is damaged
SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_EVENTS = 1.0  # those in between are told together
MOST_ALIKE = 3  # events of one moment and kind that have a line each
MOST_FAILURES = 20  # that are told one by one
LATEST_CELLS = 3  # on the live display


class ProgressDisplay:
    """Shows the events of a run; can be called from any thread.

    Args:
        state: of the run, before its first event.
        names: of the steps by key (``plan.names``).
        scores: of the study's cells; None: they are not shown.
        explain: the command that explains a failure, up to the key; "" if there is none.
    """

    def __init__(
        self,
        state: RunState,
        lines: Lines,
        names: Mapping[str, str],
        scores: CellScores | None = None,
        explain: str = "",
    ) -> None:
        self.state = state
        self._lines, self._names, self._scores = lines, names, scores
        self._explain = explain
        self._damages: set[str] = set()
        self._said: set[str] = set()
        self._cells: list[str] = []  # the latest
        self._cells_done = 0
        self._events: dict[tuple[str, str], list[str]] = defaultdict(list)  # not told yet
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._tells = lines.display in (Display.PLAIN, Display.LOG)
        self._live = Live(
            get_renderable=self._drawn,
            console=lines.console,
            refresh_per_second=4,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self._lines.display is Display.RICH and self.state.todo:
            self._live.start()
        if self._tells:
            threading.Thread(target=self._tell, name="progress", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._live.stop()
        self._tell_events()
        if (more := len(self.state.failed) - MOST_FAILURES) > 0:
            self._lines(f"failed: {more:,} more; --status lists them")

    def __call__(self, event: str, step: Step, numbers: dict[str, Any]) -> None:
        self.state(event, step, numbers)
        getattr(self, f"_{event}")(step, numbers)

    def _started(self, step: Step, numbers: dict[str, Any]) -> None:
        self._note("started", step)

    def _progress(self, step: Step, numbers: dict[str, Any]) -> None:
        if (line := numbers.get("waiting", "")) and line not in self._said:
            self._said.add(line)  # one for all steps of a group
            self._lines(line)
        if "resumed_at" in numbers and step.key not in self._said:
            self._said.add(step.key)
            done, steps = numbers["resumed_at"], numbers["steps"]
            self._lines(f"resumed  {self._named(step)} after update {done:,} of {steps:,}")

    def _crashed(self, step: Step, numbers: dict[str, Any]) -> None:
        if numbers:  # of the first of a group
            more = f" and {numbers['steps'] - 1:,} more" if numbers["steps"] > 1 else ""
            self._lines(f"note: {self._named(step)}{more} will run again: {numbers['error']}")

    def _done(self, step: Step, numbers: dict[str, Any]) -> None:
        if numbers.get("shares_prompts") is False:
            self._lines(
                f"note: {self._named(step)}: the model cannot share prompts; each text is one row"
            )
        cells = self._scores.note(step.key, numbers) if self._scores is not None else []
        self._cells = [*self._cells, *cells][-LATEST_CELLS:]
        self._cells_done += len(cells)
        for cell in cells:
            self._note("cell", step, cell)
        if not cells:
            self._note("done", step)

    def _failed(self, step: Step, numbers: dict[str, Any]) -> None:
        error = numbers["error"]
        if error.startswith(OF_DAMAGE):  # the step runs again; each damaged artifact is said once
            folder, is_damaged, _ = error.partition(DAMAGED)
            if is_damaged and folder not in self._damages:
                self._damages.add(folder)
                self._lines(error.removeprefix(OF_DAMAGE))
            return
        if len(self.state.failed) > MOST_FAILURES:
            return
        self._lines(f"failed: {self._named(step)} ({step.key}): {error}", style="red")
        if self._explain:
            self._lines(f"        its traceback: {self._explain} {step.key[:8]}")

    def _named(self, step: Step) -> str:
        return f"{step.kind} {self._names.get(step.key, step.slug)}"

    def _note(self, event: str, step: Step, text: str = "") -> None:
        """Keeps an event until those of this moment are told."""
        if self._tells:
            with self._lock:
                kind = "" if text else step.kind.plural
                self._events[event, kind].append(text or self._named(step))

    def _tell(self) -> None:
        """Tells events and the state of the run until it ends."""
        ticks = 0
        while not self._ended.wait(SECONDS_BETWEEN_EVENTS):
            self._tell_events()
            ticks += 1
            if ticks * SECONDS_BETWEEN_EVENTS % SECONDS_BETWEEN_LINES == 0:
                self._lines(summary(self.state, self._names))

    def _tell_events(self) -> None:
        with self._lock:
            events, self._events = self._events, defaultdict(list)
        for (event, kind), texts in events.items():
            if len(texts) <= MOST_ALIKE:
                for text in texts:
                    self._lines(f"{event:<8} {text}")
            else:
                what = f"{len(texts):,} {kind or 'cells'}"
                self._lines(f"{event:<8} {what}: first {texts[0]}, last {texts[-1]}")

    def _drawn(self) -> Any:
        return drawn(self.state, self._names, self._cells, self._cells_done)
