"""The export of a model that was trained whole or by adapters, at the end of its job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.export import ending_in_pad, export_layout, write_export
from w2s_ray.models.model_card import EXPORT, Card

if TYPE_CHECKING:
    from w2s_ray.training.job import TrainJob


def export_trained(
    out: Path | None,
    card: Card,
    job: TrainJob,
    backbone: Backbone,
    shapes: Mapping[str, tuple[int, ...]],
    whole: Callable[[Iterable[str]], Iterator[tuple[str, Tensor]]],
    test: Tokens,
    logits: NDArray[np.float32],
) -> None:
    """Writes ``export/`` into the folder ``out``; every rank must call it.

    Args:
        out: None above rank 0.
        card: without results, which are added.
        shapes: whole shape of every parameter of the scorer by name, frozen ones too.
        whole: gives parameters by name, as ``Engine.whole``.
        test: the test rows as tokens.
        logits: (n, K) of them.
    """
    layout = export_layout(shapes, backbone.module.config, job.precision, job.lora)
    pads = ending_in_pad(test, int(backbone.tokenizer.pad_token_id))
    card = card.scored(logits, job.test["label"].to_numpy())
    write_export(
        None if out is None else out / EXPORT,
        layout,
        whole(layout.sources),
        config=backbone.module.config,
        tokenizer=backbone.tokenizer,
        card=replace(card, ending_in_pad=pads),
    )
