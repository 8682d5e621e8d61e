"""Outputs of a training step other than weights: test predictions, the curve, the metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from w2s_ray.contents import Content, write_content
from w2s_ray.data.labels import probs_column
from w2s_ray.data.tokens import Tokens
from w2s_ray.finite import check_rows
from w2s_ray.training.loop import Curve
from w2s_ray.training.validation import Evaluated, evaluated_contents


def write_outputs(
    folder: Path,
    test: pa.Table,
    logits: NDArray[np.float32],
    curve: Curve,
    evaluated: Evaluated | None = None,
) -> None:
    """Writes ``outputs``, each as a file of a folder."""
    for name, content in outputs(test, logits, curve, evaluated).items():
        write_content(folder / name, content)


def outputs(
    test: pa.Table,
    logits: NDArray[np.float32],
    curve: Curve,
    evaluated: Evaluated | None = None,
) -> Mapping[str, Content]:
    """``test.parquet`` and ``curve.parquet``, and what was evaluated; see the functions."""
    return {
        "test.parquet": predictions(test, logits),
        "curve.parquet": curve_table(curve),
        **({} if evaluated is None else evaluated_contents(evaluated)),
    }


def predictions(test: pa.Table, logits: NDArray[np.float32]) -> pa.Table:
    """Columns row_id, label, probs (K float64) of each test row, from (t, K) logits.

    Raises:
        FloatingPointError: a logit is not finite. Training stops where a loss or a gradient is not,
            which says nothing of the weights after its last step.
    """
    check_rows(logits, "the trained model's logits", map(str, test["row_id"]))
    probs = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    return pa.table(
        {"row_id": test["row_id"], "label": test["label"], "probs": probs_column(probs)}
    )


def curve_table(curve: Curve) -> pa.Table:
    """One row per optimizer step."""
    return pa.table(
        {
            "step": pa.array(range(1, len(curve.loss) + 1), pa.int64()),
            "loss": curve.loss,
            "learning_rate": curve.learning_rate,
            "gradient_norm": curve.gradient_norm,
            "alpha": pa.array(curve.alpha, pa.float64()),
        }
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
