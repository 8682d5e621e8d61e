"""Parquet files of artifacts as Arrow tables.

``pyarrow.parquet.read_table`` is for data sets of many files: it loads pandas (half a second, if it
is installed) and takes three times as long for a small file.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of one file; all columns, or these."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)
