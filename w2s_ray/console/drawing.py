"""The state of a run as one line, or as the live display of a terminal."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from w2s_ray.console.lines import duration
from w2s_ray.console.terminal import Escaped
from w2s_ray.running.run_state import Line, RunState

MOST_RUNNING = 2  # named in one line of text
BAR_WIDTH = 24


def summary(state: RunState, names: Mapping[str, str]) -> str:
    """The state as one line."""
    lines = state.lines()
    running = "; ".join(
        ", ".join(filter(None, (_name(line, names), line.share, line.loss, line.speed)))
        for line in lines[:MOST_RUNNING]
    )
    more = f"; {len(lines) - MOST_RUNNING:,} more" if len(lines) > MOST_RUNNING else ""
    return f"{_counts(state)}, {_times(state)}" + (f" | {running}{more}" if running else "")


def drawn(
    state: RunState, names: Mapping[str, str], cells: Sequence[str], cells_done: int
) -> Escaped:
    """The live display: a bar, what runs, and the cells that finished last, of so many."""
    head = Table.grid(padding=(0, 1))
    share = state.share
    head.add_row(
        ProgressBar(total=1.0, completed=share, width=BAR_WIDTH),
        f"{100.0 * share:.0f} %",
        Text(_counts(state), "red" if state.failed else "green"),
        _times(state),
    )
    table = Table.grid(padding=(0, 2))
    now = time.monotonic()
    for line in state.lines():
        seconds = now - line.underway.started
        name = Text(_name(line, names), no_wrap=True, overflow="ellipsis")
        table.add_row(name, line.share, line.loss, line.speed, duration(seconds))
    latest = [Text(f"cell {cell}", "dim", no_wrap=True) for cell in cells]
    if (more := cells_done - len(cells)) > 0:
        latest.insert(0, Text(f"{more:,} cells before", "dim"))
    return Escaped(Group(head, table, *latest))


def _name(line: Line, names: Mapping[str, str]) -> str:
    step, count = line.underway.step, len(line.underway.steps)
    if count > 1:
        return f"{count:,} {step.kind.plural}"
    return f"{step.kind} {names.get(step.key, step.slug)}"


def _counts(state: RunState) -> str:
    failed = f", {len(state.failed):,} failed" if state.failed else ""
    blocked = f" ({len(state.blocked):,} blocked)" if state.blocked else ""
    return (
        f"{state.done:,}/{len(state.todo):,} steps done, {state.running:,} running, "
        f"{state.waiting:,} waiting{failed}{blocked}"
    )


def _times(state: RunState) -> str:
    left = state.time_left()
    shown = "unknown" if left is None else f"{'≥ ' * left.is_bound}{duration(left.seconds)}"
    return f"elapsed {duration(state.elapsed)}, left {shown}"
