"""Which test rows belong together: rows of one prompt, and rows of one phenomenon.

Rows of one prompt are not independent, so an interval averages them first. Both come from the test
table of the ``prepare`` artifact; a model's predictions are matched to it by row id.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import TEST_ROWS


class Clusters:
    """The clusters of the test rows of each data set of a study.

    Args:
        data_of: key of a model's step → key of the ``prepare`` step of its rows.
    """

    def __init__(self, store: Store, data_of: Mapping[str, str]) -> None:
        self._data_of = data_of
        keys = sorted(set(store.records(set(data_of.values()))))
        contents = store.contents(keys, TEST_ROWS)
        self._tables = {key: _clusters(c) for key, c in zip(keys, contents, strict=True)}

    def of(self, key: str, row_ids: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
        """``prompt_id`` and ``phenomenon`` of the rows of one model; null where unknown."""
        table = self._tables.get(self._data_of[key])
        if table is None:
            return pa.nulls(len(row_ids), pa.string()), pa.nulls(len(row_ids), pa.string())
        if not table["row_id"].equals(row_ids):
            table = table.take(pc.index_in(row_ids, table["row_id"]).combine_chunks())
        return table["prompt_id"].combine_chunks(), table["phenomenon"].combine_chunks()


def data_of_models(cells: Iterable[Mapping[str, Any]], roles: Sequence[str]) -> dict[str, str]:
    """The key of the ``prepare`` step of each model's rows, by the key of the model's step."""
    return {cell["keys"][role]: cell["keys"]["prepare"] for cell in cells for role in roles}


def _clusters(content: bytes) -> pa.Table:
    """Columns row_id, prompt_id, phenomenon of a prepared table."""
    file = parquet.ParquetFile(BytesIO(content))
    wanted = [n for n in ("row_id", "prompt", "phenomenon") if n in file.schema_arrow.names]
    table = file.read(wanted, use_threads=False)
    row_ids = table["row_id"].cast(pa.string())
    prompts = zip(table["prompt"].to_pylist(), row_ids.to_pylist(), strict=True)
    phenomenon = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    if "phenomenon" in wanted:
        phenomenon = table["phenomenon"].cast(pa.string())
    ids = [_digest(prompt) if prompt else row_id for prompt, row_id in prompts]
    return pa.table({"row_id": row_ids, "prompt_id": ids, "phenomenon": phenomenon})


def _digest(prompt: str) -> str:
    return blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
