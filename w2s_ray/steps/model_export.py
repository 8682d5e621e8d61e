"""The export of a model that was trained whole or by adapters, written at the end of its job."""

from dataclasses import dataclass, replace
from pathlib import Path

from w2s_ray.models.export import ending_in_pad, export_layout, write_export
from w2s_ray.models.model_card import EXPORT, Card
from w2s_ray.training.job import TrainedModel, TrainJob


@dataclass(frozen=True)
class ModelExport:
    """The export of one job (``training.job.Export``).

    Attributes:
        card: the model card without results, which are added.
    """

    card: Card

    def __call__(self, folder: Path | None, job: TrainJob, trained: TrainedModel) -> None:
        """Writes ``export/`` into ``folder``, on rank 0; every rank must call this."""
        backbone = trained.backbone
        layout = export_layout(trained.shapes, backbone.module, job.precision, job.lora)
        pads = ending_in_pad(trained.test, int(backbone.tokenizer.pad_token_id))
        card = self.card.scored(trained.logits, job.test["label"].to_numpy())
        write_export(
            None if folder is None else folder / EXPORT,
            layout,
            trained.whole(layout.sources),
            config=backbone.module.config,
            tokenizer=backbone.tokenizer,
            card=replace(card, ending_in_pad=pads),
        )
