"""What the pure functions under every study compute: draws, splits, noise, losses, tokens.

The numbers of a whole step (``test_values``) say that something moved; these say which function.
When that is meant, raise the versions that the message names and write the files again:
``python -m tests.golden.test_functions``. It refuses while they are not raised.

How a batch is cut into micro-batches is not here: it is execution, and may change with no version.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.golden.goldens import Golden, check, write
from w2s_ray.data.batches import epoch_order, optimizer_batches, pack
from w2s_ray.data.prepare import SPLITS, prepare
from w2s_ray.data.sources import data_identity
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.objectives.confidence import Form, ThresholdBuffer, alpha, confidence_loss
from w2s_ray.objectives.divergence import LOSSES, loss
from w2s_ray.objectives.ensembles import combined, members
from w2s_ray.objectives.noise import apply_noise
from w2s_ray.objectives.objective import GROUND_TRUTH
from w2s_ray.order import hashes, order
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import DataSpec

FILES = Path(__file__).with_name("functions")
SPEC = Path(__file__).with_name("values.yaml")

ROWS = [f"row {n}" for n in range(12)]
TEXTS = Path(__file__).with_name("texts.jsonl")

# Margins and labels on both sides of a coin, of agreement, of the clip and of certainty.
PAIRS = [(0.0, 0.5), (1.5, 0.9), (-2.0, 0.7), (6.0, 0.02), (-0.3, 0.0), (12.0, 1.0), (-40.0, 0.8)]
THREE = [([0.2, -1.0, 2.5], [0.1, 0.2, 0.7]), ([3.0, 0.0, -4.0], [0.0, 1.0, 0.0])]


def draws() -> dict[str, Any]:
    streams: list[tuple[int | str, ...]] = [(0, "noise"), (1, "noise"), (0, "epoch", 1)]
    return {
        "hashes": {str(stream): [str(h) for h in hashes(ROWS, *stream)] for stream in streams},
        "order": {str(stream): order(ROWS, *stream).tolist() for stream in streams},
        "epoch orders": [epoch_order(ROWS, 7, epoch).tolist() for epoch in range(2)],
        "batches": [rows.tolist() for rows in optimizer_batches(epoch_order(ROWS, 7, 0), 5)],
    }


def splits() -> dict[str, Any]:
    """A file of pairs, some with a common prompt, dealt out; and a part of generated pairs."""
    found: dict[str, Any] = {}
    for source in (str(TEXTS), "generate:agreement"):
        sizes = dict.fromkeys(SPLITS, 4)
        spec = {"kind": "preference", "source": source, "sizes": sizes, "seed": 3}
        tables = prepare(DataSpec.model_validate(spec)).tables
        found[Path(source).name] = {
            split: table.select(["row_id", "prompt", "answers", "label"]).to_pylist()
            for split, table in tables.items()
        }
    return found


def identities() -> dict[str, Any]:
    """What stands in the key of ``prepare`` for data of each sort."""
    hub = {"splits": {split: [f"hf:a/{split}", f"hf:b/{split}"] for split in SPLITS}}
    sources: dict[str, dict[str, Any]] = {
        "file": {"source": str(TEXTS), "sizes": dict.fromkeys(SPLITS, 4), "format": "trl"},
        "generated": {"source": "generate:agreement", "sizes": dict.fromkeys(SPLITS, 4)},
        "hub": {**hub, "revision": "r", "columns": {"prompt": "question"}, "seed": 3},
    }
    return {
        name: data_identity(DataSpec.model_validate({"kind": "preference", **given}))
        for name, given in sources.items()
    }


def noise() -> dict[str, Any]:
    drawn = hashes(ROWS, 0, "noise")
    two = np.linspace(0.05, 0.95, len(ROWS), dtype=np.float32)
    labels = np.stack([1 - two, two], axis=1)
    three = np.stack([two / 2, 1 - two, two / 2], axis=1)
    ways = [(0.25, -1.0), (0.3, 0.5), (1.0, 0.0)]
    return {
        "two classes": {str(way): apply_noise(labels, drawn, *way).tolist() for way in ways},
        "three classes": {str(way): apply_noise(three, drawn, *way).tolist() for way in ways},
    }


def ensembles() -> dict[str, Any]:
    """Three models, two of which mostly agree, by each rule."""
    one = np.linspace(0.05, 0.95, len(ROWS))
    first = np.stack([np.stack([1 - p, p], axis=1) for p in (one, one**2, one[::-1] / 3 + 0.3)])
    found: dict[str, Any] = {}
    for rule in ("mean", "product", "learned"):
        weights = members(first, rule).weights
        found[rule] = {
            "weights": weights.tolist(),
            "labels": combined(first, rule, weights).tolist(),
        }
    return found


def with_gradient(function: Callable[..., torch.Tensor]) -> dict[str, Any]:
    """Value and gradient at ``PAIRS`` and ``THREE``, in float64: the same on every CPU."""
    z, w = torch.tensor(PAIRS, dtype=torch.float64).unbind(1)
    batches = {"pairs": (torch.stack([0 * z, z], dim=1), torch.stack([1 - w, w], dim=1))}
    three = [torch.tensor(part, dtype=torch.float64) for part in zip(*THREE, strict=True)]
    batches["three classes"] = (three[0], three[1])
    found = {}
    for name, (logits, labels) in batches.items():
        logits.requires_grad_()
        value = function(logits, labels)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        found[name] = {"value": value.tolist(), "gradient": gradient[:, 1:].tolist()}
    return found


def losses() -> dict[str, Any]:
    return {name: with_gradient(partial(loss, name)) for name in LOSSES}


def ground_truth() -> dict[str, Any]:
    return with_gradient(GROUND_TRUTH)


def confidence() -> dict[str, Any]:
    buffer = ThresholdBuffer(prior=0.3, capacity=4)
    thresholds = [buffer.threshold]
    for z in ([0.5, -1.0, 2.0], [-0.25, 3.0], [1.0, 1.5, -2.5, 0.0]):
        buffer.update(torch.tensor(z))
        thresholds.append(buffer.threshold)
    found: dict[str, Any] = {
        "alpha": [alpha(step, 10, 0.75, 0.4) for step in range(10)],
        "thresholds": thresholds,
    }
    forms: list[tuple[str, Form]] = [
        ("reverse_kl", "target"), ("reverse_kl", "sum"), ("forward_ce", "target"),
    ]  # fmt: skip
    for name, form in forms:
        function = partial(confidence_loss, name, alpha=0.3, threshold=0.1, form=form)
        found[f"{name}, {form}"] = with_gradient(function)
    return found


def tokens() -> dict[str, Any]:
    """Texts of bytes, cut on the left where they are long, and a few rows as one line."""
    rows = pa.table(
        {
            "row_id": ["short", "long prompt", "long answer", "no prompt"],
            "prompt": ["Why? ", "a prompt of many words ", "ü ", ""],
            "answers": [["Yes.", "No!"], ["one", "two words"], ["n" * 30, "m"], ["é", "<pad>"]],
        }
    )
    encoded = encode(rows, bytes_tokenizer(), 16)
    line, segments = pack(encoded, np.array([2, 0, 3]))
    return {
        "ids": encoded.ids.tolist(),
        "segments": encoded.segments.tolist(),
        "truncated": encoded.truncated,
        "line": line.tolist(),
        "line's segments": segments.tolist(),
    }


# The kinds that compute with each function by themselves. A draw or a split that moves shows first
# in the rows of ``prepare``, on whose key all other keys depend.
KINDS_OF: dict[Callable[[], dict[str, Any]], tuple[str, ...]] = {
    draws: ("prepare",),
    splits: ("prepare",),
    identities: ("prepare",),
    noise: ("student",),
    ensembles: ("ensemble",),
    losses: ("student",),
    confidence: ("student",),
    ground_truth: ("weak", "ceiling"),
    tokens: ("features", "weak", "ceiling", "student"),
}


def golden(function: Callable[[], dict[str, Any]]) -> Golden:
    versions = {step.kind.name: step.kind.version for step in build(load(SPEC))}
    kinds = {kind: versions[kind] for kind in KINDS_OF[function]}
    return Golden(function.__name__, kinds, function(), enough=all)


@pytest.mark.parametrize("function", KINDS_OF, ids=lambda function: function.__name__)
def test_a_pure_function_moves_only_with_the_versions_that_compute_with_it(
    function: Callable[[], dict[str, Any]],
) -> None:
    check(golden(function), FILES)


if __name__ == "__main__":
    for function in KINDS_OF:
        written = write(golden(function), FILES)
        print(function.__name__, "written" if written else "has not moved")
