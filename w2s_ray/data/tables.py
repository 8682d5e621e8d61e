"""Reading of an artifact's Parquet files as Arrow tables.

``pyarrow.parquet.read_table`` is made for data sets of many files: it imports pandas if that is
installed (half a second) and takes three times as long for a small file.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of one file; all columns, or only ``columns``."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)
