"""The options of the suite, which every row receives."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.sides import REPOSITORY


@dataclass(frozen=True)
class Options:
    """The options of a run.

    Attributes:
        scratch: a folder for stores and files; what it has from an earlier run is reused.
        rounds: how often each pair of sides is measured.
        threads: of torch, the same on both sides.
        quick: use tiny sizes to check that everything runs; the figures are then meaningless.
        trl_python: the interpreter of TRL's environment.
        execution: of our training jobs, as in a spec (``micro_batch_tokens``, …).
    """

    scratch: Path
    rounds: int = 5
    threads: int = 1
    quick: bool = False
    trl_python: Path = REPOSITORY / ".venv-trl" / "bin" / "python"
    execution: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def threads_here() -> int:
        """The number of cores available to this process."""
        return len(os.sched_getaffinity(0))

    def size(self, full: int, quick: int) -> int:
        """``full``, or ``quick`` in a quick run."""
        return quick if self.quick else full

    @property
    def rows_of_data(self) -> int | None:
        """How many pairs of the data to use; None for all."""
        return 160 if self.quick else None

    def limited(self, table: pa.Table) -> pa.Table:
        """The first ``rows_of_data`` rows of ``table``."""
        return table.slice(0, self.rows_of_data)
