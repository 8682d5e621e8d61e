"""``features`` and ``test_features``: the last-token states of a frozen backbone, for all rows.

All last-layer models of a backbone (weak, ceiling and every student) are trained on this one
artifact, so the backbone runs once per data set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from w2s_ray.contents import read_parquet
from w2s_ray.data.labels import positions
from w2s_ray.data.tokens import Tokens
from w2s_ray.plan.configs import FeaturesConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.shards import Sharded
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


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``{split}.npy`` (n, m, H) float32 and ``{split}.parquet`` (row_id)."""
    # Imported here: reading features needs none of it.
    from w2s_ray.models.compiled import compile_if_it_pays
    from w2s_ray.models.inference import last_states
    from w2s_ray.models.warm import own_backbone

    config, splits = step.config_as(FeaturesConfig), step.kind.scored
    rows = Rows(inputs["test_set" if "test_set" in inputs else "prepare"])
    assert step.model is not None
    backbone = own_backbone(step.model.read_after(config.readout_block), config.precision)

    def states(tokens: Tokens, progress: Callable[[int], None]) -> NDArray[np.float32]:
        return last_states(backbone, tokens, progress=progress)

    length, rendering = config.max_length_tokens, config.rendering
    sharded = Sharded(rows, splits, backbone.tokenizer, length, rendering, states, context)
    compiled = compile_if_it_pays(backbone, sharded.tokens_expected(), flops_per_parameter=2)
    computed, truncated, identical = 0, dict.fromkeys(splits, 0), dict.fromkeys(splits, 0)
    for split in splits:
        shape = (rows.count(split), rows.per_row, backbone.hidden_size)
        row_ids: list[str] = []
        # Not memory-mapped: on a full disk that would kill the process (SIGBUS).
        with (draft.folder / f"{split}.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for tokens, values in sharded.of(split):
                file.write(np.ascontiguousarray(values, "<f4").data)
                row_ids += tokens.row_ids
                computed += len(tokens.ids)
                truncated[split] += tokens.truncated
                identical[split] += int(tokens.identical.sum())
        assert len(row_ids) == shape[0]
        pq.write_table(pa.table({"row_id": row_ids}), draft.folder / f"{split}.parquet")
    draft.metrics.update(
        tokens=computed,
        hidden_size=backbone.hidden_size,
        shares_prompts=backbone.shares_prompts,
        compiled=compiled,
        truncated_rows=truncated,
        identical_rows=identical,
    )
