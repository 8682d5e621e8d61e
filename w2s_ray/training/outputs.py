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
from w2s_ray.finite import check_rows
from w2s_ray.training.loop import Curve
from w2s_ray.training.validation import Evaluated, write_evaluated


def write_outputs(
    folder: Path,
    test: pa.Table,
    logits: NDArray[np.float32],
    curve: Curve,
    evaluated: Evaluated | None = None,
) -> None:
    """Writes ``test.parquet`` and ``curve.parquet``, and what was evaluated; see the functions."""
    write_predictions(folder / "test.parquet", test, logits)
    write_curve(folder / "curve.parquet", curve)
    if evaluated is not None:
        write_evaluated(folder, evaluated)


def write_predictions(path: Path, test: pa.Table, logits: NDArray[np.float32]) -> None:
    """Writes columns row_id, label, probs (K float64) of each test row, from (t, K) logits.

    Raises:
        FloatingPointError: a logit is not finite. Training stops where a loss or a gradient is not,
            which says nothing of the weights after its last step.
    """
    check_rows(logits, "the trained model's logits", map(str, test["row_id"]))
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


def size_metrics(parameters: int, trained: int, tokens: int) -> dict[str, float]:
    """Size of a model, and the operations of its training on so many tokens.

    Forward 2 N operations a token, N the parameters; backward 2 N for the states and 2 for each
    trained parameter: 6 N where all are trained. Attention, whose cost grows with length, and
    blocks that are computed twice (activation checkpointing) are not counted.

    Args:
        parameters: of backbone, head and adapters.
        trained: those that are trained.
    """
    flops = float(tokens) * (4 * parameters + 2 * trained)
    return {"parameters": parameters, "trained_parameters": trained, "flops": flops}


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
