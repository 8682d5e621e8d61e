"""What the study tells the process of a sink: one JSON object a line."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

PROJECT = "w2s_ray"  # in backends that have projects; the study is a group in it
Numbers = Mapping[str, float]


class CellRun(NamedTuple):
    """A cell, which is one run of every sink.

    Attributes:
        id: the same whenever the study runs again.
        name: for people.
        values: the cell's values of the axes.
    """

    id: str
    name: str
    values: Mapping[str, Any]


class Run(Protocol):
    """An open run of a backend."""

    def log(self, numbers: Numbers, step: int) -> None:
        """Adds numbers at an optimizer step."""

    def finish(self, summary: Numbers, status: str) -> None:
        """Ends the run.

        Args:
            summary: the numbers of the cell's row in the results; empty if there is none.
            status: of the cell, as in the results.
        """


class Backend(Protocol):
    """Where a sink writes; the runs of one study."""

    def open(self, cell: CellRun) -> Run:
        """A run for the cell: the one of an earlier run of the study, where that can be found."""

    def close(self) -> None:
        """Ends what is left, after all runs have been finished."""


def opened(cell: CellRun) -> str:
    return json.dumps({"do": "open", **cell._asdict()}, default=str)


def logged(run: str, numbers: Numbers, step: int) -> str:
    return json.dumps({"do": "log", "run": run, "numbers": numbers, "step": step})


def finished(run: str, summary: Numbers, status: str) -> str:
    return json.dumps({"do": "finish", "run": run, "summary": summary, "status": status})
