"""A student's objective as one value: a loss, its parameters and its confidence regularisation.

An ``Objective`` is built from the axes of a cell, compares and hashes by value, and is the only
interface between the training loop and the losses. The weak model and the ceiling always train on
the true labels with ``GROUND_TRUTH``, plain forward CE, whatever the student's objective is.
"""

from dataclasses import dataclass

from torch import Tensor

from w2s_ray.objectives import confidence
from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, Form
from w2s_ray.objectives.names import LABEL_CLIP


@dataclass(frozen=True, slots=True)
class Objective:
    """What a student minimises; the fields are the spec's.

    Attributes:
        loss: a name in ``names.DEFINITIONS``.
        loss_parameters: (name, value) pairs that override the loss's defaults.
        confidence_weight: the final α, in [0, 1].
        confidence_warmup: fraction of all steps over which α rises to ``confidence_weight``.
        confidence_form: ``target`` mixes the labels, ``sum`` mixes the losses.
        label_clip: γ.
    """

    loss: str = "forward_ce"
    loss_parameters: tuple[tuple[str, float], ...] = ()
    confidence_weight: float = 0.0
    confidence_warmup: float = 0.2
    confidence_form: Form = "target"
    label_clip: float = LABEL_CLIP

    def alpha(self, step: int, total_steps: int) -> float:
        """α at optimizer step ``step``, counted from 0."""
        return confidence.alpha(step, total_steps, self.confidence_weight, self.confidence_warmup)

    def __call__(
        self,
        logits: Tensor,
        soft_labels: Tensor,
        *,
        alpha: float | Tensor = 0.0,
        threshold: float | Tensor = PREFERENCE_THRESHOLD,
    ) -> Tensor:
        """(B, K) logits and (B, K) soft labels -> (B,) float32 losses in nats."""
        return confidence.confidence_loss(
            self.loss,
            logits,
            soft_labels,
            alpha=alpha,
            threshold=threshold,
            form=self.confidence_form,
            label_clip=self.label_clip,
            **dict(self.loss_parameters),
        )


GROUND_TRUTH = Objective()
"""Forward CE on one-hot labels: the objective of the weak model and the ceiling."""
