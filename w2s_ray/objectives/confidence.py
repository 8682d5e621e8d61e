"""Confidence regularisation: let the student, little by little, believe its own hard guess.

Burns et al. 2023, appendix A.4 (docs/losses.md §2): the target is (1 - alpha) w + alpha ŝ, where
ŝ is the student's own prediction, made hard at a threshold and without gradient. Here

* alpha rises from 0 in one straight line, a function of the optimizer step alone;
* the threshold is a logit difference z, known *before* a step, from earlier predictions. So it is
  the same for all micro-batches of the step, and a batch of one row is not compared with itself:
    - preference: ``PREFERENCE_THRESHOLD``. The order of two answers is random, so the prior is ½;
    - classification with K = 2: ``ThresholdBuffer``, the quantile that leaves the weak labels'
      class prior above it;
    - K > 2: none. The hard target is the top class.
"""

from collections import deque
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2s_ray.objectives.divergence import loss
from w2s_ray.objectives.names import LABEL_CLIP

Form = Literal["target", "sum"]

PREFERENCE_THRESHOLD = 0.0


def alpha(step: int, total_steps: int, weight: float, warmup: float) -> float:
    """alpha of optimizer step ``step``, counted from 0.

    It rises linearly from 0 at step 0 to ``weight`` at step ``warmup * total_steps`` and stays.
    warmup is a fraction of all steps; with 0, alpha is ``weight`` from the start.
    """
    ramp = warmup * total_steps
    return weight * min(1.0, step / ramp) if ramp > 0 else weight


def log_odds(logits: Tensor) -> Tensor:
    """z of two-class logits, (B, 2) -> (B,) float32 without gradient; positive: class 1."""
    first, second = logits.detach().float().unbind(dim=-1)
    return second - first


def hard_targets(logits: Tensor, threshold: float | Tensor) -> Tensor:
    """ŝ, the student's own prediction as a one-hot label without gradient, (B, K) float32.

    K = 2: class 1 where z > threshold, class 0 where z < threshold. K > 2: the top class; the
    threshold is not used. A tie is shared evenly, since a fresh head ties on every row and must
    not teach itself one class: that also keeps the loss unchanged when a pair is turned round.
    """
    scores = logits.detach().float()
    if scores.shape[-1] == 2:
        margin = log_odds(scores) - threshold
        scores = torch.stack((torch.zeros_like(margin), margin), dim=-1)
    top = (scores == scores.amax(dim=-1, keepdim=True)).float()
    return top / top.sum(dim=-1, keepdim=True)


def confidence_loss(
    name: str,
    logits: Tensor,
    soft_labels: Tensor,
    *,
    alpha: float | Tensor,
    threshold: float | Tensor = PREFERENCE_THRESHOLD,
    form: Form = "target",
    label_clip: float = LABEL_CLIP,
    **parameters: float,
) -> Tensor:
    """The loss ``name`` with confidence regularisation, (B, K) and (B, K) -> (B,) float32 nats.

    form "target": L(s, (1 - alpha) w + alpha ŝ).
    form "sum": (1 - alpha) L(s, w) + alpha CE(s, ŝ).
    The two are one for forward CE and differ for the reverse losses. At alpha = 0 both are the
    plain loss, bit for bit. alpha and the threshold may be (B,) tensors, one value a row.
    """
    own = hard_targets(logits, threshold)
    share = torch.as_tensor(alpha, dtype=torch.float32, device=logits.device)
    if form == "target":
        soft_labels = torch.lerp(soft_labels.float(), own, share.unsqueeze(-1))
        return loss(name, logits, soft_labels, label_clip=label_clip, **parameters)
    learned = loss(name, logits, soft_labels, label_clip=label_clip, **parameters)
    return (1.0 - share) * learned + share * loss("forward_ce", logits, own)


class ThresholdBuffer:
    """The z that leaves a share ``prior`` of the student's latest predictions above it (K = 2).

    prior: the mean of the weak labels' class-1 probability over the student's training rows.
    capacity: how many predictions to remember. 256 leave the share above known to 3 points, and
    are 16 steps of 16 rows old at most. Whole optimizer steps are remembered and forgotten, so
    neither the micro-batch nor the order of a step's rows can change a threshold.
    Memory: 4 bytes a prediction, whatever the size of the model; no graph is kept.
    """

    def __init__(self, prior: float, capacity: int = 256) -> None:
        if not 0.0 <= prior <= 1.0:
            raise ValueError(f"prior {prior} is not in [0, 1]")
        self.prior = prior
        self.capacity = capacity
        self._steps: deque[NDArray[np.float32]] = deque()

    @property
    def threshold(self) -> float:
        """t for the coming step; before the first prediction it is 0, s = ½."""
        if not self._steps:
            return PREFERENCE_THRESHOLD
        # "hazen": exactly prior * n of n distinct values lie above, if that is a whole number.
        latest = np.concatenate(self._steps)
        return float(np.quantile(latest, 1.0 - self.prior, method="hazen"))

    def update(self, predictions: Tensor) -> None:
        """Add z of *all* rows of one optimizer step, (n,), from every micro-batch and worker."""
        self._steps.append(predictions.detach().float().cpu().numpy().copy())
        while sum(map(len, self._steps)) - len(self._steps[0]) >= self.capacity:
            self._steps.popleft()

    def state_dict(self) -> dict[str, list[list[float]]]:
        """What a resumed run needs, in plain lists: z a step, oldest first."""
        return {"steps": [step.tolist() for step in self._steps]}

    def load_state_dict(self, state: dict[str, list[list[float]]]) -> None:
        self._steps = deque(np.asarray(step, dtype=np.float32) for step in state["steps"])
