"""Progress of a study: steps done, running, waiting, failed, and the time remaining.

Fused steps (``plan.fusion``) share one line. On a terminal the display is live; elsewhere (CI, a
log file) only failures are printed.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from w2s_ray.masking import masked
from w2s_ray.plan.step import Step
from w2s_ray.store.backend import DAMAGED, StoreError

OF_DAMAGE = f"{StoreError.__name__}: "  # begins the error of a step whose input is damaged


class Running(NamedTuple):
    """A running step.

    Attributes:
        started: by ``time.monotonic``.
        numbers: its newest.
    """

    step: Step
    started: float
    numbers: dict[str, Any]


class ProgressDisplay:
    """Shows the events of a run; can be called from any thread.

    Args:
        todo: the steps of this run.
        already_done: number of steps that were finished in the store before.
    """

    def __init__(self, todo: Mapping[str, Step], already_done: int, console: Console) -> None:
        self._todo = todo
        self._already_done = already_done
        self._console = console
        self._remaining = Counter(step.kind.name for step in todo.values())
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._running: dict[str, Running] = {}
        self._children: dict[str, list[str]] = defaultdict(list)
        for key, step in todo.items():
            for parent in step.inputs.values():
                self._children[parent].append(key)
        self.done = 0
        self.failed: dict[str, str] = {}
        self.blocked: set[str] = set()
        self._damages: set[str] = set()
        self._lines_said: set[str] = set()
        self._live = Live(
            get_renderable=self._draw, console=console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal and len(self._todo):
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __call__(self, event: str, step: Step, numbers: dict[str, Any]) -> None:
        if event == "started":
            self._running[step.key] = Running(step, time.monotonic(), {})
            return
        if event == "progress":
            numbers = dict(numbers)
            if (line := numbers.pop("waiting", "")) and line not in self._lines_said:
                self._lines_said.add(line)  # one for all steps of a group
                self._say(line)
            if step.key in self._running:
                self._running[step.key].numbers.update(numbers)
            return
        started = self._running.pop(step.key, Running(step, time.monotonic(), {})).started
        self._remaining[step.kind.name] -= 1
        if event == "done":
            self.done += 1
            # Of a fused step: its share of the time.
            seconds = numbers.get("seconds", time.monotonic() - started)
            self._seconds[step.kind.name].append(seconds)
            if numbers.get("shares_prompts") is False:
                self._say(
                    f"note: {step.slug}: the model cannot share prompts; each text is one row"
                )
            return
        self.failed[step.key] = numbers["error"]
        blocked = self._descendants(step.key) - self.blocked
        self.blocked |= blocked
        self._remaining.subtract(self._todo[key].kind.name for key in blocked)
        error = numbers["error"]
        if error.startswith(OF_DAMAGE):  # the step runs again; each damaged artifact is said once
            folder, is_damaged, _ = error.partition(DAMAGED)
            if is_damaged and folder not in self._damages:
                self._damages.add(folder)
                self._say(error.removeprefix(OF_DAMAGE))
            return
        self._say(f"failed: {step.kind} {step.slug}-{step.key}: {error}", style="red")

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(
            masked(text), style=style, markup=False, highlight=False, soft_wrap=True
        )

    @property
    def time_left(self) -> str:
        """Time remaining, from the mean time of each kind; ``≥`` while a kind has none finished."""
        seconds = 0.0
        unknown = False
        for kind, count in self._remaining.items():
            known = self._seconds[kind]
            unknown = unknown or (count > 0 and not known)
            seconds += count * sum(known) / len(known) if known else 0.0
        seconds /= max(1, len(self._lines()))
        minutes, rest = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{'≥ ' if unknown else ''}{hours}:{minutes:02}:{rest:02}"

    def _draw(self) -> Group:
        waiting = len(self._todo) - self.done - len(self.failed) - len(self.blocked)
        waiting -= len(self._running)
        head = Text.assemble(
            (f"{self.done}/{len(self._todo)} steps done", "bold green"),
            f"  {len(self._running)} running  {waiting} waiting  ",
            (f"{len(self.failed)} failed", "red" if self.failed else ""),
            f" ({len(self.blocked)} blocked)" if self.blocked else "",
            f"  {self._already_done} from the store  time left {self.time_left}",
        )
        table = Table.grid(padding=(0, 2))
        for together in self._lines():
            step, started, numbers = together[0]
            share = ""
            if numbers.get("steps"):
                share = f"{numbers['step']}/{numbers['steps']} {numbers.get('unit', 'steps')}"
            loss = f"loss {numbers['loss']:.4f}" if "loss" in numbers else ""
            rate = numbers.get("tokens_per_second")
            table.add_row(
                step.kind.name,
                step.slug if len(together) == 1 else f"{len(together):,} {step.kind.plural}",
                share,
                loss,
                f"{rate:.0f} tokens/s" if rate else "",
                f"{time.monotonic() - started:.0f} s",
            )
        return Group(head, table)

    def _lines(self) -> list[list[Running]]:
        """The running steps, one list for each line of the display."""
        lines: dict[Any, list[Running]] = {}
        for running in list(self._running.values()):
            step = running.step
            fusion = step.fusion
            lines.setdefault((step.kind.name, fusion) if fusion else step.key, []).append(running)
        return list(lines.values())

    def _descendants(self, key: str) -> set[str]:
        """Keys of all steps below ``key``."""
        below: set[str] = set()
        stack = [key]
        while stack:
            for child in self._children[stack.pop()]:
                if child not in below:
                    below.add(child)
                    stack.append(child)
        return below
