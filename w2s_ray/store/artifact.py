"""An artifact as its readers see it, whether it has a folder of its own or is one of a bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.contents import Tensors, read_array, read_parquet, read_tensors
from w2s_ray.store.backend import StoreError
from w2s_ray.store.bundles import Bundle
from w2s_ray.store.records import damage, holds, recorded_files


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished step: its files on this machine, and its record.

    Attributes:
        folder: its files; ``file``, ``table``, ``array`` and ``tensors`` are the ways to read them.
        error: the error for damage of the artifact, from what differs.
        bundle: opens the bundle whose files it shares; None: it has all files itself.
    """

    folder: Path
    record: dict[str, Any]
    error: Callable[[str], StoreError]
    bundle: Callable[[], Bundle] | None = None

    def has(self, name: str) -> bool:
        """Whether the artifact has a content or a file of this name."""
        return holds(self.record, name)

    def file(self, name: str) -> Path:
        """The path of a file whose content is what it was when it was committed.

        Read at once: the digest is compared once per process, and again if the file changes.

        Raises:
            FileNotFoundError: The artifact has no such file.
            StoreError: The file is damaged.
        """
        recorded = recorded_files(self.record)
        if name not in recorded:
            raise FileNotFoundError(f"{self.folder} has no file {name}")
        if problem := damage(self.folder, {name: recorded[name]}, with_digests=True):
            raise self.error(problem)
        return self.folder / name

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table; all columns, or only ``columns``. Errors as of ``file``."""
        if (bundle := self._shared(name)) is None:
            return read_parquet(self.file(name), columns)
        table = bundle.table(self.record, name)
        return table if columns is None else table.select(list(columns))

    def array(self, name: str) -> NDArray[np.generic]:
        """An array, memory-mapped where it has a file of its own. Errors as of ``file``."""
        bundle = self._shared(name)
        return read_array(self.file(name)) if bundle is None else bundle.array(self.record, name)

    def tensors(self, name: str) -> Tensors:
        """Named tensors. Errors as of ``file``."""
        bundle = self._shared(name)
        return (
            read_tensors(self.file(name)) if bundle is None else bundle.tensors(self.record, name)
        )

    def _shared(self, name: str) -> Bundle | None:
        """The bundle, if the content of this name lies in a file that its members share."""
        if self.bundle is None or name not in self.record.get("contents", ()):
            return None
        return self.bundle()
