"""A side of a comparison in a process of its own, which lives as long as the comparison.

It prepares once, says that it is ready, and then does what it is asked, one request after the
other, so that rounds alternate and nothing of the start is counted. Requests and answers are lines
of JSON. Both halves stand here; the child's half needs the standard library alone, because a side
may run in another environment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[1]
MARK = "answer: "


class Side:
    """The parent's half: ``with Side(module, settings) as side: side.ask(steps=8)``.

    Args:
        module: of ``benchmarks``, run with ``-m``.
        settings: JSON values, its one argument.
        threads: of torch, in the child.
        python: the interpreter of its environment.

    Attributes:
        told: its last answer; at first, what it said when it was ready.
    """

    def __init__(
        self,
        module: str,
        settings: dict[str, Any],
        *,
        threads: int,
        python: Path | str | None = None,
    ) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [
                str(python or sys.executable),
                "-m",
                f"benchmarks.{module}",
                json.dumps(settings),
            ],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """What the child answers to ``request``."""
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        self.told = self._read()
        return self.told

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return answer
        raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()


def settings() -> dict[str, Any]:
    """The child's half: what the parent handed over."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def answer(**values: Any) -> None:
    """The child's half: says that it is ready, or what a request gave."""
    print(MARK + json.dumps(values), flush=True)


def requests() -> Iterator[dict[str, Any]]:
    """The child's half: what it is asked, until the parent goes away."""
    for line in sys.stdin:
        yield json.loads(line)
