"""What the person who runs the suite may choose; handed to every row."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.sides import REPOSITORY


@dataclass(frozen=True)
class Options:
    """Attributes:
    scratch: a folder for stores and files; what is found there from before is used again.
    rounds: times that a pair of sides is measured.
    threads: of torch, the same on both sides.
    quick: as small as can be, to see that all runs; the figures then mean nothing.
    trl_python: the interpreter of TRL's environment.
    execution: of our training jobs, as in a spec (``micro_batch_tokens`` and the like).
    """

    scratch: Path
    rounds: int = 5
    threads: int = 1
    quick: bool = False
    trl_python: Path = REPOSITORY / ".venv-trl" / "bin" / "python"
    execution: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def threads_here() -> int:
        """All cores that this process may use."""
        return len(os.sched_getaffinity(0))

    def size(self, full: int, quick: int) -> int:
        """How much of something."""
        return quick if self.quick else full

    @property
    def rows_of_data(self) -> int | None:
        """How many pairs of the data are used; None: all."""
        return 160 if self.quick else None

    def limited(self, table: pa.Table) -> pa.Table:
        """``table``, or the beginning of it."""
        return table.slice(0, self.rows_of_data)
