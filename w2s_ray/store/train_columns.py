"""The columns of ``train_predictions/``, as ``columns`` has those of the other tables."""

import pyarrow as pa

from w2s_ray.store.column import Column

TRAIN_PREDICTIONS_SCHEMA_VERSION = 1

_TEXT = pa.string()

TRAIN_PREDICTIONS = (
    Column(
        "key",
        _TEXT,
        "",
        "key of the model's step: the key, label_key or ceiling_key of results",
        nullable=False,
    ),
    Column("model_role", _TEXT, "", "weak, student or ceiling", nullable=False),
    Column(
        "row_id",
        _TEXT,
        "",
        "identifier of the training example, derived from its content",
        nullable=False,
    ),
    Column("label", pa.int64(), "", "true class, which no student of the grid has learned from"),
    Column(
        "logits",
        pa.list_(pa.float16()),
        "nat",
        "logit of each class minus the largest of the row, in float16; of the weak model the "
        "logarithms of its labels",
        nullable=False,
    ),
    Column(
        "soft_label",
        pa.list_(pa.float32()),
        "probability",
        "the label that a student learned from: at its temperature, with its noise; null for weak "
        "and ceiling",
    ),
    Column(
        "noisy",
        pa.bool_(),
        "",
        "whether noise was applied to that label; null for weak and ceiling",
    ),
    Column("prompt_id", _TEXT, "", "as in predictions"),
    Column("phenomenon", _TEXT, "", "as in predictions"),
)
