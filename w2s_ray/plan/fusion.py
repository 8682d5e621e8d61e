"""Which steps one process may run at once, and which of them rest on a loaded backbone.

Fusion is execution: a fused step keeps its own key, artifact, record and failure.
"""

import json

from w2s_ray.plan.graph import TRAINED_ON, Step

FusionKey = tuple[str, ...]


def fusion_key(step: Step) -> FusionKey | None:
    """Ready steps with one fusion key are run together; None: the step runs alone.

    Heads on one features artifact and one split of its rows are trained as one problem. Scores are
    so cheap that all of them go to one process.
    """
    if step.kind == "evaluate":
        return ("evaluate",)
    if step.config.get("training", {}).get("trainable") == "last_layer":
        return ("head", step.inputs["features"], TRAINED_ON[step.kind])
    return None


def backbone(step: Step) -> str | None:
    """The model that a process has loaded after this step; None: it needs none."""
    if "model" not in step.execution or "features" in step.inputs:
        return None
    return json.dumps(step.execution["model"], sort_keys=True)
