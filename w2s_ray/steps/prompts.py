"""``prompts``: the prompts of a study of generated text, in splits that share none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_ray.contents import read_parquet
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import PromptsConfig
from w2s_ray.steps.context import Context
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.tasks.prompts import prompt_tables, prompts_identity


@dataclass(frozen=True)
class Prompts:
    """The prompts of a finished ``prompts`` step."""

    artifact: Artifact

    def __getitem__(self, split: str) -> pa.Table:
        """Columns prompt_id, prompt, family, topic, check (JSON)."""
        return read_parquet(self.artifact.file(f"{split}.parquet"))

    def of(self, splits: Sequence[str]) -> pa.Table:
        """Several splits one after the other, with a column ``split`` in front."""
        return pa.concat_tables(self._with_split(splits))

    def _with_split(self, splits: Sequence[str]) -> Iterator[pa.Table]:
        for split in splits:
            table = self[split]
            names = pa.array([split] * table.num_rows, pa.string())
            yield table.add_column(0, "split", names)


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``{align,train,test,transfer}.parquet``: prompt_id, prompt, family, topic, check."""
    assert step.prompts is not None
    if prompts_identity(step.prompts) != step.config_as(PromptsConfig).prompts:
        raise ValueError("the prompts have changed since the study was planned; run it again")
    counts: dict[str, int] = {}
    for split, table in prompt_tables(step.prompts).items():
        pq.write_table(table, draft.folder / f"{split}.parquet")
        counts[split] = table.num_rows
    draft.metrics.update(prompts=counts)
