"""``weak`` and ``ceiling``: trained on ground truth, whatever the students' loss is.

Reverse losses are unbounded on hard labels; only a student may see them.
"""

from collections.abc import Mapping

from w2s_ray.data.labels import one_hot
from w2s_ray.objectives.objective import GROUND_TRUTH
from w2s_ray.plan.graph import Step
from w2s_ray.steps.context import Context
from w2s_ray.steps.fitting import fit_model
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifacts import Artifact, Draft


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Forward cross-entropy on the true labels of the split ``ground_truth``."""
    data = Rows(inputs["prepare"])
    rows = one_hot(data["ground_truth"], data.num_classes)
    fit_model(step, inputs, rows, "ground_truth", GROUND_TRUTH, draft, context)
