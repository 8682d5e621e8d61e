"""``prompts``: the prompts of one split of a study of generated text; no two splits share one."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from w2s_ray.contents import read_parquet
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import PromptsConfig
from w2s_ray.steps.context import Context
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import PROMPTS
from w2s_ray.store.text_results import PROMPTS_OF
from w2s_ray.tasks.prompts import REPEATED, prompt_tables, prompts_identity


def prompts_of(inputs: Mapping[str, Artifact], splits: Sequence[str]) -> pa.Table:
    """Prompts of several splits: split, prompt_id, prompt, family, topic, check (JSON)."""
    return pa.concat_tables(_with_split(inputs, splits))


def _with_split(inputs: Mapping[str, Artifact], splits: Sequence[str]) -> Iterator[pa.Table]:
    for split in splits:
        table = read_parquet(inputs[f"{PROMPTS_OF}{split}"].file(PROMPTS))
        yield table.add_column(0, "split", pa.array([split] * table.num_rows, pa.string()))


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``prompts.parquet``: prompt_id, prompt, family, topic, check."""
    assert step.prompts is not None
    config = step.config_as(PromptsConfig)
    if prompts_identity(step.prompts, config.split) != config.prompts:
        raise ValueError("the prompts have changed since the study was planned; run it again")
    table = prompt_tables(step.prompts)[config.split]
    draft.write(PROMPTS, table)
    repeated = int(table.schema.metadata[REPEATED.encode()])
    draft.metrics.update(prompts={config.split: table.num_rows}, repeated_rows=repeated)
