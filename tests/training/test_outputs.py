"""A model that its last step has destroyed is a failure, not a trained model."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from w2s_ray.study import main


@pytest.mark.parametrize("trainable", ["last_layer", "lora"])
def test_logits_that_are_not_finite_after_the_last_step_fail_the_cell(
    write_spec: Any, tmp_path: Path, trainable: str
) -> None:
    """One step: the loss and the gradient before it are finite."""
    spec = write_spec(
        grid__loss=["reverse_kl"],
        grid__noise_ratio=[0.0],
        grid__trainable=[trainable],
        grid__learning_rate=[1e-3, 3e38],
        training__weak={"learning_rate": 1e-3},
        training__batch_size=64,
        training__schedule="constant",
    )
    assert main([str(spec), "--local"]) == 1
    good, bad = pq.read_table(tmp_path / "store/results").to_pylist()
    assert (good["status"], good["steps"]) == ("done", 1)
    assert bad["status"] == "failed" and "not finite" in bad["error"]
