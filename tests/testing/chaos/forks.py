"""Drivers of a study as forks of a process that has imported everything: each starts at once.

``python -m tests.testing.chaos.forks`` reads a ``Request`` or the number of a process to wait for,
one JSON value a line, and answers each with one: the number of the new process, or how it ended. A
fork runs ``python -m w2s_ray.study`` as the interpreter would, to its normal end.
"""

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from tests.testing.chaos import points
from tests.testing.specs import REPOSITORY

PRELOADED = (
    "w2s_ray.running.local",
    "w2s_ray.running.preflight",
    "w2s_ray.report.table",
    "w2s_ray.report.transfer_table",
    "w2s_ray.steps.train_heads",
    "w2s_ray.steps.train_model",
    "w2s_ray.steps.features",
    "w2s_ray.steps.prepare",
    "w2s_ray.steps.label",
    "w2s_ray.steps.evaluate",
    "w2s_ray.store.study_tables",
    "w2s_ray.training.batched_heads",
    "w2s_ray.training.fit",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
)


@dataclass(frozen=True)
class Request:
    """A driver to be started.

    Attributes:
        arguments: of the command.
        output: file to which standard output and error are appended.
        errors: file for standard error, where it is to be apart.
        start: when it begins (``time.monotonic``); others begin at the same moment.
        root: folder of the store, for points.
        point: name and occurrence of the point at which it kills itself.
        points: file to which it writes the points that it reaches.
        machine: the machine that it takes itself to be on; the real one where it is empty.
        clock: seconds by which its clock is wrong.
        lease: seconds after which claims of other machines are stale; 0: as in production.
        contention: seconds that contenders on an object store wait; 0: as in production.
        environment: variables of its own.
        modules: file to which it writes the names of modules it has imported.
    """

    arguments: Sequence[str]
    output: str
    errors: str = ""
    start: float = 0.0
    root: str = ""
    point: tuple[str, int] | None = None
    points: str = ""
    machine: str = ""
    clock: float = 0.0
    lease: float = 0.0
    contention: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    modules: str = ""


class Ended(NamedTuple):
    """The exit code of a command, or minus the signal that ended it, and what it has printed."""

    code: int
    output: str
    errors: str


class Forks:
    """The process that forks drivers, from outside."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "W2S_RAY_NO_REPORT": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, request: Request) -> int:
        """The number of a new process."""
        return int(self._ask(asdict(request)))

    def run(self, *arguments: object, folder: Path) -> Ended:
        """How the command ends; what it prints goes through files in ``folder``."""
        return self.ended(self.begin(*arguments, folder=folder), folder)

    def begin(self, *arguments: object, folder: Path) -> int:
        """The number of a process that runs the command; ``ended`` waits for it."""
        output, errors = folder / "output", folder / "errors"
        for file in (output, errors):
            file.unlink(missing_ok=True)
        words = [str(argument) for argument in arguments]
        return self.start(Request(words, str(output), errors=str(errors)))

    def ended(self, pid: int, folder: Path) -> Ended:
        """How a process that ``begin`` started with this folder ends."""
        code = self.wait(pid)
        return Ended(code, (folder / "output").read_text(), (folder / "errors").read_text())

    def wait(self, pid: int) -> int:
        """How the process ended: its exit code, or minus the signal that ended it."""
        return int(self._ask(pid))

    def preload(self, modules: Path) -> None:
        """Imports, once for all forks, what a driver has imported."""
        self._ask({"preload": str(modules)})

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def _ask(self, value: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(value), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def serve() -> None:
    """Answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for module in PRELOADED:
        import_module(module)
    for line in iter(sys.stdin.readline, ""):
        value = json.loads(line)
        if isinstance(value, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(value, 0)[1])
        elif "preload" in value:
            answer = _preload(Path(value["preload"]))
        else:
            answer = os.fork()
            if not answer:
                answers.close()
                return _drive(Request(**value))
        print(answer, file=answers, flush=True)
    return None


def _preload(modules: Path) -> int:
    for name in modules.read_text().split():
        if name not in sys.modules:
            import_module(name)
    return 0


def _drive(request: Request) -> None:
    """Runs the command in this process, which ends as the command does."""
    output = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(os.open(request.errors, os.O_WRONLY | os.O_CREAT) if request.errors else output, 2)
    os.environ |= request.environment
    _shift(request)
    if request.point:
        points.kill_at(request.root, *request.point)
    if request.points:
        points.write_points(request.root, request.points)
    sys.argv = ["study", *request.arguments]
    while time.monotonic() < request.start:
        pass
    try:
        runpy.run_module("w2s_ray.study", run_name="__main__", alter_sys=True)
    finally:
        if request.modules:
            names = [n for n, m in sys.modules.items() if getattr(m, "__spec__", None)]
            keep = [n for n in names if n != "w2s_ray.study" and "__main__" not in n]
            Path(request.modules).write_text("\n".join(keep))


def _shift(request: Request) -> None:
    """Gives the process another machine, another clock, a shorter lease."""
    from w2s_ray.store import claims, heartbeat, object_claims, owners

    if request.machine:
        owners._machine = lambda: request.machine  # type: ignore[assignment]
    if request.clock:
        now = time.time
        time.time = lambda: now() + request.clock
    if request.lease:
        claims.STALE_SECONDS = request.lease
        heartbeat.HEARTBEAT_SECONDS = request.lease / 10
    if request.contention:
        object_claims.CONTENTION_SECONDS = request.contention


if __name__ == "__main__":
    serve()
