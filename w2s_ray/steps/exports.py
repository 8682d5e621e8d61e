"""Which steps leave a model for transformers, and what its card says.

A model that is trained whole is written by those who hold it (``model_export``); one of which only
the last layer was trained is put together here, of the frozen backbone and its head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_ray.models.model_card import Card
from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.prepare import Rows

if TYPE_CHECKING:  # who exports nothing must not wait for transformers
    from torch import Tensor

    from w2s_ray.data.tokens import Tokens
    from w2s_ray.models.backbone import Backbone
    from w2s_ray.training.heads import FittedHead


def is_exported(step: Step) -> bool:
    return step.kind.name in step.execution.export_models


def card_of(step: Step, data: Rows) -> Card:
    """The card of a model to be trained; ``Card.scored`` adds the results."""
    assert step.model is not None
    return Card(
        role=step.kind.name,
        name=f"{step.slug}-{step.key}",
        model=step.model.read_after(step.config_as(TrainConfig).training.readout_block),
        config=step.config.as_json(),
        data=str(data.artifact.record["slug"]),
        per_row=data.per_row,
        num_classes=data.num_classes,
        classes=data.classes,
    )


class HeadExports:
    """Those of heads on one backbone, which is loaded when the first is written.

    Args:
        step: one of the steps that share the backbone.
        data: the rows that they share.
    """

    def __init__(self, step: Step, data: Rows) -> None:
        self._step, self._data = step, data

    def write(self, step: Step, fitted: FittedHead, folder: Path) -> None:
        """Writes the model of ``step`` into ``folder``.

        Raises:
            InputError, ValueError: the stock class cannot hold its bias.
        """
        from w2s_ray.models.export import ending_in_pad, export_layout, write_export

        module, tokenizer = self._backbone.module, self._backbone.tokenizer
        parameters: dict[str, Tensor] = {
            **{f"backbone.{name}": p.detach() for name, p in module.named_parameters()},
            **fitted.state,
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        precision = step.config_as(TrainConfig).training.precision
        layout = export_layout(shapes, module, precision)

        def wanted() -> Iterator[tuple[str, Tensor]]:
            for name in layout.sources:
                yield name, parameters[name].cpu()

        labels = self._data.labels("test")["label"].to_numpy()
        card = card_of(step, self._data).scored(fitted.test_logits, labels)
        pads = ending_in_pad(self._tokens, int(tokenizer.pad_token_id))
        card = replace(card, ending_in_pad=pads)
        write_export(folder, layout, wanted(), config=module.config, tokenizer=tokenizer, card=card)

    @cached_property
    def _backbone(self) -> Backbone:
        from w2s_ray.models.warm import own_backbone

        assert self._step.model is not None
        training = self._step.config_as(TrainConfig).training
        return own_backbone(self._step.model.read_after(training.readout_block), training.precision)

    @cached_property
    def _tokens(self) -> Tokens:
        from w2s_ray.data.tokens import encode

        training = self._step.config_as(TrainConfig).training
        test, tokenizer = self._data["test"], self._backbone.tokenizer
        return encode(test, tokenizer, training.max_length_tokens, training.rendering)
