"""Which rows belong together: rows of one prompt, and rows of one phenomenon.

Rows of one prompt are not independent, so an interval averages them first. Both come from a table
of the ``prepare`` artifact; a model's predictions are matched to it by row id.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import TEST_ROWS


class Matched(NamedTuple):
    """What the prepared table says of n rows; null where unknown.

    Attributes:
        prompt_id, phenomenon: strings.
        label: int64, the true class.
    """

    prompt_id: pa.Array
    phenomenon: pa.Array
    label: pa.Array


class Clusters:
    """The clusters of the rows of each data set of a study.

    Args:
        data_of: key of a model's step → key of the ``prepare`` step of its rows.
        file: the prepared table that has the rows.
    """

    def __init__(self, store: Store, data_of: Mapping[str, str], file: str = TEST_ROWS) -> None:
        self._data_of = data_of
        records = store.records(set(data_of.values()))
        keys = sorted(key for key, record in records.items() if file in record["files"])
        tables = store.tables(keys, file, ("row_id", "prompt", "phenomenon", "label"))
        self._tables = {key: _clusters(table) for key, table in zip(keys, tables, strict=True)}

    def of(self, key: str, row_ids: pa.ChunkedArray) -> Matched:
        """What is known of the rows of one model, in the order of ``row_ids``."""
        table = self._tables.get(self._data_of[key])
        if table is None:
            texts = pa.nulls(len(row_ids), pa.string())
            return Matched(texts, texts, pa.nulls(len(row_ids), pa.int64()))
        if not table["row_id"].equals(row_ids):
            table = table.take(pc.index_in(row_ids, table["row_id"]).combine_chunks())
        return Matched(*(table[name].combine_chunks() for name in Matched._fields))


def data_of_models(cells: Iterable[Mapping[str, Any]], roles: Sequence[str]) -> dict[str, str]:
    """The key of the ``prepare`` step of each model's rows, by the key of the model's step."""
    return {cell["keys"][role]: cell["keys"]["prepare"] for cell in cells for role in roles}


def _clusters(table: pa.Table) -> pa.Table:
    """Columns row_id, prompt_id, phenomenon, label of a prepared table."""
    row_ids = table["row_id"].cast(pa.string())
    prompts = zip(table["prompt"].to_pylist(), row_ids.to_pylist(), strict=True)
    phenomenon = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    if "phenomenon" in table.column_names:
        phenomenon = table["phenomenon"].cast(pa.string())
    return pa.table(
        {
            "row_id": row_ids,
            "prompt_id": [_digest(prompt) if prompt else row_id for prompt, row_id in prompts],
            "phenomenon": phenomenon,
            "label": table["label"].cast(pa.int64()),
        }
    )


def _digest(prompt: str) -> str:
    return blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
