"""``prepare``: sources → three tables of rows, and a report of what could not be used."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_ray.contents import read_parquet
from w2s_ray.data.prepare import prepare
from w2s_ray.data.sources import data_identity
from w2s_ray.plan.configs import PrepareConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Context
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft

GROUP_ROWS = 8 * 1024
"""Rows of a row group: whoever reads some rows of a split decodes no more than these."""


@dataclass(frozen=True)
class Rows:
    """The rows of a finished ``prepare`` step."""

    artifact: Artifact

    def __getitem__(self, split: str) -> pa.Table:
        return read_parquet(self.artifact.file(f"{split}.parquet"))

    def labels(self, split: str) -> pa.Table:
        """Row ids and labels of a split, without its texts."""
        return read_parquet(self.artifact.file(f"{split}.parquet"), ["row_id", "label"])

    def count(self, split: str) -> int:
        """Number of rows of a split."""
        return int(pq.read_metadata(self.artifact.file(f"{split}.parquet")).num_rows)

    def slice(self, split: str, start: int, count: int) -> pa.Table:
        """``count`` rows of a split from ``start`` on, of which only the row groups are read."""
        file = pq.ParquetFile(self.artifact.file(f"{split}.parquet"))
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        first, last = np.searchsorted(ends, [start, start + count - 1], side="right").tolist()
        before = int(ends[first]) - sizes[first]
        return file.read_row_groups(range(first, last + 1)).slice(start - before, count)

    def shards(self, split: str, rows: int) -> Iterator[pa.Table]:
        """A split in tables of ``rows`` rows, read one after the other."""
        file = pq.ParquetFile(self.artifact.file(f"{split}.parquet"))
        for batch in file.iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.artifact.record["metrics"]["num_classes"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their indices; empty for pairs."""
        return tuple(self.artifact.record["metrics"].get("report", {}).get("classes", ()))

    @property
    def per_row(self) -> int:
        """Texts of a row, m: 2 for pairs, 1 for classes."""
        return int(self.artifact.record["metrics"]["per_row"])


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``{ground_truth,weak,test}.parquet``: row_id, prompt, answers, label."""
    assert step.data is not None
    if data_identity(step.data) != step.config_as(PrepareConfig).data:
        raise ValueError("the data have changed since the study was planned; run the study again")
    prepared = prepare(step.data, messages=step.config_as(PrepareConfig).messages)
    for split, table in prepared.tables.items():
        pq.write_table(table, draft.folder / f"{split}.parquet", row_group_size=GROUP_ROWS)
    draft.metrics.update(
        num_classes=prepared.num_classes, per_row=prepared.per_row, report=prepared.report
    )
