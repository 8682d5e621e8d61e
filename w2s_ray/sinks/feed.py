"""The study's side of its sinks: what is sent for which event, to one process for each sink.

A sink is never the truth: the store is. So nothing here waits for one while the study runs, and a
sink that fails is said in one line and left out from then on.
"""

import math
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from w2s_ray.errors import InputError, one_line
from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.plan.step import Step
from w2s_ray.sinks import messages
from w2s_ray.sinks.messages import CellRun
from w2s_ray.store.names import SINKS
from w2s_ray.training.progress import Throttle

PACKAGES = {
    "tensorboard": ("tensorboardX",),
    "mlflow": ("mlflow", "sqlalchemy"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
PROGRESS_SECONDS = 5.0  # between two reports of a cell
CLOSE_SECONDS = 300.0  # for a sink to write what it has been sent
INTERRUPTED_SECONDS = 10.0
_OF_PROGRESS = ("loss", "tokens_per_second")
_NO_NUMBERS = ("schema_version", "seed")


def folder_beside(store_uri: str) -> Path:
    """Where sinks write: ``sinks/`` in a store on a disk, else ``w2s_ray_sinks/`` here."""
    if "://" in store_uri:
        return Path("w2s_ray_sinks").absolute()
    return Path(store_uri).absolute() / SINKS


class Sinks:
    """Sends the events of a study to its sinks, for as long as the context lasts.

    Args:
        names: of the sinks.
        store_uri: each writes in a folder with its name, below ``folder_beside`` this.
        say: takes a line for the user.
    """

    def __init__(
        self, names: Iterable[str], plan: Plan, store_uri: str, say: Callable[[str], None]
    ) -> None:
        self._channels = [
            _Channel(name, plan.study, folder_beside(store_uri) / name, say)
            for name in dict.fromkeys(names)
        ]
        # By key of an own step. Cells with one student are one run.
        self._cells: dict[str, CellRun] = {}
        for cell in plan.cells if self._channels else ():
            run = _run_of(cell, plan)
            self._cells.setdefault(cell.keys["student"], run)
            self._cells.setdefault(cell.keys["student_evaluate"], run)
        self._open: dict[str, int] = {}  # by id: the last optimizer step that was sent
        self._throttles: dict[str, Throttle] = {}

    def refuse_missing(self) -> None:
        """Checks that the packages of the sinks are installed.

        Raises:
            InputError: one is not.
        """
        for name in (channel.name for channel in self._channels):
            for package in PACKAGES[name]:
                if find_spec(package) is None:
                    raise InputError(
                        f"execution.sinks: {name} needs the package {package}, which is not "
                        "installed (pip install 'w2s-ray[sinks]'; docs/monitoring.md)",
                        ("execution", "sinks"),
                    )

    def __enter__(self) -> Self:
        return self

    def __call__(self, event: str, step: Step, numbers: dict[str, Any]) -> None:
        cell = self._cells.get(step.key)
        if cell is None or event == "crashed":
            return
        if event == "done" and step.kind.name == "student":
            self._log(cell, "train", numbers, numbers.get("steps", 0))
        elif event == "done":
            self._log(cell, "test", numbers, self._open.get(cell.id, 0))
        # Cells that are fused by the thousand share their progress: it is that of none of them.
        elif event == "progress" and step.fusion is None and self._throttle(cell).due():
            shown = {name: numbers[name] for name in _OF_PROGRESS if name in numbers}
            self._log(cell, "train", shown, numbers.get("step", 0))
        elif event == "failed":
            self._opened(cell)

    def conclude(self, results: pa.Table) -> None:
        """Sends the rows of the results whose cells ran: the summary of each run."""
        for row in results.to_pylist() if self._open else ():
            cell = self._cells.get(row["key"])
            if cell is not None and cell.id in self._open:
                summary = {name: row[name] for name in row if name not in _NO_NUMBERS}
                self._send(messages.finished(cell.id, _floats(summary), row["status"]))
                del self._open[cell.id]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = CLOSE_SECONDS if kind is None else INTERRUPTED_SECONDS
        for channel in self._channels:
            channel.end_input()
        for channel in self._channels:
            channel.close(seconds)

    def _throttle(self, cell: CellRun) -> Throttle:
        return self._throttles.setdefault(cell.id, Throttle(PROGRESS_SECONDS, at_once=True))

    def _log(self, cell: CellRun, part: str, numbers: Mapping[str, Any], step: int) -> None:
        self._opened(cell)
        step = max(step, self._open[cell.id])  # a step that resumed is behind
        self._open[cell.id] = step
        named = {f"{part}/{name}": number for name, number in _floats(numbers).items()}
        if named:
            self._send(messages.logged(cell.id, named, step))

    def _opened(self, cell: CellRun) -> None:
        if cell.id not in self._open:
            self._open[cell.id] = 0
            self._send(messages.opened(cell))

    def _send(self, line: str) -> None:
        for channel in self._channels:
            channel.send(line)


class _Channel:
    """The process of one sink; it is started by the first line."""

    def __init__(self, name: str, study: str, folder: Path, say: Callable[[str], None]) -> None:
        self.name, self._say = name, say
        self._command = [sys.executable, "-m", "w2s_ray.sinks.process", name, study, str(folder)]
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._feed, name=f"sink-{name}", daemon=True)
        self._failure = ""

    def send(self, line: str) -> None:
        """Queues a line; never waits."""
        if not self._thread.is_alive() and self._process is None and not self._failure:
            self._start()
        self._lines.put(line)

    def end_input(self) -> None:
        self._lines.put(None)

    def close(self, seconds: float) -> None:
        """Waits until the process has written everything, at most ``seconds``."""
        if self._process is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._process.kill()
            self._thread.join()
            self._failure = f"not everything was written in {seconds:.0f} s"
        if self._failure:
            self._say(f"note: the sink {self.name} is incomplete: {self._failure}")

    def _start(self) -> None:
        # In a session of its own: Ctrl-C is for the study, which then ends the sink's input.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._thread.start()

    def _feed(self) -> None:
        """Passes the lines on, and keeps what the process says at its end."""
        assert self._process is not None and self._process.stdin and self._process.stdout
        try:
            with self._process.stdin as pipe:
                while (line := self._lines.get()) is not None:
                    pipe.write(line + "\n")
                    pipe.flush()
        except OSError:  # it has ended already, and says why
            pass
        answer = self._process.stdout.read()
        if self._process.wait() and not self._failure:
            self._failure = one_line(answer) or f"its process ended with {self._process.returncode}"


def _run_of(cell: Cell, plan: Plan) -> CellRun:
    key = cell.keys["student"]
    return CellRun(key, f"{plan.steps[key].slug}-{key[:8]}", cell.values)


def _floats(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(number)
        for name, number in numbers.items()
        if isinstance(number, int | float) and math.isfinite(number)
    }
