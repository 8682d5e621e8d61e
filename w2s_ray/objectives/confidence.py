"""Confidence regularisation: the student gradually learns from its own hard predictions.

Burns et al. 2023, appendix A.4 (docs/losses.md §2): the target is (1 - α) w + α ŝ, where ŝ is the
student's own prediction, hardened at a threshold and without gradient. In this implementation

* α rises linearly from 0, as a function of the optimizer step alone;
* the threshold is a logit difference z that is fixed *before* a step, from earlier predictions.
  It is therefore the same for all micro-batches of the step, and a batch of one row is not compared
  with itself:
    - preference: ``PREFERENCE_THRESHOLD``. The order of the two answers is random, so the prior
      is ½;
    - classification with K = 2: ``ThresholdBuffer``, the quantile above which the share of recent
      predictions equals the class prior of the weak labels;
    - K > 2: no threshold; the hard target is the top class.
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
    """α at optimizer step ``step``, counted from 0.

    α rises linearly from 0 at step 0 to ``weight`` at step ``warmup * total_steps`` and then stays.
    ``warmup`` is a fraction of all steps; with 0, α is ``weight`` from the start.
    """
    ramp = warmup * total_steps
    return weight * min(1.0, step / ramp) if ramp > 0 else weight


def log_odds(logits: Tensor) -> Tensor:
    """z of two-class logits, (B, 2) -> (B,) float32 without gradient; positive means class 1."""
    first_B, second_B = logits.detach().float().unbind(dim=-1)
    return second_B - first_B


def hard_targets(logits: Tensor, threshold: float | Tensor) -> Tensor:
    """ŝ, the student's own prediction as a one-hot label without gradient, (B, K) float32.

    K = 2: class 1 where z > threshold, class 0 where z < threshold. K > 2: the top class; the
    threshold is ignored. Ties are split evenly: a fresh head ties on every row and must not push
    itself towards one class. This also keeps the loss unchanged when the answers are swapped.
    """
    scores_BK = logits.detach().float()
    if scores_BK.shape[-1] == 2:
        margin_B = log_odds(scores_BK) - threshold
        scores_BK = torch.stack((torch.zeros_like(margin_B), margin_B), dim=-1)
    top_BK = (scores_BK == scores_BK.amax(dim=-1, keepdim=True)).float()
    return top_BK / top_BK.sum(dim=-1, keepdim=True)


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

    Form ``target`` is L(s, (1 - α) w + α ŝ); form ``sum`` is (1 - α) L(s, w) + α CE(s, ŝ). The two
    are equal for forward CE and differ for the reverse losses. At α = 0 both are the plain loss,
    bit for bit. The case of a loss that has several is decided by the weak label, before mixing.

    Args:
        name: a loss in ``names.DEFINITIONS``.
        logits: (B, K), the student's.
        soft_labels: (B, K) probabilities, the weak model's.
        alpha: α, one value or (B,).
        threshold: z that separates the classes of ŝ for K = 2, one value or (B,).
        form: where ŝ enters, ``target`` or ``sum``.
        label_clip: γ of the loss.
        parameters: of the loss.
    """
    hard_BK = hard_targets(logits, threshold)
    alpha_B = torch.as_tensor(alpha, dtype=torch.float32, device=logits.device)
    if form == "target":
        target_BK = torch.lerp(soft_labels.float(), hard_BK, alpha_B.unsqueeze(-1))
        return loss(
            name, logits, target_BK, label_clip=label_clip, deciding=soft_labels, **parameters
        )
    weak_B = loss(
        name, logits, soft_labels, label_clip=label_clip, deciding=soft_labels, **parameters
    )
    return (1.0 - alpha_B) * weak_B + alpha_B * loss("forward_ce", logits, hard_BK)


class ThresholdBuffer:
    """The z above which a share ``prior`` of the student's latest predictions lies (K = 2).

    Whole optimizer steps are added and dropped, so neither the micro-batch nor the order of rows
    within a step can change a threshold. The buffer takes 4 bytes per prediction, whatever the size
    of the model, and holds no graph.

    Args:
        prior: mean class-1 probability of the weak labels over the student's training rows.
        capacity: how many predictions to keep at least. 256 determine the share above the threshold
            to 3 percentage points, and with steps of 16 rows go back at most 16 steps.
    """

    def __init__(self, prior: float, capacity: int = 256) -> None:
        if not 0.0 <= prior <= 1.0:
            raise ValueError(f"prior {prior} is not in [0, 1]")
        self.prior = prior
        self.capacity = capacity
        self._steps: deque[NDArray[np.float32]] = deque()

    @property
    def threshold(self) -> float:
        """The threshold z for the next step; 0 (s = ½) before the first prediction."""
        if not self._steps:
            return PREFERENCE_THRESHOLD
        # "hazen": of n distinct values exactly prior * n lie above, if that is a whole number.
        latest = np.concatenate(self._steps)
        return float(np.quantile(latest, 1.0 - self.prior, method="hazen"))

    def update(self, predictions: Tensor) -> None:
        """Add z of *all* rows of one optimizer step, (n,), from every micro-batch and worker."""
        self._steps.append(predictions.detach().float().cpu().numpy().copy())
        while sum(map(len, self._steps)) - len(self._steps[0]) >= self.capacity:
            self._steps.popleft()

    def state_dict(self) -> dict[str, list[list[float]]]:
        """The state to resume from, as plain lists: z of each step, oldest first."""
        return {"steps": [step.tolist() for step in self._steps]}

    def load_state_dict(self, state: dict[str, list[list[float]]]) -> None:
        """Restore the state saved by ``state_dict``."""
        self._steps = deque(np.asarray(step, dtype=np.float32) for step in state["steps"])
