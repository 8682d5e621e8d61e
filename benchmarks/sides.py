"""A side of a comparison in its own process, which lives as long as the comparison.

The process prepares once, reports that it is ready, and then serves one request after another, so
that rounds can alternate and no start-up is counted. Requests and answers are lines of JSON. This
module has the parent's and the child's half; the child's half needs only the standard library,
because a side may run in another environment.
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
        settings: JSON values, its only argument.
        threads: of torch, in the child.
        python: the interpreter of its environment.

    Attributes:
        last: its last answer; before the first request, what it reported when it was ready.
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
        self.last = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send ``request`` and return the child's answer."""
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        self.last = self._read()
        return self.last

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
    """The child's half: the settings from the parent."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def answer(**values: Any) -> None:
    """The child's half: report that it is ready, or the result of a request."""
    print(MARK + json.dumps(values), flush=True)


def requests() -> Iterator[dict[str, Any]]:
    """The child's half: the requests, until the parent closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)
