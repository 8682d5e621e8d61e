"""``features``: the frozen backbone's last-token states of all rows, computed once.

All last-layer models of a backbone (weak, ceiling and every student) are trained on this one
artifact: the backbone never runs again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from w2s_ray.data.labels import positions
from w2s_ray.data.tokens import encode
from w2s_ray.plan.graph import Step
from w2s_ray.spec.schema import ModelSpec
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifacts import Artifact, Draft

SPLITS = ("ground_truth", "weak", "test")


@dataclass(frozen=True)
class Features:
    """The artifact as its readers see it."""

    artifact: Artifact

    def of(self, split: str, rows: pa.Table) -> NDArray[np.float32]:
        """(n, m, H) float32 states of ``rows``, found by row id."""
        states = np.load(self.artifact.folder / f"{split}.npy", mmap_mode="r")
        present = pq.read_table(self.artifact.folder / f"{split}.parquet")["row_id"]
        where = positions(rows["row_id"].to_pylist(), present.to_pylist())
        return np.ascontiguousarray(states[where])


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``{split}.npy`` (n, m, H) float32 and ``{split}.parquet`` (row_id)."""
    # Imported here: whoever only reads features needs none of it.
    from w2s_ray.models.compiled import compile_if_it_pays
    from w2s_ray.models.inference import last_states
    from w2s_ray.models.warm import frozen_backbone

    rows = Rows(inputs["prepare"])
    backbone = frozen_backbone(
        ModelSpec.model_validate(step.execution["model"]), step.config["precision"]
    )
    encoded = {
        split: encode(rows[split], backbone.tokenizer, step.config["max_length_tokens"])
        for split in SPLITS
    }
    total = sum(len(tokens.ids) for tokens in encoded.values())
    compile_if_it_pays(backbone, total, flops_a_parameter=2)
    before = 0

    def progress(done: int) -> None:
        context.progress({"step": before + done, "steps": total, "unit": "tokens"})

    for split, tokens in encoded.items():
        np.save(draft.folder / f"{split}.npy", last_states(backbone, tokens, progress=progress))
        pq.write_table(pa.table({"row_id": tokens.row_ids}), draft.folder / f"{split}.parquet")
        before += len(tokens.ids)
    draft.metrics.update(
        tokens=total,
        hidden_size=backbone.hidden_size,
        truncated_rows={split: tokens.truncated for split, tokens in encoded.items()},
    )
