"""What an older record means that lacks a field, so that a new field moves no older key."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ABSENT_MEANS: Mapping[str, Any] = MappingProxyType(
    {
        "anchor": 0.0,
        "calibrate": "none",
        "evaluations": 1,
        "example_weight": "none",
        "held_out": 0.0,
        "identical_pairs": "leave_out",
        "label_filter": None,
        "label_neighbours": 20,
        "label_temperature": 1.0,
        "messages": False,
        "readout_block": None,
        "relabel": "none",
        "shuffled_labels": False,
        "step_by": None,
        "train_rows": None,
        "validation_rows": 0,
        "weight_decay": 0.0,
    }
)
"""Field → its value where it is absent; the classes of ``configs`` have the same defaults."""


def without_absent(values: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not at the value that their absence means."""
    return {n: v for n, v in values.items() if n not in ABSENT_MEANS or v != ABSENT_MEANS[n]}
