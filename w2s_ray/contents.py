"""Contents of an artifact's files: tables, arrays and named tensors, and their file formats.

The suffix of a file's name gives the format: ``.parquet`` a table, ``.npy`` an array,
``.safetensors`` named tensors. Everything else in an artifact (weights of a model, features) is
written to its folder directly.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Tensors: TypeAlias = Mapping[str, NDArray[np.generic]]
Content: TypeAlias = pa.Table | NDArray[np.generic] | Tensors


def write_content(path: Path, content: Content) -> None:
    """Writes a table, an array or named tensors, in the format of its type."""
    if isinstance(content, pa.Table):
        pq.write_table(content, path, use_dictionary=False)  # almost no value repeats
    elif isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=False)
    else:
        from safetensors.numpy import save_file

        # It writes the memory as it lies.
        save_file({name: np.asarray(values, order="C") for name, values in content.items()}, path)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads all rows of one file; all columns, or only ``columns``.

    ``pyarrow.parquet.read_table`` is made for data sets of many files: it imports pandas if that is
    installed (half a second) and takes three times as long for a small file.
    """
    with pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def read_array(path: Path) -> NDArray[np.generic]:
    """The array of a ``.npy`` file, memory-mapped.

    Raises:
        ValueError: the file is damaged, or holds objects.
    """
    array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def read_tensors(path: Path) -> Tensors:
    """The named tensors of a ``.safetensors`` file.

    Raises:
        SafetensorError: the file is damaged.
    """
    from safetensors.numpy import load_file

    tensors: Tensors = load_file(path)
    return tensors
