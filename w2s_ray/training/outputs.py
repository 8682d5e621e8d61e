"""Outputs of a training step other than weights: test predictions, the curve, the metrics."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from w2s_ray.data.labels import probs_column
from w2s_ray.data.tokens import Tokens
from w2s_ray.training.loop import Curve


def write_outputs(folder: Path, test: pa.Table, logits: NDArray[np.float32], curve: Curve) -> None:
    """Writes ``test.parquet`` and ``curve.parquet``; see the two functions."""
    write_predictions(folder / "test.parquet", test, logits)
    write_curve(folder / "curve.parquet", curve)


def write_predictions(path: Path, test: pa.Table, logits: NDArray[np.float32]) -> None:
    """Writes columns row_id, label, probs (K float64) of each test row, from (t, K) logits."""
    probs = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    columns = {"row_id": test["row_id"], "label": test["label"], "probs": probs_column(probs)}
    table = pa.table(columns)
    pq.write_table(table, path, use_dictionary=False)  # almost no value repeats


def write_curve(path: Path, curve: Curve) -> None:
    """Writes one row per optimizer step."""
    pq.write_table(
        pa.table(
            {
                "step": pa.array(range(1, len(curve.loss) + 1), pa.int64()),
                "loss": curve.loss,
                "learning_rate": curve.learning_rate,
                "gradient_norm": curve.gradient_norm,
                "alpha": curve.alpha,
            }
        ),
        path,
    )


def counts_of(tokens: Tokens, split: str = "") -> dict[str, int]:
    """Counts of rows that were truncated, and of pairs whose answers are the same tokens.

    Args:
        split: ``test_`` for the test rows.
    """
    return {
        f"truncated_{split}rows": tokens.truncated,
        f"identical_{split}rows": int(tokens.identical.sum()),
    }


def training_metrics(curve: Curve) -> dict[str, Any]:
    """The metrics of a training step's record; no token counts where no tokens were computed."""
    tokens = {
        "tokens": curve.tokens,
        "tokens_per_second": curve.tokens / max(curve.seconds, 1e-9),
    }
    return {
        **(tokens if curve.tokens else {}),
        "steps": len(curve.loss),
        "train_seconds": curve.seconds,
        "first_loss": curve.loss[0],
        "final_loss": float(np.mean(curve.loss[-10:])),
    }
