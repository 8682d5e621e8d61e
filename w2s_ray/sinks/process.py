"""The process of one sink: ``python -m w2s_ray.sinks.process NAME STUDY FOLDER``.

It reads messages from standard input until that ends. What the library prints or how it crashes
stays in here; the one line on standard output says why it failed, if it did.
"""

import json
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from w2s_ray.errors import line_of
from w2s_ray.sinks.messages import Backend, CellRun, Run

CLASSES = {
    "tensorboard": "TensorBoard",
    "mlflow": "Mlflow",
    "wandb": "Wandb",
    "trackio": "Trackio",
}
UNFINISHED = "unfinished"  # status of a cell that was running when the study ended


def write(backend: Backend, messages: Iterable[str]) -> None:
    """Does what the messages say; runs that are still open at their end are unfinished."""
    runs: dict[str, Run] = {}
    for line in messages:
        message = json.loads(line)
        if message["do"] == "open":
            cell = CellRun(message["id"], message["name"], message["values"])
            runs[cell.id] = backend.open(cell)
        elif message["do"] == "log":
            runs[message["run"]].log(message["numbers"], message["step"])
        else:
            runs.pop(message["run"]).finish(message["summary"], message["status"])
    for run in runs.values():
        run.finish({}, UNFINISHED)
    backend.close()


def main(name: str, study: str, folder: str) -> int:
    """Writes what standard input says to the sink called ``name``."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not the answer
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        module = import_module(f"w2s_ray.sinks.{name}")
        backend: Backend = getattr(module, CLASSES[name])(study, Path(folder))
        write(backend, sys.stdin)
    except Exception as error:
        print(line_of(error), file=answer, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
