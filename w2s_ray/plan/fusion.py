"""Which steps one process may run at once, and which of them rest on a loaded backbone.

Fusion is execution: a fused step keeps its own key, artifact, record and failure.
"""

import json

from w2s_ray.plan.graph import TRAINED_ON, Step

FusionKey = tuple[str, ...]


def fusion_key(step: Step) -> FusionKey | None:
    """Ready steps with one fusion key are run together; None: the step runs alone.

    Heads on one features artifact and one split of its rows are trained as one problem. Adapters of
    students are, where the spec asks for it, if they share backbone and batches and nothing is
    offloaded. Scores are so cheap that all of them go to one process.
    """
    if step.kind == "evaluate":
        return ("evaluate",)
    training = step.config.get("training", {})
    if training.get("trainable") == "last_layer":
        return ("head", step.inputs["features"], TRAINED_ON[step.kind])
    execution = step.execution
    alone = (
        execution.get("workers", 1) > 1
        or execution.get("lora_together", 1) == 1
        or execution.get("offload", "none") != "none"
    )
    if step.kind == "student" and training.get("trainable") == "lora" and not alone:
        batches = {name: value for name, value in training.items() if name != "learning_rate"}
        shared = [step.config["model"], batches, step.config["seed"], step.inputs["prepare"]]
        return ("lora", json.dumps(shared, sort_keys=True))
    return None


def most_together(step: Step) -> int | None:
    """Steps that may be fused with this one, itself included; None: any number."""
    fusion = fusion_key(step)
    return int(step.execution["lora_together"]) if fusion and fusion[0] == "lora" else None


def backbone(step: Step) -> str | None:
    """The model that a process has loaded after this step; None: it needs none."""
    if "model" not in step.execution or "features" in step.inputs:
        return None
    return json.dumps(step.execution["model"], sort_keys=True)
