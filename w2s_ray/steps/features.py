"""``features`` and ``test_features``: the last-token states of a frozen backbone, for all rows.

All last-layer models of a backbone (weak, ceiling and every student) are trained on this one
artifact, so the backbone runs once per data set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from w2s_ray.contents import read_parquet
from w2s_ray.data.labels import positions
from w2s_ray.data.tokens import Tokens
from w2s_ray.plan.configs import FeaturesConfig
from w2s_ray.plan.step import Step
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.shards import Counts, Loaded, Sharded
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft


@dataclass(frozen=True)
class Features:
    """The features of a finished step."""

    artifact: Artifact

    def of(self, split: str, rows: pa.Table) -> NDArray[np.float32]:
        """(n, m, H) float32 states of ``rows``, joined by row id; m texts a row."""
        states = np.load(self.artifact.file(f"{split}.npy"), mmap_mode="r")
        present = read_parquet(self.artifact.file(f"{split}.parquet"))["row_id"]
        order = positions(rows["row_id"].to_pylist(), present.to_pylist())
        return np.ascontiguousarray(states[order])


def sharded(step: Step, inputs: Mapping[str, Artifact], context: Context) -> Sharded:
    """The splits of the data set through the frozen backbone, which is not loaded yet."""
    from w2s_ray.models.tokenizer import load_tokenizer  # reading features needs none of it

    config = step.config_as(FeaturesConfig)
    assert step.model is not None
    return Sharded(
        rows=Rows(inputs["test_set" if "test_set" in inputs else "prepare"]),
        splits=step.kind.scored,
        tokenizer=load_tokenizer(step.model),
        max_length_tokens=config.max_length_tokens,
        rendering=config.rendering,
        load=partial(
            _load,
            step.model.read_after(config.readout_block),
            config.precision,
            step.execution.inference_gpus,
        ),
        context=context,
    )


def _load(model: ModelSpec, precision: str, gpus: int, shards: Sharded) -> Loaded:
    from w2s_ray.models.compiled import compile_if_it_pays
    from w2s_ray.models.inference import last_states
    from w2s_ray.models.split import backbone_for, split

    backbone = split(backbone_for(model, precision, gpus), gpus)
    compiled = compile_if_it_pays(backbone, shards.tokens_expected(), flops_per_parameter=2)

    def states(tokens: Tokens, progress: Callable[[int], None]) -> NDArray[np.float32]:
        return last_states(backbone, tokens, progress=progress)

    return Loaded(states, np.array([backbone.shares_prompts, compiled]))


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``{split}.npy`` (n, m, H) float32 and ``{split}.parquet`` (row_id)."""
    shards = sharded(step, inputs, context)
    draft.metrics.update(shards.spread())
    counts = {split: _write(shards, split, draft) for split in shards.splits}
    shares_prompts, compiled = shards.facts.tolist()
    draft.metrics.update(
        tokens=sum(each.tokens for each in counts.values()),
        hidden_size=np.load(draft.folder / f"{shards.splits[0]}.npy", mmap_mode="r").shape[2],
        shares_prompts=shares_prompts,
        compiled=compiled,
        truncated_rows={split: each.truncated for split, each in counts.items()},
        identical_rows={split: each.identical for split, each in counts.items()},
    )


def _write(shards: Sharded, split: str, draft: Draft) -> Counts:
    """Writes a split shard by shard."""
    row_ids: list[str] = []
    counts = Counts(0, 0, 0)
    # Not memory-mapped: on a full disk that would kill the process (SIGBUS).
    with (draft.folder / f"{split}.npy").open("wb") as file:
        for shard in shards.of(split):
            if not row_ids:
                shape = (shards.rows.count(split), *shard.values.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(shard.values, "<f4").data)
            row_ids += shard.row_ids
            counts = counts.plus(shard.counts)
    assert len(row_ids) == shards.rows.count(split)
    pq.write_table(pa.table({"row_id": row_ids}), draft.folder / f"{split}.parquet")
    return counts
