"""A student's objective as one value: a loss, its parameters and its confidence regularisation.

It is made from the axes of a cell, compares and hashes by value, and is all the training loop
knows of the losses. The weak model and the ceiling train on hard truth with ``GROUND_TRUTH``,
forward CE and nothing else, whatever the student's objective is.
"""

from dataclasses import dataclass

from torch import Tensor

from w2s_ray.objectives import confidence
from w2s_ray.objectives.confidence import PREFERENCE_THRESHOLD, Form
from w2s_ray.objectives.names import LABEL_CLIP


@dataclass(frozen=True, slots=True)
class Objective:
    """What a student minimises. The fields are the spec's; see ``names`` for loss and parameters.

    confidence_weight: the final alpha, in [0, 1]. confidence_warmup: the fraction of all steps over
    which alpha rises to it. label_clip: gamma.
    """

    loss: str = "forward_ce"
    loss_parameters: tuple[tuple[str, float], ...] = ()
    confidence_weight: float = 0.0
    confidence_warmup: float = 0.2
    confidence_form: Form = "target"
    label_clip: float = LABEL_CLIP

    def alpha(self, step: int, total_steps: int) -> float:
        """alpha of optimizer step ``step``, counted from 0."""
        return confidence.alpha(step, total_steps, self.confidence_weight, self.confidence_warmup)

    def __call__(
        self,
        logits: Tensor,
        soft_labels: Tensor,
        *,
        alpha: float | Tensor = 0.0,
        threshold: float | Tensor = PREFERENCE_THRESHOLD,
    ) -> Tensor:
        """(B, K) logits and (B, K) soft labels -> (B,) float32 nats, one an example."""
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
"""Forward CE on one-hot labels: how the weak model and the ceiling learn."""
